"""The whole Lyapunov spectrum of an infinitely wide random network."""

from typing import Any

import numpy as np
import scipy  # its parts load when they are first touched

from vgjax import _checks
from vgjax._checks import concrete, nonnegative, plain
from vgjax.theory._overlaps import Number
from vgjax.theory.mean_field import fixed_point

__all__ = ["lyapunov_density"]


def __dir__() -> list[str]:
    return __all__


# Standard deviations beyond which a Gaussian counts for nothing: 2e-19 of it.
_EDGE = 9.0
# Of the arguments of tanh. The integrand has its poles pi/4 away, so that the
# trapezoidal rule is exact to rounding from 0.13 on.
_SPACING = 0.03


def lyapunov_density(share: Number, gain: float) -> Number:
    r"""Return the Lyapunov exponents $\lambda(x)$ of a wide random tanh network.

    Of h <- J tanh(h) without input or bias, $J_{ij} \sim N(0, g^2/N)$, for N to
    infinity: a share x of the exponents is above $\lambda(x)$, so that exponent i of N
    is near $\lambda((i - 1/2)/N)$. With $d = \tanh'(\sqrt{q^*} z)$ and z ~ N(0, 1),

    $$\lambda(x) = \tfrac12 \log(g^2 x / s), \qquad E[s d^2 / (1 + s d^2)] = x.$$

    Args:
      share: x, a number or an array, from 0 to 1.
      gain: g, a positive number.

    Returns:
      $\lambda(x)$, nats per step, of the shape of `share`, falling with it:
      `leading_exponent` at 0, -inf at 1. Up to g = 1, where h dies out, it is
      $\log g + \log(1 - x)/2$: the circular law.

    Notes:
      To about 1e-12 up to x = 0.999, and 1e-16 / (1 - x) beyond.

      In mean field, activities at different times are independent, and so are then the
      Jacobians J diag(d_t) in all that counts. The exponents of products of independent
      isotropic matrices A are $-\log S(-x)/2$, with S the S-transform of $A A^T$ in
      free probability; it multiplies. Near g = 1 finite networks are not typical.

    Source:
      Derived here; Newman, Commun. Math. Phys. 103, 121 (1986), for tanh' = 1.

    Examples:
      >>> lyapunov_density([0, 0.25, 0.75], 2.0).round(4)
      array([ 0.1547, -0.1667, -1.7001])
    """
    x = concrete(share, "share")
    if x.dtype.kind not in "iuf" or not np.all((x >= 0) & (x <= 1)):
        msg = f"Argument `share` must be from 0 to 1, but is {share!r}."
        raise ValueError(msg)
    g = nonnegative(gain, "gain")
    _checks.shape(g, "gain", "")
    if g == 0:
        msg = "Argument `gain` must be positive, but is 0."
        raise ValueError(msg)

    # Tanh' at the arguments that the network comes to, and how often each is met.
    std = np.sqrt(fixed_point("tanh", weight_gain=float(g)))
    nodes = 1 + 2 * int(np.ceil(_EDGE / _SPACING * max(std, 1)))
    z = np.linspace(-_EDGE, _EDGE, nodes)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    h = std * np.abs(z)
    log_square = 4 * (np.log(2) - h - np.log1p(np.exp(-2 * h)))  # log tanh'(h)^2

    log_s_over_x = np.vectorize(_log_s_over_x, otypes=[float], excluded=(1, 2))
    return plain(np.log(g) - log_s_over_x(x.astype(float), log_square, weight) / 2)


def _log_s_over_x(x: float, log_square: np.ndarray, weight: np.ndarray) -> Any:
    """Solve E[s d^2 / (1 + s d^2)] = x for log(s / x)."""
    low = -np.log(weight @ np.exp(log_square))  # the limit for small x, and a bound
    if x in (0, 1):
        return np.inf if x == 1 else low

    def surplus(log_s):
        return weight @ scipy.special.expit(log_s + log_square) - x

    # Beyond the second of these s d^2 / (1 + s d^2) is 1 at every node.
    bracket = low + np.log(x) - 1, 40 - log_square.min()
    return scipy.optimize.brentq(surplus, *bracket) - np.log(x)
