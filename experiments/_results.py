"""What the experiments that are not on the lab yet share."""

import lab
from lab import RESULTS as RESULTS
from lab import console as console
from lab import table as table
from lab import track as track

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure


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
    config, out = lab.arguments(default, toy, description)
    with lab.interruptible():
        if listed:
            listing(config)
        else:
            lab.refuse_unless_writable(out / Path(sys.argv[0]).stem)
            main(config, out)


def conclude(
    script: str,
    config: Any,
    measured: Mapping[str, Any],
    expectations: Sequence[Expectation],
    figure: Figure,
    out: Path,
) -> None:
    """Report what came true, and save all of it in a folder called as the script."""
    report(expectations)
    name = Path(script).stem
    content = {
        "experiment": name,
        "seed": config.seed,
        "expectations": [e._asdict() for e in expectations],
    }
    lab.save(out / name, config, measured, figure, **content)


def report(expectations: Sequence[Expectation]) -> None:
    """Print what was expected before the run, and whether it came true."""
    print("Expected before the run:")
    for statement, came_true, numbers in expectations:
        verdict = "came true         " if came_true else "DID NOT COME TRUE "
        print(f"  {verdict} {statement}\n{' ' * 21} {numbers}")
    count = sum(e.came_true for e in expectations)
    print(f"{count} of {len(expectations)} expectations came true.")
