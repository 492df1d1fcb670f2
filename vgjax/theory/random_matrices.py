r"""What large random matrices, and products of them, have in common.

| of | function |
| --- | --- |
| eigenvalues of one Gaussian matrix | `circular_law` |
| growth of a product of many, one a step | `newman_exponents`, and their errors |
| singular values of a few wide layers | `gaussian_product_edge`, its moments |
| norm of a vector through many layers | `random_walk_gain`, `random_walk_variance` |

All of it runs on the host: arguments are concrete numbers, results are floats or NumPy
arrays in float64.
"""

import math
from typing import Any

import numpy as np
import scipy  # its parts load when they are first touched

from vgjax import _checks

__all__ = [
    "circular_law",
    "gaussian_product_edge",
    "gaussian_product_moments",
    "newman_exponents",
    "newman_standard_errors",
    "random_walk_gain",
    "random_walk_variance",
]


def __dir__() -> list[str]:
    return __all__


def circular_law(radius: Any, gain: float = 1.0) -> Any:
    r"""Return the fraction of eigenvalues within a radius, $\min(1, (r/g)^2)$.

    Of a matrix with independent entries of variance $g^2/N$, for N to infinity:
    eigenvalues fill the disc of radius g evenly.

    Args:
      radius: r, at least 0; a number or an array.
      gain: g, above 0.

    Returns:
      Fraction, 0 to 1, of the shape of `radius`.

    Raises:
      ValueError: `radius` is negative or not finite, or `gain` no number above 0.

    Source:
      Girko, Theory Probab. Appl. 29, 694 (1985); Tao & Vu, Ann. Probab. 38, 2023
      (2010).

    Examples:
      >>> circular_law(0.5)
      0.25
    """
    _checks.positive(gain, "gain")
    return _checks.plain(
        np.minimum(1.0, _checks.nonnegative(radius, "radius") / gain) ** 2
    )


def newman_exponents(N: int, *, gain: float = 1.0) -> np.ndarray:
    r"""Return the Lyapunov exponents of products of Gaussian matrices.

    A new N x N matrix at each step, with independent entries $N(0, g^2/N)$:
    $\lambda_i = (\log 2 + \psi((N - i + 1)/2))/2 + \log(g / \sqrt N)$, i = 1..N.

    Args:
      N: size, at least 1.
      gain: g, above 0.

    Returns:
      (N,), nats per step, descending; exact at any N.

    Raises:
      ValueError: `N` is below 1, or `gain` no number above 0.
      TypeError: `N` is no whole number.

    Source:
      Newman, Commun. Math. Phys. 103, 121 (1986).

    Examples:
      >>> newman_exponents(8)[:3].round(6)
      array([-0.065088, -0.141569, -0.231755])
    """
    N = _checks.integer(N, "N", 1)
    _checks.positive(gain, "gain")
    mean = (math.log(2) + scipy.special.digamma(_halves(N))) / 2
    return mean + math.log(gain / N**0.5)


def newman_standard_errors(N: int, steps: int) -> np.ndarray:
    r"""Return by how much exponents of a finite product miss `newman_exponents`.

    $(\psi'((N - i + 1)/2) / (4 T))^{1/2}$: at each step log R_ii of the QR method is
    half the logarithm of an independent $\chi^2_{N-i+1}$ variable.

    Args:
      N: size, at least 1.
      steps: T, how many matrices; all of them, over independent chains. At least 1.

    Returns:
      (N,), nats per step: standard deviations, whatever the gain.

    Raises:
      ValueError: `N` or `steps` is below 1.
      TypeError: `N` or `steps` is no whole number.

    Notes:
      Exact for the rates log R_ii in QR order. Singular values approach these after a
      transient of order 1/T.

    Source:
      Newman, Commun. Math. Phys. 103, 121 (1986).
    """
    N, steps = _checks.integer(N, "N", 1), _checks.integer(steps, "steps", 1)
    return np.sqrt(scipy.special.polygamma(1, _halves(N)) / (4 * steps))


def gaussian_product_edge(layers: int) -> float:
    r"""Return the largest squared singular value of a product of wide layers.

    $(L + 1)^{L + 1} / L^L$, for L square Gaussian matrices of entries N(0, 1/N), N to
    infinity. It grows as e (L + 1/2) and not exponentially, since N goes first.

    Args:
      layers: L, at least 1.

    Returns:
      $\sigma_1^2$, dimensionless: 4 for one layer, 6.75 for two.

    Raises:
      ValueError: `layers` is below 1.
      TypeError: `layers` is no whole number.

    Source:
      Penson & Zyczkowski, Phys. Rev. E 83, 061118 (2011).

    Examples:
      >>> gaussian_product_edge(2)
      6.75
    """
    L = _checks.integer(layers, "layers", 1)
    # Not (1 + 1 / L) ** L: 1 / L is rounded to eps, and L times that is the error.
    return (L + 1) * math.exp(L * math.log1p(1 / L))


def gaussian_product_moments(layers: int, order: int) -> int:
    r"""Return a moment of the squared singular values of a product of wide layers.

    The mean of $\sigma^{2k}$ over the N singular values of a product of L Gaussian
    matrices of entries N(0, 1/N), for N to infinity: the Fuss-Catalan number
    $\binom{(L+1)k}{k} / (L k + 1)$.

    Args:
      layers: L, at least 1.
      order: k, at least 0.

    Returns:
      m_k, a whole number: 1 for k = 0 and 1, L + 1 for k = 2.

    Raises:
      ValueError: `layers` is below 1, or `order` below 0.
      TypeError: `layers` or `order` is no whole number.

    Source:
      Penson & Zyczkowski, Phys. Rev. E 83, 061118 (2011).

    Examples:
      >>> gaussian_product_moments(3, 2)
      4
    """
    L, k = _checks.integer(layers, "layers", 1), _checks.integer(order, "order", 0)
    return math.comb((L + 1) * k, k) // (L * k + 1)


def random_walk_gain(N: int, activation: str) -> float:
    r"""Return the gain at which gradients neither grow nor shrink with depth.

    At this gain g the logarithm of the norm of a vector that is multiplied by many
    independent layers, $W_{ij} \sim N(0, g^2/N)$, is a random walk without drift.

    Args:
      N: width, at least 1.
      activation: "linear", $g = \sqrt{N/2} \, e^{-\psi(N/2)/2}$; or "relu",
        $g = \sqrt{N} \exp(-E[\log 2 + \psi(K/2)]/2)$ with K units on,
        K ~ Bin(N, 1/2) given that K > 0.

    Returns:
      g, dimensionless. The variance of the walk per layer is $\psi'(N/2)$ for
      "linear", in units of $\log \|.\|^2$. N = 100: 1.00502927 and 1.43230357.

    Raises:
      ValueError: `N` is below 1, or `activation` another.

    Source:
      Sussillo & Abbott, arXiv:1412.6558 (2014), sec. 3, with psi for their
      approximation of it.
    """
    N = _checks.integer(N, "N", 1)
    _checks.choice(activation, "activation", ("linear", "relu"))
    digamma, gammaln = scipy.special.digamma, scipy.special.gammaln
    if activation == "linear":
        return float((N / 2) ** 0.5 * np.exp(-digamma(N / 2) / 2))
    K = np.arange(1, N + 1)
    log_ways = gammaln(N + 1) - gammaln(K + 1) - gammaln(N - K + 1)
    chance = np.exp(log_ways - N * np.log(2))
    mean = (chance * (np.log(2) + digamma(K / 2))).sum() / chance.sum()
    return float(N**0.5 * np.exp(-mean / 2))


def random_walk_variance(N: int, activation: str) -> float:
    r"""Return how much a gradient's norm wanders at each layer, at random.

    The variance per layer of $\log\|.\|^2$ of a vector that is multiplied by many
    independent layers of Gaussian weights: $\psi'(N/2)$ for linear ones; for ReLU that
    of $\log \chi^2_K$ with K ~ Bin(N, 1/2) units on, given that K > 0. It adds up from
    layer to layer, and no gain takes it away.

    Args:
      N: width, at least 1.
      activation: "linear" or "relu".

    Returns:
      Variance, nats^2 per layer. N = 100: 0.020201 and 0.051940. That of $\log\|.\|$ is
      a quarter of it.

    Raises:
      ValueError: `N` is below 1, or `activation` another.
      TypeError: `N` is no whole number.

    Source:
      Sussillo & Abbott, arXiv:1412.6558 (2014), sec. 3, with psi for their
      approximation of it.

    Examples:
      >>> round(random_walk_variance(100, "relu"), 6)
      0.05194
    """
    N = _checks.integer(N, "N", 1)
    _checks.choice(activation, "activation", ("linear", "relu"))
    digamma, gammaln = scipy.special.digamma, scipy.special.gammaln
    polygamma = scipy.special.polygamma
    if activation == "linear":
        return float(polygamma(1, N / 2))
    K = np.arange(1, N + 1)
    log_ways = gammaln(N + 1) - gammaln(K + 1) - gammaln(N - K + 1)
    chance = np.exp(log_ways - log_ways.max())
    chance /= chance.sum()
    mean = (chance * digamma(K / 2)).sum()
    within, between = polygamma(1, K / 2), (digamma(K / 2) - mean) ** 2
    return float((chance * (within + between)).sum())


def _halves(N: int) -> np.ndarray:
    """(N,), (N - i + 1) / 2 for i = 1..N."""
    return np.arange(N, 0, -1) / 2
