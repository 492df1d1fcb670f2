"""What the experiments share: an experiment owns its question, the lab the rest.

The lab owns the command line, progress, tables, panels, the record on disk and the
verdict. Claims are printed before anything is measured, listed by --help, and stored
with the result.
"""

import inspect
import math
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

# Before anything loads it: its threads take twice the time at the sizes used here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import rich.progress
import tyro
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from vgjax import _store

jax.config.update("jax_enable_x64", True)

RESULTS = Path(__file__).resolve().parent.parent / "results"
FILES = (_store.RECORD, _store.ARRAYS, "figure.png", "figure.pdf")
_INTERRUPTED = 130  # what a shell reports for SIGINT
_QUIET = 1  # s, for which a line of progress stands alone


class Check(NamedTuple):
    """A number, and the closed interval that it was claimed to be in."""

    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the number is in the interval; NaN is in none."""
        return bool(self.low <= self.value <= self.high)

    def __str__(self):
        """Say the number, and the interval in words."""
        low, high = f"{self.low:.4g}", f"{self.high:.4g}"
        both = f"{low} to {high}" if high != "inf" else f"at least {low}"
        return f"{self.value:.4g} ({both if low != '-inf' else f'at most {high}'})"


def at_most(value: float, bound: float) -> Check:
    return Check(float(value), -math.inf, bound)


def at_least(value: float, bound: float) -> Check:
    return Check(float(value), bound, math.inf)


def within(value: float, low: float, high: float) -> Check:
    return Check(float(value), low, high)


class Lab:
    """One experiment: its claims, tables and panels, in the order they are declared.

    Each is a function of the result, and of the configuration too where it takes two
    arguments; a panel has the Axes before these. "{steps}" in the title or the note of
    a table or a panel is that field of the configuration.
    """

    def __init__(self, file: str, doc: str, *, default: Any, toy: Any, columns=3):
        """Begin an experiment.

        Args:
          file: ``__file__`` of the script, after which the folder of results is called.
          doc: its docstring, which --help shows.
          default: a frozen dataclass; the comments on its fields are their help.
          toy: the same at a size that runs in seconds; what --toy starts from.
          columns: of the figure.
        """
        self.name, self.doc = Path(file).stem, doc
        self.default, self.toy, self.columns = default, toy, columns
        self.claims, self.tables, self.panels = {}, [], []

    def claim(self, statement: str) -> Callable:
        """Declare a claim; the function gives a Check, or a dict of several."""
        number = len(self.claims) + 1
        return lambda fn: self.claims.setdefault(f"{number}. {statement}", fn)

    def table(self, title: str, *columns: str, note: str = "") -> Callable:
        """Declare a table; the function gives its rows."""
        return lambda fn: self.tables.append((fn, title, columns, note)) or fn

    def panel(self, title: str, x: str, y: str, *, legend: str | None = "best"):
        """Declare a panel; the function draws on the Axes."""
        return lambda fn: self.panels.append((fn, title, x, y, legend)) or fn

    def main(self, measure: Callable) -> None:
        """Run ``measure(config)`` with what the command line says."""
        description = "\n".join([self.doc, "Claims:", *self.claims])
        config, out = arguments(self.default, self.toy, description)
        with interruptible():
            refuse_unless_writable(out / self.name)
            self.run(measure, config, out)

    def run(self, measure: Callable, config: Any, out: Path) -> None:
        """Print the claims, measure, judge them, and store everything in `out`."""
        folder, fields = out / self.name, asdict(config)
        print("Claimed before anything is measured:")
        print(*map(_wrapped, self.claims), sep="\n", flush=True)
        if (folder / _store.RECORD).exists():
            last = _store.load(folder).record
            if [of["claim"] for of in last.get("claims", ())] != [*self.claims]:
                print(f"The result of {last['date']} was judged by other claims.")

        result = measure(config)
        for fn, title, columns, note in self.tables:
            rows = _call(fn, result, config)
            table(title.format(**fields), columns, rows, note.format(**fields))
        both = self.claims.items()
        claims = [_judge(claim, _call(fn, result, config)) for claim, fn in both]
        count = sum(of["came_true"] for of in claims)
        print(f"{count} of {len(claims)} claims came true.")
        values = result._asdict() if hasattr(result, "_asdict") else result
        record = {"experiment": self.name, "seed": config.seed, "claims": claims}
        save(folder, config, values, self._draw(result, config), **record)

    def _draw(self, result: Any, config: Any) -> Figure:
        rows = -(-len(self.panels) // self.columns)
        size = (4.8 * self.columns, 4.2 * rows)
        figure, axes = plt.subplots(
            rows, self.columns, figsize=size, layout="constrained", squeeze=False
        )
        for ax in axes.flat[len(self.panels) :]:
            ax.remove()
        for ax, (fn, title, x, y, legend) in zip(axes.flat, self.panels, strict=False):
            ax.set(title=title.format(**asdict(config)), xlabel=x, ylabel=y)
            _call(fn, ax, result, config)
            if legend is not None:
                ax.legend(frameon=False, loc=legend)
        return figure


def _call(fn: Callable, *given: Any) -> Any:
    """Call with as many arguments as the function takes."""
    return fn(*given[: len(inspect.signature(fn).parameters)])


def _judge(claim: str, checks: Check | Mapping[str, Check]) -> dict[str, Any]:
    """Print the verdict on a claim, and return it as it is stored."""
    checks = {"": checks} if isinstance(checks, Check) else checks
    came_true = all(check.holds for check in checks.values())
    print(_wrapped(claim, "came true         " if came_true else "DID NOT COME TRUE "))
    numbers = "; ".join(f"{name} {check}".strip() for name, check in checks.items())
    print(_wrapped(numbers, " " * 21))
    stored = {name: check._asdict() for name, check in checks.items()}
    return {"claim": claim, "came_true": came_true, "checks": stored}


def _wrapped(text: str, begin: str = "") -> str:
    begin = f"  {begin}"
    later = " " * (len(begin) + 3 * text[0].isdigit())
    return textwrap.fill(text, 110, initial_indent=begin, subsequent_indent=later)


def arguments(default: Any, toy: Any, description: str) -> tuple[Any, Path]:
    """Return the configuration and the folder of all results that the user wants."""
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

    # A paragraph for every heading and claim, or tyro runs them together.
    description = re.sub(r"(?<!\n)\n(?=[A-Z][a-z ]+: |\d\. )", "\n\n", description)
    return tyro.cli(parse, prog=Path(sys.argv[0]).name, description=description)


@contextmanager
def interruptible() -> Iterator[None]:
    """Exit with 130 at Ctrl-C; draw without a window, for there may be no display."""
    mpl.use("agg")
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was written.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def refuse_unless_writable(folder: Path) -> None:
    """Leave with a sentence unless results can be written into `folder`."""
    try:
        _store.check_writable(folder, FILES)
    except OSError as error:
        sys.exit(f"vgjax: {error}. Nothing was run; --out names another folder.")


def save(
    folder: Path, config: Any, values: Mapping[str, Any], figure: Figure, **record: Any
) -> None:
    """Store a result, in a folder made for it where `folder` takes no more."""
    try:
        _save(folder, config, values, figure, record)
    except OSError as error:
        # The disk was not full when the run began, and the run may have taken hours.
        asked, folder = folder, Path(tempfile.mkdtemp(prefix="vgjax-")) / folder.name
        _save(folder, config, values, figure, record)
        reason = error.strerror or error
        print(f"{asked} can no longer be written to: {reason}.", file=sys.stderr)
    print(f"Written: {folder}/ ({', '.join(FILES)})")


def _save(folder, config, values, figure, record) -> None:
    with _store.replacing(folder) as new:
        _store.write(new, config, values, **record)
        figure.savefig(new / "figure.png", dpi=150)
        figure.savefig(new / "figure.pdf")


def track(items: Iterable, doing: str) -> Iterator:
    """Yield the items, with a bar on a terminal and lines of progress in a pipe."""
    items, start = list(items), time.perf_counter()
    if console().is_terminal:
        yield from rich.progress.track(items, doing, console=console())
        return
    said = start
    for i, item in enumerate(items, 1):
        yield item
        if i == len(items) or time.perf_counter() - said >= _QUIET:
            said = time.perf_counter()
            done = f"{i} of {len(items)}, {said - start:.0f} s"
            print(f"{doing}: {done}", flush=True)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> None:
    """Print a table: the first column to the left, the others to the right."""
    left = {"title_justify": "left", "caption_justify": "left"}
    grid = Table(title=title, caption=note or None, box=box.SIMPLE_HEAD, **left)
    grid.pad_edge = False
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console().print(grid)
    print()


def console() -> Console:
    """Return a console of at most 110 columns, and of that many in a pipe."""
    found = Console()
    width = min(found.width, 110) if found.is_terminal else 110
    return Console(highlight=False, markup=False, width=width)
