r"""Averages of activations over Gaussian variables, in closed form or nearly so.

With u, v jointly Gaussian of mean 0, variance q and correlation c,

    overlap(q, c) = E phi(u) phi(v),    slope_overlap(q, c) = E phi'(u) phi'(v),

and the second is the derivative of the first by the covariance q c (Price). tanh is a
mixture of error functions, $\tanh x = E \,\mathrm{erf}(x / \sqrt{2 K^2})$ with K of
Kolmogorov's distribution, because the logistic distribution is that mixture of normal
ones; so arcsin's of Williams do for tanh as they do for erf, at any q, with two sums
over K left. A Gauss-Hermite rule sees none of sech^4 once q is large.

The correlation is given as ``gap`` = 1 - c, so that what is nearly 1 loses no digits.

Source: Williams, Neural Computation 10, 1203 (1998), for erf; Cho & Saul, NeurIPS
(2009), for ReLU; Stefanski, Stat. Probab. Lett. 11, 69 (1991), for the mixture. That
of hard tanh is Plackett's, Biometrika 41, 351 (1954), and derived in `HardTanh`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy  # its parts load when they are first touched

from vgjax import _checks

Number: TypeAlias = Any
"""A float, or a NumPy array of floats."""


class Overlaps(Protocol):
    """What mean-field theory asks of an activation; all take float64 arrays."""

    def second_moment(self, q: Number) -> Number:
        """E phi(u)^2."""
        ...

    def second_moment_slope(self, q: Number) -> Number:
        """Derivative of E phi(u)^2 by q."""
        ...

    def lost(self, q: Number, gap: Number) -> Number:
        """overlap(q, 1) - overlap(q, c), without cancellation."""
        ...

    def slope_overlap(self, q: Number, gap: Number) -> Number:
        """E phi'(u) phi'(v)."""
        ...


class ErfMixture:
    """E erf(x / sqrt(2 s)) over a discrete distribution of s."""

    def __init__(self, s: np.ndarray, weights: np.ndarray):
        self.product = s[:, None] * s[None, :]
        self.sum = s[:, None] + s[None, :]
        self.weights = 2 / math.pi * weights[:, None] * weights[None, :]

    def _mean(self, values: np.ndarray) -> Number:
        return (self.weights * values).sum((-2, -1))

    def _parts(self, q: Number) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """q, q (s + s') and their part of (s + q)(s' + q) - q^2, for each pair."""
        q = np.asarray(q, float)[..., None, None]
        return q, q * self.sum, self.product + q * self.sum

    def second_moment(self, q: Number) -> Number:
        q, _, rest = self._parts(q)
        return self._mean(np.arctan2(q, np.sqrt(rest)))

    def second_moment_slope(self, q: Number) -> Number:
        q, linear, rest = self._parts(q)
        return self._mean((rest - linear / 2) / (np.sqrt(rest) * (rest + q**2)))

    def lost(self, q: Number, gap: Number) -> Number:
        q, _, rest = self._parts(q)
        gap = np.asarray(gap, float)[..., None, None]
        c = 1 - gap
        near, far = np.sqrt(rest), np.sqrt(rest + q**2 * gap * (2 - gap))
        # A difference of arcsin's, its sine and cosine from terms of one sign.
        sine = q * gap * (2 - gap) * (rest + q**2) / (far + c * near)
        return self._mean(np.arctan2(sine, near * far + q**2 * c))

    def slope_overlap(self, q: Number, gap: Number) -> Number:
        q, _, rest = self._parts(q)
        gap = np.asarray(gap, float)[..., None, None]
        return self._mean(1 / np.sqrt(rest + q**2 * gap * (2 - gap)))


class Relu:
    """max(x, 0): arc-cosine kernels of degree 1 and 0."""

    def second_moment(self, q: Number) -> Number:
        return np.asarray(q, float) / 2

    def second_moment_slope(self, q: Number) -> Number:
        return np.full(np.shape(q), 0.5)

    def lost(self, q: Number, gap: Number) -> Number:
        angle = _angle(gap)
        return (
            q / (2 * math.pi) * (math.pi * gap - np.sin(angle) + angle * np.cos(angle))
        )

    def slope_overlap(self, q: Number, gap: Number) -> Number:
        return np.broadcast_to((math.pi - _angle(gap)) / (2 * math.pi), np.shape(q))


class HardTanh:
    r"""The identity between -1 and 1, constant beyond.

    $\phi' \phi'$ is 1 in the square |u|, |v| < 1. Its probability changes with c by
    the density at the corners; with c = cos psi and a^2 = 1/q by
    $g(\psi) = (e^{-a^2 / (1 + \cos\psi)} - e^{-a^2 / (1 - \cos\psi)}) / \pi$ per psi.
    Integrated from psi to pi/2, where u and v are independent, it cancels nothing.
    """

    def __init__(self):
        nodes, weights = np.polynomial.legendre.leggauss(20)
        panels = np.arange(80)[:, None]
        self._parts = ((panels + (1 + nodes) / 2) / 80).ravel()
        self._weights = np.tile(weights / 160, 80)

    def second_moment(self, q: Number) -> Number:
        half = _half_inverse(q)
        # chi^2 with 3 degrees of freedom: E z^2 for |z| < a.
        inside = np.where(half < np.inf, q * scipy.special.gammainc(1.5, half), q)
        return inside + scipy.special.gammaincc(0.5, half)

    def second_moment_slope(self, q: Number) -> Number:
        return scipy.special.gammainc(1.5, _half_inverse(q))

    def lost(self, q: Number, gap: Number) -> Number:
        # The integral of the slope over c, by parts: no term is negative.
        last = _angle(gap)
        near = self._integral(q, 1e-25, last, lambda psi: 2 * np.sin(psi / 2) ** 2)
        return q * (gap * self.slope_overlap(q, gap) + near)

    def slope_overlap(self, q: Number, gap: Number) -> Number:
        square = scipy.special.erf(np.sqrt(_half_inverse(q)))
        beyond = self._integral(q, _angle(gap), math.pi / 2, np.ones_like)
        return np.where(_angle(gap) > 0, square**2 + beyond, square)

    def _integral(
        self, q: Number, low: Number, high: Number, weight: Callable[[Any], Any]
    ) -> Number:
        """Integrate g times a weight over angles, equally in their logarithm.

        At large q it changes near q^(-1/2); below 1e-25 there is nothing to add.
        """
        low, high = (np.maximum(x, 1e-25)[..., None] for x in (low, high))
        octaves = np.log(high / low)
        psi = low * np.exp(octaves * self._parts)
        half = _half_inverse(q)[..., None]
        like, unlike = 1 / np.cos(psi / 2) ** 2, 1 / np.sin(psi / 2) ** 2
        size = np.exp(-half * np.minimum(like, unlike))
        g = -np.sign(unlike - like) * size * np.expm1(-half * np.abs(unlike - like))
        return (g * weight(psi) * psi * octaves * self._weights).sum(-1) / math.pi


def _angle(gap: Number) -> Number:
    """Return arccos(1 - gap)."""
    return 2 * np.arcsin(np.sqrt(np.asarray(gap, float) / 2))


def _half_inverse(q: Number) -> Number:
    with np.errstate(divide="ignore", over="ignore"):
        return 0.5 / np.asarray(q, float)


def _kolmogorov() -> ErfMixture:
    """Return the mixture that is tanh, by a trapezoid in log K.

    The density falls off faster than any power at both ends and is analytic, so the
    rule converges exponentially; at this step it has long done so.
    """
    step = 0.04
    K = np.exp(np.arange(-2.0, 1.6, step))[:, None]
    k = np.arange(1, 40)
    # Two series for one density, each where it converges fast.
    odd = ((2 * k - 1) * math.pi) ** 2 / (4 * K**2)
    small = (
        math.sqrt(2 * math.pi)
        / K**2
        * ((odd - 1) * np.exp(-odd / 2)).sum(1, keepdims=True)
    )
    large = (
        8 * K * (-((-1.0) ** k) * k**2 * np.exp(-2 * k**2 * K**2)).sum(1, keepdims=True)
    )
    weights = (K * np.where(K < 0.8, small, large))[:, 0]
    return ErfMixture(K[:, 0] ** 2, weights / weights.sum())


_MAKERS: dict[str, Callable[[], Overlaps]] = {
    "tanh": _kolmogorov,
    "erf": lambda: ErfMixture(np.array([2 / math.pi]), np.array([1.0])),
    "relu": Relu,
    "hard_tanh": HardTanh,
}


# Made when first asked for: the quadratures would be a tenth of importing vgjax.
@functools.cache
def _made(activation: str) -> Overlaps:
    return _MAKERS[activation]()


def overlaps(activation: str) -> Overlaps:
    """Return the averages of an activation, or refuse its name."""
    return _made(_checks.choice(activation, "activation", _MAKERS))
