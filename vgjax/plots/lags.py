"""The gradient by how many steps its parts travelled, and their cumulative share."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.gradients import LagContributions
from vgjax.plots import _data, _legend, _lines, style

__all__ = ["lags"]


def __dir__() -> list[str]:
    return __all__


# Of the gradient: the legend says which lag it takes to explain it.
_MOST = 0.9
_SHARE_AXIS = "vgjax.share"


def lags(
    contributions: LagContributions,
    *,
    theory: Float[Array | np.ndarray, "*T"] | float | None = None,
    ax: Axes | None = None,
    label: str = "norm of the part",
    legend: bool = True,
) -> Axes:
    r"""Draw the log norm of the gradient's part of every lag, and what lags explain.

    The norms are a broad line, their prediction dashed. The share of the gradient that
    lags up to each one explain is a thin dash-dotted line, on the right axis; the
    legend says at which lag it has come to 90 %, and stays above.

    Args:
      contributions: what `vgjax.gradients.lag_contributions` gives, T lags; or a batch,
        B in front of every shape, as of `jax.vmap`: then the lines are means over the
        finite members, and the bands one standard deviation either way.
      theory: log norms, (T,), in nats; or a rate in nats per step, whose line is
        shifted to the mean of what is measured, since a rate predicts no start.
      ax: where to draw. Default: a new figure.
      label: what the legend calls the norms.
      legend: False leaves the legend out.

    Returns:
      The Axes of the norms. Lags in steps to the right, nats up. Parts that are zero
      have no logarithm; the legend counts them.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> step = vgjax.steps.from_function(
      ...     lambda w, h, x: (w * h + x, None), jnp.array(0.5)
      ... )
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> inputs = jnp.ones((9, 1))
      >>> parts = vgjax.gradients.lag_contributions(step, jnp.ones(1), inputs, last)
      >>> ax = vgjax.plots.lags(parts, theory=float(jnp.log(0.5)))
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['norm of the part', 'theory', 'share of lags up to this\n(90 % by lag 3)']
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    fields, wanted = ["lags", "log_norm", "fraction"], "a LagContributions"
    wanted += ", as of `lag_contributions`"
    _data.result(contributions, "contributions", fields, wanted)
    norms = _data.batch(contributions.log_norm, "contributions.log_norm", "T")
    B, T = norms.shape
    lag = _data.batch(contributions.lags, "contributions.lags", "T", T=T)[0]
    share = _data.batch(contributions.fraction, "contributions.fraction", "T", T=T)
    norm = _data.mean(norms)
    predicted = _prediction(theory, lag, norm.value)
    ax = style.axes(ax)
    series = style.new_series(ax)

    # Draw norms, prediction and share.
    look = style.MEASURED | {"color": series.colour, "gid": series.name}
    _lines.draw(ax, lag, norm, label + _lines.zeros(norms), **look)
    _lines.explain_band(ax, B)
    if predicted is not None:
        ax.plot(lag, predicted, label="theory", **style.PREDICTED)
    if np.isfinite(share).any():
        _draw_share(ax, lag, _data.mean(share), series)

    # Name the axes, and lower both sides of them for the legend.
    style.name(ax, "Gradient by lag", "lag (steps)", "log norm (nats)")
    if not np.isfinite(norms).any():
        style.nothing(ax, _lines.why_nothing(norms), lag)
    before = np.ptp(ax.get_ylim())
    _legend.place(ax, legend)
    _stretch_share(ax, np.ptp(ax.get_ylim()) / before)
    return ax


def _prediction(theory: Any, lag: np.ndarray, norm: np.ndarray) -> np.ndarray | None:
    if theory is None:
        return None
    theory = _data.numbers(theory, "theory", "a rate or an array of log norms")
    if theory.ndim:
        _checks.shape(theory, "theory", "T", T=len(lag))
        return np.where(np.isfinite(theory), theory, np.nan)
    rest = (norm - theory * lag)[np.isfinite(norm)]
    shift = rest.mean() if len(rest) and np.isfinite(theory) else np.nan
    return theory * lag + shift


def _draw_share(
    ax: Axes, lag: np.ndarray, share: _data.Mean, series: style.Series
) -> None:
    right = _share_axis(ax)
    finite = share.value[np.isfinite(share.value)]
    low, high = right.get_ylim()
    low = min(low, -0.05, finite.min() - 0.05)
    right.set_ylim(low, max(high, 1.05, finite.max() + 0.05))
    said = "share of lags up to this"
    explained = share.value >= _MOST
    missing = np.flatnonzero(~explained)
    first = missing[-1] + 1 if len(missing) else 0
    if first < len(lag):
        said += f"\n({_MOST * 100:.0f} % by lag {lag[first]})"
    # A line of `ax`, below its legend and known to it, at the height of the right axis.
    look = style.SECOND | {"color": series.edge, "transform": right.transData}
    _lines.draw(ax, lag, share, said, **look)


def _stretch_share(ax: Axes, factor: float) -> None:
    """Lower the share as much as the legend has lowered the norms."""
    name = f"{_SHARE_AXIS}.{id(ax)}"
    for right in [other for other in ax.figure.axes if other.get_gid() == name]:
        low, high = right.get_ylim()
        ticks = [tick for tick in right.get_yticks() if low <= tick <= high]
        right.set_ylim(low, low + (high - low) * factor)
        right.set_yticks(ticks)


def _share_axis(ax: Axes) -> Axes:
    """Return the right axis of these axes: that of an earlier call, or a new one."""
    name = f"{_SHARE_AXIS}.{id(ax)}"
    for other in ax.figure.axes:
        if other.get_gid() == name:
            return other
    right = ax.twinx()
    right.set_gid(name)
    right.set_ylabel("share of the gradient")
    style.fit_text(right, style.text_size(ax))
    right.set_ylim(-0.05, 1.05)
    return right
