"""The one table of `scripts/bench`: a header, rows as they are measured, verdicts."""

from typing import NamedTuple


class Bounded(NamedTuple):
    """A number with the most, or the least, that it may be."""

    value: float
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the bound holds; it does not for NaN."""
        return bool(
            self.value >= self.bound if self.least else self.value <= self.bound
        )

    def __str__(self) -> str:
        """Return the bound and the verdict, without the value."""
        side = "at least" if self.least else "at most"
        return f"{side} {self.bound:g}: {'met' if self.met else 'MISSED'}"


class Table:
    """Rows under headings; bounds and verdicts end a row, in the columns' order."""

    def __init__(self, title: str, columns: str):
        r"""Print the title and the headings.

        columns: ``"N 5d | spread,\nnats 8.2f"``, headings, of several lines if need be,
          each with a format that has a width.
        """
        self.missed = 0
        self._columns = []
        split = [column.rsplit(" ", 1) for column in columns.split(" | ")]
        headings = [heading.split("\n") for heading, _ in split]
        lines = max(map(len, headings))
        for heading, (_, form) in zip(headings, split, strict=True):
            text = form.endswith("s")
            width = max(len(format("" if text else 0, form)), *map(len, heading))
            side = "<" if text and not form.startswith(">") else ">"
            self._columns.append((form, side, width))
            heading[:0] = [""] * (lines - len(heading))
        print(title)
        for line in zip(*headings, strict=True):
            self._print(line)

    def row(self, *values):
        """Print numbers, strings, `Bounded` numbers, and "-" where there is `None`."""
        bounded = [value for value in values if isinstance(value, Bounded)]
        self.missed += sum(not value.met for value in bounded)
        cells = []
        for value, (form, _, _) in zip(values, self._columns, strict=True):
            number = value.value if isinstance(value, Bounded) else value
            plain = number is None or isinstance(number, str)
            cells.append((number or "-") if plain else format(number, form))
        self._print(cells, ", ".join(map(str, bounded)))

    def _print(self, cells, end=""):
        padded = [
            f"{cell:{side}{width}s}"
            for cell, (_, side, width) in zip(cells, self._columns, strict=True)
        ]
        print("  ".join([*padded, end]).rstrip(), flush=True)
