"""What every experiment shares: its command line, its tables, its results on disk.

Results are whole or not there. Everything is written into a temporary folder beside the
final one, and moved over, file by file with `os.replace`, when all of it is complete.
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
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
_INTERRUPTED = 130  # what a shell reports for SIGINT


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
        listing(config) if listed else main(config, out)
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was written.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


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
    folder = save(script, config, measured, expectations, figure, out)
    print(f"Written: {folder}/ (results.json, arrays.npz, figure.png, figure.pdf)")


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
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        with _undisturbed():
            folder.mkdir(exist_ok=True)
            for path in sorted(temporary.iterdir()):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
