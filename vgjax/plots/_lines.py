"""A curve over lags, with the band of a batch."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vgjax.plots import _data, style


def draw(
    ax: Axes, x: np.ndarray, mean: _data.Mean, label: str | None, **look: Any
) -> None:
    """Draw what is finite of a mean, and its spread as a band."""
    value = np.where(np.isfinite(mean.value), mean.value, np.nan)
    if len(x) == 1:
        look = {"marker": "o", "markersize": 5} | look
    if mean.members > 1:
        # The thinner line has the fainter band, for where the two overlap.
        is_broad = look.get("linewidth", 0) >= style.MEASURED["linewidth"]
        pale = {"color": look["color"], "alpha": 0.25, "linewidth": 0, "zorder": 1}
        pale |= {} if is_broad else {"color": "0.3", "alpha": 0.12}
        if "transform" in look:
            pale["transform"] = look["transform"]
        ax.fill_between(x, value - mean.spread, value + mean.spread, **pale)
    ax.plot(x, value, label=label, **look)


def explain_band(ax: Axes, members: int) -> None:
    """Put the bands of a batch into the legend."""
    if members > 1:
        swatch = {"color": "0.75", "linewidth": 5, "solid_capstyle": "butt"}
        ax.plot([], [], label=f"mean ± SD of {members}", **swatch)


def zeros(log_norms: np.ndarray) -> str:
    """What a label adds, given (B, T) log norms of which some cannot be drawn."""
    said = ""
    B, T = log_norms.shape
    of = f"{B} x {T}" if B > 1 else f"{T}"
    if count := int((log_norms == -np.inf).sum()):
        said += f"\n({count} of {of} are zero)"
    if count := int((log_norms == np.inf).sum()):
        said += f"\n({count} of {of} are infinite)"
    if count := int(np.isnan(log_norms).sum()):
        said += f"\n({count} of {of} are NaN)"
    return said


def why_nothing(values: np.ndarray) -> str:
    """Why no logarithm can be drawn."""
    if (values == -np.inf).all():
        return "all values are −∞"
    return "all values are NaN" if np.isnan(values).all() else "no value is finite"
