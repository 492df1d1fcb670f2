"""Numbers that sum up a Lyapunov spectrum."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax import _checks
from vgjax._linalg import descending

__all__ = ["entropy", "kaplan_yorke_dimension"]


def __dir__() -> list[str]:
    return __all__


def kaplan_yorke_dimension(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    r"""Return the dimension of an attractor from its Lyapunov exponents.

    $D = j + \sum_{i \le j} \lambda_i / |\lambda_{j+1}|$, where j is the largest number
    of leading exponents whose sum is not negative.

    Args:
      exponents: (k,), in nats per step or per unit time, in any order; -inf is allowed.

    Returns:
      A scalar between 0 and k, a number of dimensions. 0 where the largest exponent is
      negative. k where the sum of all is not negative: all N exponents then say that
      the attractor fills the space, and k < N only that it has at least k dimensions.
      NaN if one is NaN.

    Raises:
      ValueError: `exponents` is not of shape (k,).
      TypeError: `exponents` is not float32 or float64.

    Source:
      Kaplan & Yorke, Lecture Notes in Mathematics 730, 204 (1979).

    Examples:
      >>> import jax.numpy as jnp
      >>> lorenz = jnp.array([0.9058, 0.0, -14.5725])
      >>> kaplan_yorke_dimension(lorenz).round(3)
      Array(2.062, dtype=float32)
    """
    exponents = _checked(exponents)
    k = len(exponents)
    ordered = exponents[descending(exponents)]
    sums = jnp.cumsum(ordered)
    j = jnp.sum(jnp.cumprod((sums >= 0).astype(jnp.int32)))
    before = jnp.where(j > 0, sums[jnp.maximum(j - 1, 0)], 0)
    beyond = ordered[jnp.minimum(j, k - 1)]
    part = jnp.where(j < k, before / jnp.where(j < k, -beyond, 1), 0)
    dimension = j.astype(exponents.dtype) + part
    return jnp.where(jnp.any(jnp.isnan(exponents)), jnp.nan, dimension)


def entropy(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the sum of the positive Lyapunov exponents.

    It bounds the Kolmogorov-Sinai entropy from above (Ruelle's inequality), and is
    equal to it where the invariant measure is smooth along the unstable directions
    (Pesin's formula).

    Args:
      exponents: (k,), in any order; -inf is allowed. All positive ones must be there.

    Returns:
      A scalar in nats, per step or per unit time as the exponents are; 0 where none is
      positive. NaN if one is NaN.

    Raises:
      ValueError: `exponents` is not of shape (k,).
      TypeError: `exponents` is not float32 or float64.

    Source:
      Eckmann & Ruelle, Rev. Mod. Phys. 57, 617 (1985), section IV.
    """
    return jnp.sum(jnp.maximum(_checked(exponents), 0))


def _checked(exponents) -> Array:
    exponents = _checks.array(exponents, "exponents")
    _checks.shape(exponents, "exponents", "k")
    _checks.real_floating(exponents, "exponents")
    return exponents
