r"""What infinitely wide random networks do to the size and the angle of signals.

Layers $h \to W \phi(h) + b$ with $W_{ij} \sim N(0, \sigma_w^2 / N)$ and $b_i \sim N(0,
\sigma_b^2)$. For N to infinity the entries of h are Gaussian, with variance q and, for
two inputs, correlation c; both follow maps of one variable, whose fixed points and
slopes say how deep a signal, and a gradient, can go.

All of it runs on the host in float64: arguments are concrete numbers, or arrays of
them, and results are floats, or NumPy arrays of the same shape.

Source: Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli, NeurIPS (2016), for the maps;
Schoenholz, Gilmer, Ganguli & Sohl-Dickstein, ICLR (2017), for the depth scales.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts load when they are first touched

from vgjax import _checks
from vgjax._tolerances import LINEAR_VARIANCE, SIGN_DEVIATION
from vgjax.theory._overlaps import Number, Overlaps, overlaps

__all__ = [
    "DepthScales",
    "chi",
    "critical_gain",
    "depth_scales",
    "fixed_point",
    "leading_exponent",
    "variance_map",
]


def __dir__() -> list[str]:
    return __all__


class DepthScales(NamedTuple):
    """Over how many layers a signal is forgotten, by a factor e; in layers.

    Attributes:
      variance: Xi_q: how fast the size of a signal forgets what it was.
      correlation: Xi_c: how fast the correlation of two signals does.
    """

    variance: Number
    correlation: Number


def variance_map(
    q: Number, activation: str, *, weight_gain: Number, bias_std: Number = 0.0
) -> Number:
    r"""Return the variance of the next layer, given that of one.

    $V(q) = \sigma_w^2 E \phi(\sqrt q z)^2 + \sigma_b^2$ with z ~ N(0, 1).

    Args:
      q: variance of the entries of a layer, before the activation; at least 0.
      activation: "tanh"; "erf", which is $\mathrm{erf}(\sqrt\pi x / 2)$, of slope 1 at
        0; "relu"; or "hard_tanh".
      weight_gain: $\sigma_w$, standard deviation of a weight times sqrt(N).
      bias_std: $\sigma_b$, standard deviation of a bias.

    Returns:
      The variance of the next layer, dimensionless; of the common shape of `q`,
      `weight_gain` and `bias_std`.

    Raises:
      ValueError: `activation` is another, or a number is negative or not finite.

    Notes:
      To about 1e-14, relative, at any q: by closed forms, and for tanh by two sums over
      the mixture of error functions that it is.

    Source:
      Poole et al., NeurIPS (2016), section 2.

    Examples:
      >>> round(variance_map(1.0, "tanh", weight_gain=2.0), 6)
      1.577178
    """
    of = overlaps(activation)
    q = _checks.nonnegative(q, "q")
    gain, bias = (
        _checks.nonnegative(weight_gain, "weight_gain"),
        _checks.nonnegative(bias_std, "bias_std"),
    )
    _checks.together(q=q, weight_gain=gain, bias_std=bias)
    with np.errstate(over="ignore"):
        # Not gain**2, which may overflow where the moment is small.
        return _checks.plain(gain * (gain * of.second_moment(q)) + bias * bias)


def fixed_point(
    activation: str, *, weight_gain: Number, bias_std: Number = 0.0
) -> Number:
    r"""Return the variance q* that deep layers come to, $q^* = V(q^*)$.

    Args:
      activation: "tanh", "erf", "relu" or "hard_tanh", as in `variance_map`.
      weight_gain: $\sigma_w$; a number or an array.
      bias_std: $\sigma_b$; a number or an array.

    Returns:
      q*, of the common shape: the stable fixed point. 0 where signals die out, which
      is with no bias at gains up to 1 (ReLU: below sqrt 2); inf where they grow without
      bound, which is with ReLU from gain sqrt 2 on (at sqrt 2 without bias every q is a
      fixed point, and inf is returned too), and where q* is beyond floats.

    Raises:
      ValueError: `activation` is another, or a number is negative or not finite.

    Source:
      Schoenholz et al., ICLR (2017), section 3.

    Examples:
      >>> round(fixed_point("tanh", weight_gain=1.5), 6)
      0.793354
    """
    of = overlaps(activation)
    return _checks.each(
        lambda w, b: _fixed_point(activation, of, w, b),
        weight_gain=weight_gain,
        bias_std=bias_std,
    )


def chi(activation: str, *, weight_gain: Number, bias_std: Number = 0.0) -> Number:
    r"""Return what a layer multiplies a squared gradient by, $\chi_1$.

    $\chi_1 = \sigma_w^2 E \phi'(\sqrt{q^*} z)^2$ is the slope of the correlation map at
    c = 1, and the mean squared singular value of the Jacobian of a layer: below 1
    gradients vanish and signals come together (order), above they explode (chaos).

    Args:
      activation: "tanh", "erf", "relu" or "hard_tanh", as in `variance_map`.
      weight_gain: $\sigma_w$; a number or an array.
      bias_std: $\sigma_b$; a number or an array.

    Returns:
      chi_1, dimensionless, of the common shape; a squared gradient gains log(chi_1)
      nats a layer. $\sigma_w^2$ where q* = 0; $\sigma_w^2 / 2$ for ReLU, always.

    Raises:
      ValueError: `activation` is another, or a number is negative or not finite.

    Source:
      Schoenholz et al., ICLR (2017), section 2.

    Examples:
      >>> round(chi("tanh", weight_gain=1.5), 6)
      1.139323
    """
    of = overlaps(activation)
    return _checks.each(
        lambda w, b: _chi(activation, of, w, b),
        weight_gain=weight_gain,
        bias_std=bias_std,
    )


def depth_scales(
    activation: str, *, weight_gain: Number, bias_std: Number = 0.0
) -> DepthScales:
    r"""Return over how many layers size and correlation of signals are forgotten.

    Distances from the fixed points shrink as $e^{-l/\xi}$, with $\xi = -1/\log$ of the
    slope of the map there: of the variance map at q*, and of the correlation map at its
    stable fixed point c*. That is c* = 1 in the ordered phase, with slope chi_1, and
    below 1 in the chaotic one.

    Args:
      activation: "tanh", "erf", "relu" or "hard_tanh", as in `variance_map`.
      weight_gain: $\sigma_w$; a number or an array.
      bias_std: $\sigma_b$; a number or an array.

    Returns:
      `DepthScales`, in layers, each of the common shape. inf where nothing is
      forgotten at an exponential rate: at chi_1 = 1, as far as rounding lets that be
      hit, and with ReLU where q* is inf. 0 at gain 0.

    Raises:
      ValueError: `activation` is another, or a number is negative or not finite.

    Notes:
      Where q* = 0 there is no correlation to speak of, and xi_c is the rate at which
      the squared distance of two signals vanishes, -1/log chi_1. Above 1e17, where
      units are signs, xi_c is NaN for 1 < chi_1 < 1e10: c* is too near to 1.

    Source:
      Schoenholz et al., ICLR (2017), section 3.
    """
    of = overlaps(activation)

    def variance(w, b):
        q = _fixed_point(activation, of, w, b)
        if activation == "relu" or q == 0:
            return _scale(w, _mean_square_slope(activation, of, w, b))  # V is linear
        half = _half_size(w, b)
        if half > SIGN_DEVIATION:
            # The slope falls off as q^(-3/2).
            limit = of.second_moment_slope(SIGN_DEVIATION**2) * SIGN_DEVIATION**3
            return _scale(w / 2 / half, limit / 2 / half)
        return _scale(w, of.second_moment_slope(q))

    def correlation(w, b):
        q = _fixed_point(activation, of, w, b)
        slope = _mean_square_slope(activation, of, w, b)
        if activation == "relu" or q == 0 or w * (w * slope) <= 1:
            return _scale(w, slope)
        if _half_size(w, b) > SIGN_DEVIATION:
            return _correlation_scale_of_signs(w, b, w * (w * slope))
        return _scale(w, of.slope_overlap(q, _correlation_gap(of, q, w)))

    numbers = {"weight_gain": weight_gain, "bias_std": bias_std}
    return DepthScales(
        _checks.each(variance, **numbers), _checks.each(correlation, **numbers)
    )


def critical_gain(activation: str, *, bias_std: Number = 0.0) -> Number:
    r"""Return the weight gain of the edge of chaos, where $\chi_1 = 1$.

    Args:
      activation: "tanh", "erf", "relu" or "hard_tanh", as in `variance_map`.
      bias_std: $\sigma_b$; a number or an array.

    Returns:
      $\sigma_w$, dimensionless, of the shape of `bias_std`. 1 without bias; sqrt 2 for
      ReLU, always.

    Raises:
      ValueError: `activation` is another, or `bias_std` is negative or not finite.

    Source:
      Schoenholz et al., ICLR (2017), figure 1, for tanh.

    Examples:
      >>> round(critical_gain("tanh", bias_std=0.3**0.5) ** 2, 6)
      2.505127
    """
    of = overlaps(activation)
    return _checks.each(lambda b: _critical_gain(activation, of, b), bias_std=bias_std)


def leading_exponent(gain: Number, activation: str = "tanh") -> Number:
    r"""Return the largest Lyapunov exponent of a wide random network, $\log(\chi_1)/2$.

    Of the recurrent network h <- J phi(h) without input or bias, J_ij ~ N(0, g^2/N),
    for N to infinity: one matrix for all times gives what a new one at each would.

    Args:
      gain: g; a number or an array.
      activation: "tanh", "erf", "relu" or "hard_tanh", as in `variance_map`.

    Returns:
      lambda_1, nats per step, of the shape of `gain`. log g up to g = 1, where h dies
      out; log(g^2/2)/2 for ReLU; -inf at 0.

    Raises:
      ValueError: `activation` is another, or `gain` is negative or not finite.

    Notes:
      At finite N the onset of chaos comes later and gently: at g = 1.5 networks of
      N = 100 have 0.013 on average in place of 0.065 (experiments/edge_of_chaos.py).

    Source:
      Sompolinsky, Crisanti & Sommers, Phys. Rev. Lett. 61, 259 (1988), for the phases;
      Molgedey, Schuchhardt & Schuster, Phys. Rev. Lett. 69, 3717 (1992), for discrete
      time.

    Examples:
      >>> round(leading_exponent(2.0), 6)
      0.154724
    """
    of = overlaps(activation)

    def exponent(g):
        with np.errstate(divide="ignore"):
            # Not log(g^2) / 2, which is -inf for small g.
            return np.log(g) + np.log(_mean_square_slope(activation, of, g, 0.0)) / 2

    return _checks.each(exponent, gain=gain)


def _fixed_point(activation: str, of: Overlaps, gain: float, bias: float) -> float:
    if activation == "relu":
        below = 1 - gain * gain / 2
        return bias * bias / below if below > 0 else np.inf
    half = _half_size(gain, bias)
    if half > SIGN_DEVIATION:
        return 4 * half * half

    def surplus(log_q):
        q = np.exp(log_q)
        return gain**2 * of.second_moment(q) / q + bias**2 / q - 1

    # E phi^2 is concave, at most q and at most 1: one root, between these two.
    low = np.log(bias**2 or LINEAR_VARIANCE)
    if surplus(low) <= 0:
        return bias**2
    return float(np.exp(_root(surplus, low, np.log(2 * (gain**2 + bias**2)))))


def _chi(activation: str, of: Overlaps, gain: float, bias: float) -> float:
    return gain * (gain * _mean_square_slope(activation, of, gain, bias))


def _mean_square_slope(
    activation: str, of: Overlaps, gain: float, bias: float
) -> float:
    if activation == "relu":
        return 0.5
    half = _half_size(gain, bias)
    if half > SIGN_DEVIATION:
        return _slope_by_size(of) / 2 / half
    q = _fixed_point(activation, of, gain, bias)
    return float(of.slope_overlap(q, 0.0)) if q > 0 else 1.0


def _half_size(gain: float, bias: float) -> float:
    """Return half the standard deviation of what signs give: always a float."""
    return math.hypot(gain / 2, bias / 2)


def _slope_by_size(of: Overlaps) -> float:
    """Return E phi'^2 times the standard deviation, where that is large."""
    return float(of.slope_overlap(SIGN_DEVIATION**2, 0.0)) * SIGN_DEVIATION


def _correlation_scale_of_signs(gain: float, bias: float, chi: float) -> float:
    """Return xi_c where units are signs, whose overlap is (2 / pi) arcsin c."""
    if chi < 1e10:
        return np.nan  # so near to 1 is c* that they are none
    share = (gain / 2 / _half_size(gain, bias)) ** 2

    # With c = cos(angle): share (2 / pi) angle = 1 - c.
    def surplus(angle):
        return 2 * math.sin(angle / 2) ** 2 / angle - 2 / math.pi * share

    high = math.pi / 2
    angle = high if surplus(high) <= 0 else _root(surplus, share, high)
    return _scale(1.0, 2 / math.pi * share / math.sin(angle))


def _correlation_gap(of: Overlaps, q: float, gain: float) -> float:
    """Return 1 - c* of the stable fixed point c* of the correlation map."""
    if gain**2 * of.slope_overlap(q, 0.0) <= 1:
        return 0.0

    # (1 - C(c)) / (1 - c), the mean slope from c to 1, grows with c as C is convex.
    def mean_slope(gap):
        return gain**2 * of.lost(q, gap) / (q * gap) - 1

    low = np.finfo(float).eps
    if mean_slope(1.0) >= 0:
        return 1.0
    return low if mean_slope(low) <= 0 else _root(mean_slope, low, 1.0)


def _critical_gain(activation: str, of: Overlaps, bias: float) -> float:
    if activation == "relu":
        return 2**0.5
    if bias == 0:
        return 1.0
    if bias > SIGN_DEVIATION:
        return (bias / _slope_by_size(of)) ** 0.5

    # On the critical line 1/w^2 = E phi'^2, so that q says what the bias is.
    def surplus(q):
        return q - of.second_moment(q) / of.slope_overlap(q, 0.0) - bias**2

    high = 2 * bias**2
    while surplus(high) < 0:
        high = 2 * high
    q = _root(surplus, bias**2, high)
    return float(of.slope_overlap(q, 0.0)) ** -0.5


def _root(f: Callable[[float], Any], low: float, high: float) -> float:
    tight: dict[str, Any] = {"xtol": 1e-300, "rtol": 4 * np.finfo(float).eps}
    return scipy.optimize.root_scalar(
        f, bracket=(low, high), method="brentq", **tight
    ).root


def _scale(gain: float, slope: Any) -> float:
    """Return the layers over which what shrinks by gain^2 slope falls by a factor e."""
    if gain <= 0 or slope <= 0:
        return 0.0
    product = gain * gain * slope
    # Logs of the factors where the product is beyond floats.
    log = (
        math.log(product)
        if 1e-300 < product < np.inf
        else (2 * math.log(gain) + math.log(slope))
    )
    return np.inf if log >= 0 else -1 / log
