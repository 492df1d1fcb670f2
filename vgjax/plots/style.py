"""One table of colours, markers and line styles, and what every picture shares.

| what it is | line | marker | lightness |
| --- | --- | --- | --- |
| measured | broad, solid | filled | pale to middle |
| predicted | thin, dashed | none | nearly black |
| undecided by rounding | thin, dotted | hollow | as measured |
| second quantity on the page | thin, dash-dotted | none | dark grey |
| mark of reference | hairline, solid | none | grey |

Line, marker and lightness differ, and not the hue alone: a page without colour reads
the same.
"""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

__all__ = [
    "FAN",
    "HOLLOW",
    "LEADING",
    "MEASURED",
    "PREDICTED",
    "REFERENCE",
    "ROLES",
    "SECOND",
    "SERIES",
    "UNDECIDED",
    "Series",
    "axes",
    "fit_text",
    "name",
    "new_series",
    "nothing",
    "ramp",
    "text_size",
]


def __dir__() -> list[str]:
    return __all__


class Series(NamedTuple):
    """How one call draws, told from what others drew on the same axes.

    Attributes:
      colour: The colour of its lines, and of the largest value.
      pale: The colour of its smallest value.
      edge: The colour of the edge of hollow markers.
      marker: The marker of its lines where every value has one.
      name: The gid of its lines, by which later calls count it.
      is_first: Whether nothing was drawn on these axes before.
    """

    colour: str
    pale: str
    edge: str
    marker: str | None
    name: str = ""
    is_first: bool = True


MEASURED: dict[str, Any] = {"linewidth": 2.4, "zorder": 2}
PREDICTED: dict[str, Any] = {
    "color": "#1a1a1a",
    "linewidth": 1.1,
    "linestyle": "--",
    "zorder": 3,
}
SECOND: dict[str, Any] = {
    "color": "0.3",
    "linewidth": 1.3,
    "linestyle": "-.",
    "zorder": 2.5,
}
REFERENCE: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "zorder": 1}
UNDECIDED: dict[str, Any] = {"linewidth": 1.4, "linestyle": ":", "zorder": 2}
HOLLOW: dict[str, Any] = {"markersize": 5, "markerfacecolor": "white"}

# Lightness alternates, for a page without colour.
SERIES = (
    Series("#4f9bd0", "#a9cde8", "#2171b5", None),
    Series("#9a3f04", "#eda35f", "#8c3a03", "s"),
    Series("#8fce8a", "#d3edcf", "#2f7d32", "D"),
    Series("#7d5fb2", "#c3b4de", "#4b2e83", "P"),
    Series("#e0b72f", "#f3e2a6", "#8a6d00", "X"),
    Series("#8c8c8c", "#d0d0d0", "#4d4d4d", "h"),
)
# Of many values, those with a line of their own.
ROLES = {"largest": "^", "median": "o", "smallest": "v"}
# Opacity of the band from each fraction of the values to the same from the other end.
FAN = {0.0: 0.18, 0.1: 0.22, 0.25: 0.26}

_SERIES = "vgjax.series."
# Ends the gid of a line that is to stay readable however deep the others run.
LEADING = ".leading"
# Points, for axes up to so many inches wide.
_TEXT_SIZES = ((2.0, 6.0), (3.2, 7.0), (np.inf, 8.5))


def axes(ax: Axes | None) -> Axes:
    """Return the axes to draw into: those given, or those of a new figure."""
    return plt.subplots(figsize=(7.2, 4), layout="constrained")[1] if ax is None else ax


def new_series(ax: Axes) -> Series:
    """Return the style of the next series on these axes: draw a line of its name."""
    names = {line.get_gid() or "" for line in ax.lines}
    drawn = {name.removesuffix(LEADING) for name in names if name.startswith(_SERIES)}
    series = SERIES[len(drawn) % len(SERIES)]
    return series._replace(name=f"{_SERIES}{len(drawn)}", is_first=not drawn)


def ramp(series: Series, n: int) -> Float[np.ndarray, "n 4"]:
    """Return n colours of a series, from its own to its palest."""
    between = LinearSegmentedColormap.from_list("", [series.colour, series.pale])
    return between(np.linspace(0, 1, n))


def name(ax: Axes, title: str, x: str, y: str) -> None:
    """Name the axes, in letters that fit them; a title that they have stays."""
    if not ax.get_title():
        ax.set_title(title, fontsize=1.2 * text_size(ax))
    ax.set(xlabel=x, ylabel=y)
    fit_text(ax, text_size(ax))


def fit_text(ax: Axes, size: float) -> None:
    """Make labels and tick labels no larger than suits a text of so many points."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(min(axis.label.get_fontsize(), 1.25 * size))
        of_ticks = axis.get_major_ticks(1)[0].label1.get_fontsize()
        axis.set_tick_params(labelsize=min(of_ticks, 1.25 * size))


def nothing(ax: Axes, why: str, over: np.ndarray | None = None) -> None:
    """Say on the axes that, and why, nothing is drawn there, nor over these x."""
    ax.tick_params(axis="y", left=False, labelleft=False)
    if over is None:
        ax.tick_params(axis="x", bottom=False, labelbottom=False)
    else:
        ax.update_datalim([(over.min(), 0), (over.max(), 0)], updatey=False)
        ax.autoscale_view(scaley=False)
    middle = {"ha": "center", "va": "center", "transform": ax.transAxes}
    size = 1.2 * text_size(ax)
    ax.text(0.5, 0.5, f"nothing to draw:\n{why}", color="0.3", size=size, **middle)


def text_size(ax: Axes) -> float:
    """Points, by the width the axes have before a layout makes them smaller."""
    inches = ax.get_window_extent().width / ax.figure.get_dpi()
    return next(size for wide, size in _TEXT_SIZES if inches <= wide)
