"""What every experiment shares: its command line, its tables, its results on disk.

Results are whole or not there. Everything is written into a temporary folder beside the
final one, and moved over, file by file with `os.replace`, when all of it is complete.
Before anything is measured, as much is written there and removed.
"""

import datetime as dt
import json
import math
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows: what a killed run leaves behind stays there
    fcntl = None

# Before anything loads it: its threads take twice the time at the sizes used here. It
# works because the experiments import this module before jax.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

import vgjax

RESULTS = Path(__file__).resolve().parent.parent / "results"
FILES = ("results.json", "arrays.npz", "figure.png", "figure.pdf")
_INTERRUPTED = 130  # what a shell reports for SIGINT
_ENOUGH = 2**23  # bytes, several times what any experiment writes


class Expectation(NamedTuple):
    """Something the docstring said before the run, and what came of it."""

    statement: str
    came_true: bool
    numbers: str


def command_line(
    main: Callable,
    *,
    default: Any,
    toy: Any,
    description: str,
    listing: Callable | None = None,
) -> None:
    """Run ``main(config, out)`` with what the command line says; Ctrl-C exits with 130.

    Args:
      main: what to run.
      default: a frozen dataclass; the comments on its fields are their help.
      toy: the same dataclass at a size that runs in seconds; what --toy starts from.
      description: what --help says first.
      listing: ``listing(config)`` is run instead of `main` where --list is given; the
        description says what it prints.
    """
    listed = listing is not None and "--list" in sys.argv[1:]
    if listed:
        sys.argv.remove("--list")
    # Looked at before tyro does: it decides which defaults --help shows.
    base = toy if "--toy" in sys.argv[1:] else default
    flat = tyro.conf.arg(name="")  # --seed, not --config.seed
    flag = tyro.conf.FlagCreatePairsOff

    def parse(
        config: Annotated[type(base), flat] = base,
        toy: Annotated[bool, flag] = False,
        out: Path = RESULTS,
    ) -> tuple[Any, Path]:
        """Parse.

        Args:
            config: what to measure.
            toy: Start from a tiny configuration, which takes seconds; other flags
                change it. Its numbers mean nothing.
            out: Folder in which a folder of the experiment's name is written.
        """
        del toy
        return config, out

    program = Path(sys.argv[0]).name
    # A paragraph for every heading, or tyro runs them together.
    description = re.sub(r"(?<!\n)\n(?=[A-Z][a-z ]+: )", "\n\n", description)
    config, out = tyro.cli(parse, prog=program, description=description)
    # A window is not wanted, and there may be no display.
    mpl.use("agg")
    try:
        if listed:
            listing(config)
        else:
            check_writable(out / Path(sys.argv[0]).stem)
            main(config, out)
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was written.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def check_writable(folder: Path) -> None:
    """Leave with a sentence unless results can be written into `folder`.

    Found out by writing: permissions do not tell of a full disk or a quota.
    """
    try:
        for path in (folder, *folder.parents):
            if path.exists() and not path.is_dir():
                _refuse(folder, f"{path} is a file")
        for path in map(folder.joinpath, FILES):
            if path.is_dir():
                _refuse(folder, f"{path} is a folder")
        with _temporary(folder) as temporary:
            _probe(temporary)
        if folder.exists():
            with _temporary(folder / "probe"):
                pass
    except OSError as error:
        _refuse(folder, error.strerror or str(error))


def _probe(folder: Path) -> None:
    with (folder / "probe").open("wb") as file:
        file.write(os.urandom(_ENOUGH))  # zeros may take no room
        file.flush()
        os.fsync(file.fileno())  # some file systems tell only now that they are full


def _refuse(folder: Path, reason: str) -> None:
    sys.exit(
        f"vgjax: results cannot be written to {folder}: {reason}. "
        "Nothing was run; --out names another folder."
    )


def conclude(
    script: str,
    config: Any,
    measured: Mapping[str, Any],
    expectations: Sequence[Expectation],
    figure: Figure,
    out: Path,
) -> None:
    """Report what came true, and save all as `save` does."""
    report(expectations)
    try:
        folder = save(script, config, measured, expectations, figure, out)
    except OSError as error:
        # The disk was not full when the run began, and the run may have taken hours.
        elsewhere = Path(tempfile.mkdtemp(prefix="vgjax-"))
        folder = save(script, config, measured, expectations, figure, elsewhere)
        reason = error.strerror or error
        print(f"{out} can no longer be written to: {reason}.", file=sys.stderr)
    print(f"Written: {folder}/ ({', '.join(FILES)})")


def save(
    script: str,
    config: Any,
    measured: Mapping[str, Any],
    expectations: Sequence[Expectation],
    figure: Figure,
    out: Path,
) -> Path:
    """Write results.json, arrays.npz, figure.png and figure.pdf; return their folder.

    Args:
      script: ``__file__`` of the experiment, after which the folder is called.
      config: its frozen dataclass.
      measured: numbers and arrays, in dicts as deep as one likes; "a/b" is the name of
        ``measured["a"]["b"]``. Arrays go to arrays.npz, numbers to results.json, where
        one that is not finite is the string "nan", "inf" or "-inf".
      expectations: what was expected and what came of it.
      figure: drawn from `measured`.
      out: the folder of all results.
    """
    flat = _flatten(measured)
    arrays = {name: np.asarray(x) for name, x in flat.items() if np.ndim(x) > 0}
    numbers = {name: _plain(x) for name, x in flat.items() if np.ndim(x) == 0}
    name = Path(script).stem
    content = {
        "experiment": name,
        "config": asdict(config),
        "seed": config.seed,
        "dtypes": {name: str(x.dtype) for name, x in arrays.items()},
        "versions": _versions(),
        "device": _device(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "expectations": [e._asdict() for e in expectations],
        "numbers": numbers,
    }
    with _all_or_nothing(out / name) as folder:
        text = json.dumps(content, indent=2, allow_nan=False, default=_plain)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        np.savez_compressed(folder / "arrays.npz", **arrays)
        figure.savefig(folder / "figure.png", dpi=150)
        figure.savefig(folder / "figure.pdf")
    return out / name


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> None:
    """Print a table: the first column to the left, the others to the right."""
    grid = Table(
        title=title,
        caption=note or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console().print(grid)
    print()


def report(expectations: Sequence[Expectation]) -> None:
    """Print what was expected before the run, and whether it came true."""
    print("Expected before the run:")
    for statement, came_true, numbers in expectations:
        verdict = "came true         " if came_true else "DID NOT COME TRUE "
        print(f"  {verdict} {statement}\n{' ' * 21} {numbers}")
    count = sum(e.came_true for e in expectations)
    print(f"{count} of {len(expectations)} expectations came true.")


def console() -> Console:
    """Return a console of at most 110 columns, and of that many in a pipe."""
    found = Console()
    width = min(found.width, 110) if found.is_terminal else 110
    return Console(highlight=False, markup=False, width=width)


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Give a folder to write in, whose files replace those of `folder` at the end."""
    with _temporary(folder) as temporary:
        yield temporary
        with _undisturbed():
            folder.mkdir(exist_ok=True)
            for path in sorted(temporary.iterdir()):
                path.replace(folder / path.name)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder`, and remove it and those of killed runs.

    Each is locked while its process lives. All are made and removed under the lock of
    the folder they are in, or one would be taken for left behind before it is locked.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}-"
    with ExitStack() as stack:
        with _lock(folder.parent, wait=True) as alone:
            leftovers = folder.parent.iterdir() if alone else ()
            for path in [p for p in leftovers if p.name.startswith(prefix)]:
                with _lock(path) as dead:
                    if dead:
                        shutil.rmtree(path, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            stack.enter_context(_lock(temporary))
        yield temporary


@contextmanager
def _lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder until the end, or of the process; say whether that was possible."""
    if fcntl is None:
        yield False
        return
    opened = None
    try:
        try:
            opened = os.open(folder, os.O_RDONLY)
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:  # held by another process, or no locks on this file system
            locked = False
        yield locked
    finally:
        if opened is not None:
            os.close(opened)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C for the few renames that must happen together."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def _plain(x: Any) -> Any:
    """Return a number as JSON knows it, which is without nan and inf."""
    if isinstance(x, Path):
        return str(x)
    x = x if isinstance(x, (bool, int, float, str)) else np.asarray(x).item()
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "matplotlib")
    versions = {name: version(name) for name in packages}
    own = {"vgjax": vgjax.__version__, "python": platform.python_version()}
    return own | versions


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "host": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
