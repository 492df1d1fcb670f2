"""Measured growth rates against predicted ones."""

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.plots import _data, _legend, style
from vgjax.spectra import Rates

__all__ = ["rates"]


def __dir__() -> list[str]:
    return __all__


def rates(
    measured: Rates | Float[Array | np.ndarray, "*B N"],
    predicted: Float[Array | np.ndarray, "*B N"],
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw measured growth rates against predicted ones, with the line of equality.

    Args:
      measured: what `vgjax.growth_rates` gives, drawn with bars of one standard error
        either way where there is one; or the rates alone. A batch, (B, N), is drawn as
        its mean, with bars of one standard deviation over the members.
      predicted: (N,), nats per step, in the same order; or a batch, (B, N).
      ax: where to draw. Default: a new figure.
      legend: False leaves the legend out.

    Returns:
      The Axes, both directions to one scale, in nats per step. Pairs that hold an
      infinity are left out and counted in the legend; those with a NaN are left out.

    Examples:
      >>> import numpy as np, vgjax
      >>> ax = vgjax.plots.rates(np.array([0.1, -0.9]), np.array([0.0, -1.0]))
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['measured = predicted', 'measured']
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    wanted = "what `growth_rates` gives or an array of rates"
    y = _data.numbers(getattr(measured, "rate", measured), "measured", wanted)
    y = _data.batch(y, "measured", "N")
    x = _data.numbers(predicted, "predicted", "an array of rates")
    x = _data.batch(x, "predicted", "N", N=y.shape[1])
    up, right = _data.mean(y), _data.mean(x)
    error = getattr(measured, "standard_error", None)
    error = None if error is None else _data.batch(error, "measured", "N")[0]
    # Of a pair, what keeps it from being drawn; NaN has no word in the legend.
    pairs = np.where(np.isfinite(y), np.broadcast_to(right.value, y.shape), y)
    pairs = np.where(np.isnan(y + right.value), 0, pairs)
    drawn = np.isfinite(right.value) & np.isfinite(up.value)
    label, bars = f"measured{up.said()}", None
    if up.members > 1:
        bars = up.spread[drawn]
    elif error is not None:
        label, bars = "measured ± standard error", error[drawn]
    sideways = right.spread[drawn] if right.members > 1 else None
    x, y = right.value[drawn], up.value[drawn]
    ax = style.axes(ax)

    # Through a point of the data, so that it does not stretch the axes to reach 0.
    if len(x):
        at = (x.mean(), x.mean())
        equal = {**style.PREDICTED, "zorder": 1}
        ax.axline(at, slope=1, label="measured = predicted", **equal)

    # The pairs, with their bars.
    series = style.new_series(ax)
    dots = {"markerfacecolor": "none", "markeredgecolor": series.edge, "markersize": 6}
    dots |= {"gid": series.name, "fmt": series.marker or "o", "zorder": 2}
    bar = {"ecolor": "0.3", "elinewidth": 1.2, "capsize": 3}
    label += _data.lost_at_the_end(pairs)
    ax.errorbar(x, y, yerr=bars, xerr=sideways, label=label, **dots, **bar)
    style.name(
        ax,
        "Rates against theory",
        "predicted (nats per step)",
        "measured (nats per step)",
    )
    ax.set_aspect("equal", adjustable="datalim")
    # Numbers are broad beside narrow axes.
    ax.locator_params(nbins=6 if style.text_size(ax) > 7 else 4)
    if not len(x):
        style.nothing(ax, "no pair is finite")
    return _legend.place(ax, legend)
