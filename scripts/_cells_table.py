"""Writes docs/cells.md, the table of all cells, from the registry of vgjax.cells."""

import sys
from pathlib import Path

from vgjax import cells

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cells.md"

HEAD = """\
# Cells

What `vgjax.cells.build(name, inputs, features, key=key, **options)` makes. Each cell is
a Flax nnx module initialised as its paper says; its class, such as `vgjax.cells.GRU`,
has the equations and the Jacobian in its docstring. Networks over depth take
`inputs=0`, and `cell.initialize_carry(rngs=key)` draws their first state.

All are held to central differences, exact arithmetic, fifty steps of training, float32
and float64, one compilation for all weights, `vmap` over keys, and lowering for CPU,
CUDA and TPU; what each is held to besides is in the last column.

This page is written by `scripts/_cells_table.py` from the docstrings of the classes.
"""


def page() -> str:
    """The page, with a section for each file of cells."""
    sections: dict[str, list[str]] = {}
    for name in cells.names():
        sections.setdefault(cells.about(name).kind, []).append(name)
    parts = [section(kind, names) for kind, names in sections.items()]
    return "\n".join([HEAD, *parts])


def section(kind: str, names: list[str]) -> str:
    head = ["name", "class", "what it is", "options", "checked against"]
    lines = [f"## {kind}", "", columns(head), columns(["---"] * 5), *map(row, names)]
    sources = {about.cls.__name__: about.source for about in map(cells.about, names)}
    lines += ["", "Sources:", "", *(f"- `{cls}`: {s}" for cls, s in sources.items())]
    return "\n".join([*lines, ""])


def row(name: str) -> str:
    about = cells.about(name)
    options = ", ".join(f"`{k}={v!r}`" for k, v in cells.options(name).items())
    of_class = f"`{about.cls.__name__}`"
    return columns(
        [f"`{name}`", of_class, about.what, options or "none", about.checked]
    )


def columns(texts: list[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}", file=sys.stderr)
