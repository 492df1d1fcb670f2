"""Eigenvalues in the complex plane, beside the unit circle."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.plots import _legend, style
from vgjax.theory import eigenvalues as ordered_eigenvalues

__all__ = ["eigenvalues"]


def __dir__() -> list[str]:
    return __all__


def eigenvalues(
    W: Float[Array | np.ndarray, "*B N N"],
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the eigenvalues of a matrix in the complex plane.

    The unit circle, within which a mode vanishes and beyond which it explodes, is
    dashed; the circle of the spectral radius, the largest magnitude, dotted.

    Args:
      W: (N, N), finite; or a batch of B, (B, N, N): then all their eigenvalues, the
        circle of the mean spectral radius, and a ring of one standard deviation.
      ax: where to draw. Default: a new figure.
      legend: False leaves the legend out.

    Returns:
      The Axes, both directions to one scale.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> ax = vgjax.plots.eigenvalues(jnp.array([[0.9, 5.0], [0.0, 0.8]]))
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['unit circle', 'spectral radius 0.9', 'eigenvalues']
    """
    # Read what is given.
    legend = _checks.flag(legend, "legend")
    W = _checks.array(W, "W")
    _checks.shape(W, "W", "B N N" if W.ndim == 3 else "N N")
    batch = W if W.ndim == 3 else W[None]
    values = np.stack([np.asarray(ordered_eigenvalues(one)) for one in batch])
    radii = np.abs(values).max(axis=1)
    radius, B = radii.mean(), len(radii)
    ax = style.axes(ax)

    # Reference circles behind the eigenvalues.
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 361))
    unit, around = circle, radius * circle
    dashed = {**style.REFERENCE, "linestyle": "--"}
    ax.plot(np.real(unit), np.imag(unit), label="unit circle", **dashed)
    dotted = {**style.REFERENCE, "linestyle": ":", "linewidth": 1.6, "color": "0.15"}
    said = f"spectral radius {radius:.4g}"
    if B > 1:
        spread = radii.std(ddof=1)
        said = f"spectral radius {radius:.3g} ± {spread:.2g}\n(mean ± SD of {B})"
        ring = np.r_[(radius + spread) * circle, (radius - spread) * circle[::-1]]
        ax.fill(np.real(ring), np.imag(ring), color="0.85", linewidth=0, zorder=0.5)
    ax.plot(np.real(around), np.imag(around), label=said, **dotted)

    # Eigenvalues of all members.
    values = values.ravel()
    series = style.SERIES[0]
    size = 5 if len(values) <= 200 else 2.5
    dots: dict[str, Any] = {"markerfacecolor": series.colour, "markeredgecolor": "0.2"}
    dots |= {"markersize": size, "markeredgewidth": size / 8, "zorder": 2}
    ax.plot(np.real(values), np.imag(values), "o", label="eigenvalues", **dots)
    style.name(ax, "Eigenvalues", "Re λ", "Im λ")
    ax.set_aspect("equal", adjustable="datalim")
    return _legend.place(ax, legend)
