"""Signal and noise of the gradient over a batch, by lag."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from vgjax import _checks
from vgjax.gradients import SignalToNoise
from vgjax.plots import _data, _legend, _lines, style

__all__ = ["noise"]


def __dir__() -> list[str]:
    return __all__


def noise(
    measured: SignalToNoise,
    *,
    ax: Axes | None = None,
    label: str = "signal",
    legend: bool = True,
) -> Axes:
    r"""Draw the signal of every lag beside its noise, and where it drowns.

    The mean gradient part of a lag is a broad line, its standard error a thin
    dash-dotted one. Lags whose noise is above their signal are shaded; the legend says
    which is the first.

    Args:
      measured: what `vgjax.gradients.signal_to_noise` gives, T lags; or several of
        them, with an axis in front of every shape: then the lines are means over the
        finite ones, and the bands one standard deviation either way.
      ax: where to draw. Default: a new figure.
      label: what the legend calls the signal.
      legend: False leaves the legend out.

    Returns:
      The Axes. Lags in steps to the right, nats up. Parts of the gradient that are zero
      have no logarithm; the legend counts them.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> from vgjax.gradients import SignalToNoise
      >>> signal, noise = jnp.array([0.0, -2.0, -5.0]), jnp.array([-2.0, -2.5, -3.0])
      >>> found = SignalToNoise(jnp.arange(3), signal, noise, jnp.exp(signal - noise))
      >>> ax = vgjax.plots.noise(found)
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['signal', 'noise', 'noise above signal\n(first at lag 2)']
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    wanted = "a SignalToNoise, as of `signal_to_noise`"
    _data.result(measured, "measured", ["lags", "log_signal", "log_noise"], wanted)
    signal = _data.batch(measured.log_signal, "measured.log_signal", "T")
    B, T = signal.shape
    noise = _data.batch(measured.log_noise, "measured.log_noise", "T", T=T)
    lags = _data.batch(measured.lags, "measured.lags", "T", T=T)[0]
    ax = style.axes(ax)
    series = style.new_series(ax)

    # Draw both lines, and shade where they have crossed.
    above, below = _data.mean(signal), _data.mean(noise)
    look = style.MEASURED | {"color": series.colour, "gid": series.name}
    _lines.draw(ax, lags, above, label + _lines.zeros(signal), **look)
    thin = style.SECOND | {"color": series.edge}
    _lines.draw(ax, lags, below, "noise" + _lines.zeros(noise), **thin)
    _lines.explain_band(ax, B)
    drowned = _drowned(above.value, below.value)
    if drowned.any():
        _shade(ax, lags, drowned)
    style.name(ax, "Signal and noise by lag", "lag (steps)", "log norm (nats)")
    if not (np.isfinite(signal).any() or np.isfinite(noise).any()):
        style.nothing(ax, _lines.why_nothing(np.r_[signal, noise]), lags)
    return _legend.place(ax, legend)


def _drowned(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Where the noise is above the signal, a signal of zero included."""
    return (noise > signal) | (np.isfinite(noise) & ~np.isfinite(signal))


def _shade(ax: Axes, lags: np.ndarray, drowned: np.ndarray) -> None:
    said = f"noise above signal\n(first at lag {lags[drowned][0]})"
    # Half a lag to either side of each run of them.
    change = np.diff(drowned, prepend=False, append=False)
    runs = np.append(lags - 0.5, lags[-1] + 0.5)[change].reshape(-1, 2)
    boxes = [[(a, 0), (a, 1), (b, 1), (b, 0)] for a, b in runs]
    grey = {"color": "0.5", "alpha": 0.15, "linewidth": 0, "zorder": 0}
    area = PolyCollection(boxes, transform=ax.get_xaxis_transform(), label=said, **grey)
    ax.add_collection(area, autolim=False)
