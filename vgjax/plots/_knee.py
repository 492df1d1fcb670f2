"""A scale that is finer above a knee, so that deep values do not flatten large ones.

Both sides are linear: straight lines stay straight on either, and tick labels say what
is what. A logarithm of the axis would bend them all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from matplotlib.scale import FuncScale
from matplotlib.ticker import Locator, MaxNLocator, StrMethodFormatter

from vgjax.plots import style

# The leading lines get a scale of their own where they would have less than a tenth of
# the axis; they then have the larger half of it.
_MOST_DEPTH = 10
_UPPER_SHARE = 0.6
_LEAST_SPAN = 1e-3
_MARK = "vgjax.knee"
# Of the axis, between the knee and the next tick.
_CLEAR = 0.05


@dataclass(frozen=True)
class Bend:
    """The map y -> y above the knee, and slope (y - knee) + knee below it."""

    knee: float
    slope: float

    def forward(self, y):
        """Map data to the axis."""
        y = np.asarray(y, float)
        return np.where(y < self.knee, self.knee + self.slope * (y - self.knee), y)

    def inverse(self, y):
        """Map the axis to data."""
        y = np.asarray(y, float)
        return np.where(y < self.knee, self.knee + (y - self.knee) / self.slope, y)


class Knee(FuncScale):
    """The scale of an axis with a bend, and ticks on both sides of it."""

    name = "knee"

    def __init__(self, axis: Axis, bend: Bend):
        super().__init__(axis, (bend.forward, bend.inverse))
        self.bend = bend

    def set_default_locators_and_formatters(self, axis: Axis) -> None:
        """Put ticks on both sides."""
        super().set_default_locators_and_formatters(axis)
        axis.set_major_locator(Ticks(self.bend))
        # Of one format for all, what is round above would be 150.0 below.
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


class Ticks(Locator):
    """Round numbers above the knee, and others below it."""

    def __init__(self, bend: Bend):
        self.bend = bend

    def __call__(self):
        """Return the ticks of the axis as it is now."""
        axis: Any = self.axis
        return self.tick_values(*axis.get_view_interval())

    def tick_values(self, vmin, vmax):
        """Return the ticks between two values."""
        low, high = sorted((vmin, vmax))
        axis: Any = self.axis
        knee, room = self.bend.knee, int(np.clip(axis.get_tick_space(), 2, 9))
        above = MaxNLocator(max(room // 2, 2)).tick_values(max(low, knee), high)
        below = MaxNLocator(max(room // 2, 2)).tick_values(low, min(high, knee))
        clear = _CLEAR * np.ptp(self.bend.forward([low, high]))
        far = self.bend.forward(below) < knee - clear
        return np.concatenate([below[far], above[above > knee + clear]])


def give_room(ax: Axes) -> None:
    """Bend the y-axis where the leading lines would have too little of it.

    Axes that share it are looked at together. A scale or limits that somebody has
    chosen stay.
    """
    shared = ax.get_shared_y_axes().get_siblings(ax)
    _forget(shared)
    if ax.get_yscale() not in ("linear", Knee.name) or not ax.get_autoscaley_on():
        return
    bend = _bend(shared)
    if bend is None:
        if ax.get_yscale() == Knee.name:
            ax.set_yscale("linear")
        return
    ax.set_yscale(Knee(ax.yaxis, bend))
    for each in shared:
        _mark(each, bend.knee)


def _bend(shared: list[Axes]) -> Bend | None:
    leading = [line for ax in shared for line in ax.lines if _is_leading(line)]
    heights = [np.asarray(line.get_ydata(), float) for line in leading]
    values = np.concatenate([np.zeros(0), *heights])
    values = values[np.isfinite(values)]
    drawn = np.array([ax.dataLim.intervaly for ax in shared])
    low = drawn[:, 0][np.isfinite(drawn[:, 0])].min(initial=np.inf)
    high = drawn[:, 1][np.isfinite(drawn[:, 1])].max(initial=-np.inf)
    if not (len(values) and low < high):
        return None
    span, whole = np.ptp(values), high - low
    # Of lines that are flat there is no more to read.
    if span < whole * _LEAST_SPAN:
        return None
    span = max(span, 10 * whole * _LEAST_SPAN)
    knee = values.min() - 0.15 * span
    upper, lower = high - knee, knee - low
    if lower <= _MOST_DEPTH * upper:
        return None
    return Bend(float(knee), float(upper / lower * (1 / _UPPER_SHARE - 1)))


def _is_leading(line) -> bool:
    return (line.get_gid() or "").endswith(style.LEADING)


def _mark(ax: Axes, knee: float) -> None:
    across = {"transform": ax.get_yaxis_transform(), "gid": _MARK}
    faint = {"colors": "0.6", "linewidth": 0.8, "zorder": 0.5}
    # `hlines` would take the ends, 0 and 1, for data.
    rule = LineCollection([[(0, knee), (1, knee)]], **faint, **across)
    ax.add_collection(rule, autolim=False)
    words = {"size": style.text_size(ax), "color": "0.35", "ha": "left", "va": "bottom"}
    words["path_effects"] = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    ax.text(0.02, knee, "finer scale above", zorder=4, **words, **across)


def _forget(shared: list[Axes]) -> None:
    for ax in shared:
        for artist in [a for a in ax.get_children() if a.get_gid() == _MARK]:
            artist.remove()
