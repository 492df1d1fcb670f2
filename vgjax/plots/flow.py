"""A map of how far gradients reach: from where the loss reads to every state."""

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm

from vgjax import _checks
from vgjax.plots import _data, _knee, _lines, style

__all__ = ["flow"]


def __dir__() -> list[str]:
    return __all__


# Darkest where it is least: lightness rises all the way, without colour too.
_COLOURS = "cividis"
_NO_VALUE = "0.92"
# Nats: what lies further below the largest is lost in a float64 sum.
_DEPTH = float(-np.log(np.finfo(np.float64).eps))


def flow(
    measured: Float[Array | np.ndarray, "*B T T"],
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    r"""Draw the log norms of gradients as a map, from later steps to earlier states.

    Row t is what the loss reads at step t, column s the state it reaches; a row is read
    from the diagonal to the left. Cells of -inf or NaN are pale grey. Where values run
    over more than 72 nats, the upper half of the colours is for the 36 below the
    largest: the rest is lost beside it in a float64 sum.

    Args:
      measured: (T, T), nats, what `vgjax.gradients.gradient_flow` gives; or a batch,
        (B, T, T), whose mean over the finite members is drawn.
      ax: where to draw. Default: a new figure.
      legend: False leaves the colour bar out.

    Returns:
      The Axes. States s to the right, steps t down.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> every = lambda trajectory: trajectory.states.sum()
      >>> inputs = jnp.zeros((9, 1))
      >>> found = vgjax.gradients.gradient_flow(halve, jnp.ones(1), inputs, every)
      >>> ax = vgjax.plots.flow(found)
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('state s (steps)', 'loss read at t (steps)')
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    wanted = "an array, as of `gradient_flow`"
    values = _data.batch(_data.numbers(measured, "measured", wanted), "measured", "T T")
    mean = _data.mean(values)
    shown = np.ma.masked_invalid(np.asarray(mean.value, float))
    T = len(shown)
    ax = style.axes(ax)

    # Draw the map, and its colours beside it.
    norm = _norm(shown.compressed())
    look = {"cmap": _COLOURS, "norm": norm, "interpolation": "nearest"}
    extent = (0.5, T + 0.5, T + 0.5, 0.5)
    ax.set_facecolor(_NO_VALUE)
    picture = ax.imshow(shown, extent=extent, aspect="equal", **look)
    style.name(ax, "Reach of the gradient", "state s (steps)", "loss read at t (steps)")
    ax.locator_params(nbins=5, integer=True, min_n_ticks=1)
    if not shown.count():
        style.nothing(ax, _lines.why_nothing(values), np.array([0.5, T + 0.5]))
    elif legend:
        label = "log ‖∂Lₜ/∂sₛ‖ (nats)"
        label += f", mean of {mean.members}" if mean.members > 1 else ""
        bar = ax.figure.colorbar(picture, ax=ax, label=label, pad=0.02)
        style.fit_text(bar.ax, style.text_size(ax))
        if isinstance(norm, TwoSlopeNorm):
            bend = _knee.Bend(float(norm.vcenter), _slope(norm))
            bar.ax.yaxis.set_major_locator(_knee.Ticks(bend))
    return ax


def _norm(values: np.ndarray) -> Normalize:
    if not len(values):
        return Normalize(0, 1)
    low, high = float(values.min()), float(values.max())
    if high - low > 2 * _DEPTH:
        return TwoSlopeNorm(high - _DEPTH, low, high)
    # One value alone has no range of its own.
    return Normalize(low, high if high > low else low + 1)


def _slope(norm: TwoSlopeNorm) -> float:
    low, knee, high = (float(v or 0) for v in (norm.vmin, norm.vcenter, norm.vmax))
    return (high - knee) / (knee - low)
