"""The Lyapunov spectrum, with its errors and the dimension it says."""

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.lyapunov import Lyapunov, kaplan_yorke_dimension
from vgjax.plots import _data, _knee, _legend, style

__all__ = ["exponents"]


def __dir__() -> list[str]:
    return __all__


def exponents(
    measured: Lyapunov,
    *,
    ax: Axes | None = None,
    label: str = "exponents",
    legend: bool = True,
) -> Axes:
    """Draw Lyapunov exponents in order, and the Kaplan-Yorke dimension they give.

    Bars are one standard error either way. Exponents that are only round-off
    (`resolved` is False) are hollow. The star is at the Kaplan-Yorke dimension, on the
    line of zero; where k exponents do not decide it, an arrow points on from k.

    Args:
      measured: what `vgjax.lyapunov_spectrum` gives, k exponents; or a batch, B in
        front of every shape, as of `jax.vmap`: then the exponents are means over the
        finite members, with bars of one standard deviation, and so is the dimension.
      ax: where to draw. Default: a new figure.
      label: what the legend calls the exponents.
      legend: False leaves the legend out.

    Returns:
      The Axes. Index from 1 to the right, nats per step up, finer above a thin line if
      the smallest run deep.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> henon = lambda h, x: (jnp.array([1 - 1.4 * h[0] ** 2 + h[1], 0.3 * h[0]]), h)
      >>> found = vgjax.lyapunov_spectrum(henon, jnp.array([0.1, 0.1]), length=2000)
      >>> ax = vgjax.plots.exponents(found)
      >>> ax.get_ylabel()
      'exponent (nats per step)'
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    fields = ["exponents", "standard_error", "resolved"]
    wanted = "a Lyapunov, as of `lyapunov_spectrum`"
    _data.result(measured, "measured", fields, wanted)
    values = _data.batch(measured.exponents, "measured.exponents", "k")
    B, k = values.shape
    error = _data.batch(measured.standard_error, "measured.standard_error", "k", k=k)
    resolved = _data.batch(measured.resolved, "measured.resolved", "k", k=k)
    mean = _data.mean(values)
    bars = mean.spread if B > 1 else error[0]
    is_solid = resolved.all(axis=0)
    ax = style.axes(ax)
    series = style.new_series(ax)

    # Exponents, with bars.
    shown = np.isfinite(mean.value)
    label += mean.said() if B > 1 else " ± standard error"
    label += _data.lost_at_the_end(values)
    index = np.arange(1, k + 1)
    size = 5.5 if k <= 40 else 3.5
    bar = {"elinewidth": 1.1, "ecolor": "0.3", "capsize": 2 if k <= 40 else 0}
    look = {"fmt": series.marker or "o", "markersize": size, "zorder": 2}
    look |= {"color": series.colour, "markeredgecolor": "0.2", "markeredgewidth": 0.5}
    solid = shown & is_solid
    if solid.any() or not shown.any():
        points = index[solid], mean.value[solid], bars[solid]
        ax.errorbar(*points, label=label, gid=series.name, **look, **bar)
        label = "only round-off"
    if (hollow := shown & ~is_solid).any():
        look |= {"markerfacecolor": "white", "markeredgecolor": series.edge}
        points = index[hollow], mean.value[hollow], bars[hollow]
        ax.errorbar(*points, label=label, gid=series.name, **look, **bar)

    # The dimension, from zero to the exponent that ends it.
    ax.axhline(0, **style.REFERENCE)
    if shown.any():
        _draw_dimension(ax, values, mean.value, measured, series)
    _knee.give_room(ax)
    style.name(ax, "Lyapunov spectrum", "index", "exponent (nats per step)")
    ax.locator_params(axis="x", integer=True)
    if not shown.any():
        style.nothing(ax, "no exponent is finite", index)
    return _legend.place(ax, legend)


def _draw_dimension(
    ax: Axes,
    values: np.ndarray,
    mean: np.ndarray,
    measured: Lyapunov,
    series: style.Series,
) -> None:
    dimensions = np.array([kaplan_yorke_dimension(jnp.asarray(one)) for one in values])
    k, D = values.shape[1], _data.mean(dimensions)
    if not np.isfinite(D.value):
        return
    # Where all sums are at least zero, there may be more exponents than k.
    frame = getattr(measured, "frame", None)
    is_bound = frame is not None and k < np.shape(frame)[-2] and D.value >= k
    least = "at least " if is_bound else ""
    said = f"Kaplan–Yorke dimension\n{least}{float(D.value):.3g}"
    if D.members > 1:
        said += f" ± {float(D.spread):.2g}"
    end = mean[min(int(D.value), k - 1)]
    top, low = np.nanmax(mean[np.isfinite(mean)]), end if np.isfinite(end) else 0.0
    stem = {"color": series.edge, "linewidth": 0.9, "linestyle": ":", "zorder": 1.5}
    heights = [min(low, 0), max(top, 0)]
    ax.plot([D.value] * 2, heights, gid=series.name + style.LEADING, **stem)
    look = {"color": series.edge, "markeredgecolor": "white", "markersize": 12}
    point = {"marker": ">" if is_bound else "*", "linestyle": "none", "zorder": 3}
    ax.plot([D.value], [0], label=said, **look, **point)
    if D.members > 1:
        reach = [D.value - D.spread, D.value + D.spread]
        ax.plot(reach, [0, 0], color=series.edge, linewidth=3, alpha=0.5, zorder=1.5)
