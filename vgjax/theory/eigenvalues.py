r"""What one matrix, applied over and over, does to a vector.

With eigenvalues $\lambda_i$ and eigenvectors in the columns of V,
$W^t = V \,\mathrm{diag}(\lambda)^t V^{-1}$: every mode grows or dies at its own rate
$\log|\lambda_i|$. Singular values of $W^t$ follow these rates at once if W is normal,
and only in the long run otherwise.

Eigenvalues of a matrix that is not symmetric lower for CPU and CUDA; JAX has no rule
for them on TPU. `power_spectrum` needs none.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Complex, Float

from vgjax import _checks
from vgjax._linalg import (
    descending,
    exponent,
    log_abs_det,
    near_one,
    pivoted_qr,
    roundoff,
    scaled,
)
from vgjax.products import Spectrum, identity, log_singular_values, push

__all__ = ["eigenvalue_rates", "eigenvalues", "mode_amplitudes", "power_spectrum"]


def __dir__() -> list[str]:
    return __all__


_LOG2 = math.log(2)


def eigenvalues(W: Float[Array, "N N"]) -> Complex[Array, " N"]:
    """Return the eigenvalues of a matrix, the largest in magnitude first.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      (N,), complex. As many as the rank of W falls short of N are exactly 0. NaN if W
      has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Each is right to about eps times the norm of W and its own condition number, which
      is 1 for a normal matrix. A defective one is not well determined: the n equal
      eigenvalues of a Jordan block come apart by about eps^(1/n). Costs O(N^3).
    """
    values, e = _eigenvalues_near_one(_checks.square(W))
    return jax.lax.complex(scaled(jnp.real(values), e), scaled(jnp.imag(values), e))


def eigenvalue_rates(W: Float[Array, "N N"]) -> Float[Array, " N"]:
    r"""Return the growth rates of the modes of a matrix, $\log|\lambda_i|$, in order.

    What the rates of the singular values of $W^t$ tend to as t grows, and what they are
    from the first step on if W is normal.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      (N,), nats per step, descending. -inf for an eigenvalue 0; NaN if W has a NaN or
      an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Exact to the accuracy of `eigenvalues`: of a defective matrix to eps^(1/n), and
      for an eigenvalue much smaller than the norm of W only as many digits as eps
      leaves. Costs O(N^3).

    Source:
      Goodfellow, Bengio & Courville, Deep Learning (2016), sections 8.2.5 and 10.7.

    Examples:
      >>> import jax.numpy as jnp
      >>> eigenvalue_rates(jnp.array([[0.0, -0.5], [0.5, 0.0]])).round(4)
      Array([-0.6931, -0.6931], dtype=float32)
    """
    W = _checks.square(W)
    values, e = _eigenvalues_near_one(W)
    return jnp.log(jnp.abs(values)) + _LOG2 * e.astype(W.dtype)


def power_spectrum(W: Float[Array, "N N"], steps: Sequence[int] | Any) -> Spectrum:
    r"""Return the exact log singular values of the powers of a matrix.

    $W^t$ is never formed: the values may be any number of orders of magnitude apart,
    and t up to 10^7, while the values stay above -3.7e8 nats.

    Args:
      W: (N, N), float32 or float64.
      steps: (R,), the powers t: whole numbers from 1 on, strictly increasing; concrete.

    Returns:
      `Spectrum`: steps (R,); log_singular_values (R, N), nats, descending;
      log_abs_det (R,), nats, t log|det W|. What W or its power annihilates reads -inf,
      in ``log_abs_det`` too. All NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix; `steps` is not of shape (R,), not strictly
        increasing, or has a number below 1 or above 10^7.
      TypeError: `W` is not float32 or float64; `steps` are not whole numbers.

    Notes:
      The limits of accuracy are those of `vgjax.products.product_spectrum`. Costs
      O(N^3) for every step up to the last, and an SVD for each of the R recorded.

    Source:
      Trefethen & Embree, Spectra and Pseudospectra (2005), part IV, for what powers do
      that eigenvalues do not say.

    Examples:
      >>> import jax.numpy as jnp
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> power_spectrum(shear, [200, 400]).log_singular_values.round(1)
      Array([[-132.6, -144.6],
             [-270.6, -283.9]], dtype=float32)
    """
    W = _checks.square(W)
    steps = _checks.steps_to_take(steps)
    return _power_spectrum(W, jnp.asarray(steps, jnp.int32))


@jax.jit
def _power_spectrum(W: Array, steps: Array) -> Spectrum:
    def record(product, more):
        product = jax.lax.fori_loop(0, more, lambda _, p: push(p, W), product)
        return product, log_singular_values(product)

    more = jnp.diff(steps, prepend=jnp.zeros(1, steps.dtype))
    start = identity(len(W), W.dtype)._replace(rotation=None)
    _, values = jax.lax.scan(record, start, more)
    log_det = steps.astype(W.dtype) * log_abs_det(W)
    return Spectrum(steps, values, log_det)


def mode_amplitudes(
    W: Float[Array, "N N"], vector: Float[Array, " N"], steps: Sequence[int] | Any
) -> Float[Array, "R N"]:
    r"""Return how much of each mode is in a vector after so many steps, in logs.

    $W^t x = \sum_i c_i \lambda_i^t v_i$ with unit eigenvectors $v_i$ and $c = V^{-1}
    x$; this is $\log|c_i| + t \log|\lambda_i|$.

    Args:
      W: (N, N), float32 or float64; diagonalisable.
      vector: (N,), x, of the dtype of `W`.
      steps: (R,), t: whole numbers from 1 on, strictly increasing; concrete.

    Returns:
      (R, N), nats, the modes in the order of `eigenvalues`. -inf for a mode with
      eigenvalue 0; of one that is not in the vector, -inf or what rounding leaves, some
      36 nats (float32: 16) below the largest; NaN if W or the vector has a NaN or an
      infinity.

    Raises:
      ValueError: `W` is not a square matrix, `vector` not of shape (N,); `steps` is not
        of shape (R,), not strictly increasing, or has a number below 1.
      TypeError: `W` is not float32 or float64, or `vector` of another dtype; `steps`
        are not whole numbers.

    Notes:
      The coefficients are right to eps times the condition number of V, 1 for a normal
      matrix. Of a nearly defective matrix they are huge and cancel in the sum; of a
      defective one they mean nothing. Costs O(N^3).

    Source:
      Goodfellow, Bengio & Courville, Deep Learning (2016), section 8.2.5; Trefethen &
      Embree, Spectra and Pseudospectra (2005), chapter 52, for the condition of V.
    """
    W = _checks.square(W)
    vector = jnp.asarray(vector)
    _checks.shape(vector, "vector", "N", N=len(W))
    _checks.same_dtype(vector, "vector", W.dtype)
    steps = jnp.asarray(_checks.static_steps(steps), W.dtype)

    near, e = near_one(W)
    values, V = jnp.linalg.eig(near)
    order = descending(jnp.abs(values))
    coefficients = jnp.linalg.solve(V, vector.astype(V.dtype))
    at_start = jnp.log(jnp.abs(coefficients))[order]
    rates = jnp.log(jnp.abs(values[order])) + _LOG2 * e.astype(W.dtype)
    rates = jnp.where(_in_rank(W) | jnp.isnan(rates), rates, -jnp.inf)
    return at_start[None, :] + steps[:, None] * rates[None, :]


def _eigenvalues_near_one(W: Array) -> tuple[Array, Array]:
    """Eigenvalues in order, over ``2^e``, and e."""
    near, e = near_one(W)
    values = jnp.linalg.eigvals(near)
    values = values[descending(jnp.abs(values))]
    return jnp.where(_in_rank(W) | jnp.isnan(values), values, 0), e


@jax.jit
def _in_rank(W: Array) -> Array:
    """(N,), True for the first rank(W); that of W, not of what eigenvalues look like.

    Eigenvalues 0 come out of LAPACK as round-off, whose log would pass for a rate.
    """
    size = exponent(jnp.max(jnp.abs(W), axis=0))
    # Columns of one size, or honest small ones would count as round-off.
    even = scaled(W, -size[None, :])
    noise = roundoff(len(W), W.dtype) * jnp.max(jnp.abs(even), axis=1)
    noise = jnp.broadcast_to(noise[:, None], even.shape)
    R = pivoted_qr(even, jnp.zeros_like(size), noise).R
    return jnp.arange(len(W)) < jnp.sum(jnp.any(R != 0, axis=1))
