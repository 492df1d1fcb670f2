"""Legends inside the axes, where nothing is drawn, or above what is drawn."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PolyCollection
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox

from vgjax.plots import style

_MOST_ENTRIES = 6
# In a grid, a layout that comes later makes room for labels: of the axes, this much
# stays in width, where a colour bar or a right axis is beside them, and in height.
_LEFT_BY_LAYOUT = (0.75, 0.92)
# Of the axes that are left, a legend may take so much of the width and height.
_MOST_OF_AXES = 0.94
_LEAST_POINTS = 4.0
# Fractions of the axes, from the left and from the bottom, in order of preference.
_PLACES = {
    "upper right": (1, 1),
    "upper left": (0, 1),
    "lower left": (0, 0),
    "lower right": (1, 0),
    "center right": (1, 0.5),
    "center left": (0, 0.5),
    "lower center": (0.5, 0),
    "upper center": (0.5, 1),
}
_LOOK = {"frameon": True, "framealpha": 0.8, "edgecolor": "none", "borderpad": 0.3}
_LOOK |= {"labelspacing": 0.3, "handlelength": 2.2, "handletextpad": 0.5}
_LOOK |= {"borderaxespad": 0.4}


def place(ax: Axes, show: bool) -> Axes:
    """Put a legend inside the axes, unless it is not to be shown; return the axes.

    Entries of one name are one. Beyond six, the last says how many are left out. Where
    the legend would cover data in every place, the y-axis is made longer at its top.
    """
    entries = _entries(ax)
    if not show or not entries:
        return ax
    labels, handles = zip(*entries, strict=True)

    def made(size: float, loc: Any, columns: int = 1) -> Legend:
        options = {"fontsize": size, "ncols": columns, **_LOOK}
        return ax.legend(handles, labels, loc=loc, **options)

    # Small enough for what a layout leaves.
    size, columns = style.text_size(ax), 1
    width, height = _fractions(ax, made(size, "upper right"))
    too_large = max(width, height) / _MOST_OF_AXES
    if too_large > 1:
        size = max(size / too_large, _LEAST_POINTS)
        width, height = _fractions(ax, made(size, "upper right"))

    # The first place that is free, or a corner above once the data are lower.
    drawn = _drawn(ax)
    covered = {loc: _covered(drawn, at, width, height) for loc, at in _PLACES.items()}
    loc = min(covered, key=lambda place: covered[place])
    if covered[loc] and ax.get_autoscaley_on():
        if len(entries) > 3 and 2 * width < _MOST_OF_AXES:
            columns = 2
            width, height = _fractions(ax, made(size, loc, columns))
        loc, more = _corner(drawn, width, height)
        _raise_top(ax, more)
    made(size, loc, columns)
    return ax


def _entries(ax: Axes) -> list:
    handles, labels = ax.get_legend_handles_labels()
    named = dict(reversed(list(zip(labels, handles, strict=True))))
    entries = [(label, named[label]) for label in dict.fromkeys(labels)]
    if len(entries) > _MOST_ENTRIES:
        left_out = len(entries) - _MOST_ENTRIES + 1
        more = (f"and {left_out} more", Line2D([], [], linestyle="none"))
        entries = [*entries[: _MOST_ENTRIES - 1], more]
    return entries


def _fractions(ax: Axes, legend: Legend) -> tuple[float, float]:
    """Width and height of a legend, in those of the axes once they are laid out."""
    pixels, axes = legend.get_window_extent(), ax.get_window_extent()
    pad = 2 * _LOOK["borderaxespad"] * legend.prop.get_size_in_points()
    pad *= ax.figure.get_dpi() / 72
    width, height = pixels.width + pad, pixels.height + pad
    spec = ax.get_subplotspec()
    is_alone = spec is not None and spec.get_gridspec().get_geometry() == (1, 1)
    across, up = (1.0, 1.0) if is_alone else _LEFT_BY_LAYOUT
    return width / (across * axes.width), height / (up * axes.height)


def _corner(drawn: list, width: float, height: float) -> tuple[str, float]:
    """Return the upper corner that is free first as the axes grow, and by how much."""
    for more in np.linspace(0, height / max(1 - height, 0.5), 9):
        lower = Affine2D().scale(1, 1 / (1 + more))
        after = [(lower.transform_path(path), fill) for path, fill in drawn]
        for loc in ("upper right", "upper left"):
            if not _covered(after, _PLACES[loc], width, height):
                return loc, float(more)
    return "upper right", float(more)


def _raise_top(ax: Axes, more: float) -> None:
    """Make the y-axis longer at its top, by a fraction of what it is."""
    low, high = ax.transScale.transform([(1, y) for y in ax.get_ylim()])[:, 1]
    at = ax.transScale.inverted().transform((1, high + more * (high - low)))[1]
    if ax.get_aspect() == "auto":
        # Autoscaling stays on: the next call finds its own room.
        ax.set_ylim(top=at, auto=True)
    else:
        # Limits would be cut back to one scale; data are not.
        ax.update_datalim([(0, at)], updatex=False)
        ax.autoscale_view()


def _drawn(ax: Axes) -> list[tuple[Path, bool]]:
    """Paths in fractions of the axes, and whether they are filled."""
    ax.autoscale_view()
    ax.apply_aspect()
    to_fraction = ax.transAxes.inverted()
    paths = []
    for artist in [*ax.lines, *ax.patches, *ax.collections]:
        # What lies below all data may be covered.
        if artist.get_zorder() < 1:
            continue
        is_filled = isinstance(artist, Patch | PolyCollection)
        to_axes = artist.get_transform() + to_fraction
        has_many = isinstance(artist, Collection)
        of_artist = artist.get_paths() if has_many else [artist.get_path()]
        paths += [(to_axes.transform_path(path), is_filled) for path in of_artist]
    return [(path, fill) for path, fill in paths if np.isfinite(path.vertices).any()]


def _covered(
    drawn: list[tuple[Path, bool]], at: tuple[float, float], width: float, height: float
) -> int:
    """How much of what is drawn lies in a box at a place."""
    x, y = at[0] * (1 - width), at[1] * (1 - height)
    box = Bbox.from_bounds(x, y, width, height)
    inside = sum(box.count_contains(path.vertices) for path, _ in drawn)
    crossing = sum(path.intersects_bbox(box, filled=fill) for path, fill in drawn)
    return int(inside + crossing)
