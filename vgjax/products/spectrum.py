"""Exact singular values of every prefix or suffix of a sequence of matrices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _checks
from vgjax._linalg import add_compensated, log_abs_det, varying_like
from vgjax.products.graded import (
    PUSHES_PER_BALANCE,
    absorb,
    by_size,
    identity,
    push,
    push_unbalanced,
)
from vgjax.products.singular import couplings, values_of

# Records are read in batches of SVDs, of the largest divisor of R up to this: memory
# grows with it, and a remainder would be a second program to compile.
_LARGEST_BATCH = 16


class Spectrum(NamedTuple):
    """Singular values of a growing product, in logs."""

    steps: Array  # (R,) int32, how many factors the product had; the lag, in reverse
    log_singular_values: Array  # (R, N) nats, descending along the last axis
    log_abs_det: Array  # (R,) nats, summed from the determinant of each factor


def product_spectrum(
    matrices: Array, *, every: int = 1, reverse: bool = False
) -> Spectrum:
    r"""Return the exact log singular values of every product of leading matrices.

    Row r belongs to $\Phi = A_t \cdots A_2 A_1$ with t = ``steps[r]``: the newest
    factor on the left, `matrices[0]` on the right. Every finite value is within 1e-10
    nats (1e-2 in float32) of the truth for the given matrices, or within a few ulps of
    the largest, whichever is more, however far the values are apart; as long as no
    single matrix is so ill-conditioned, beyond the different sizes of its rows and of
    its columns, that its own rounding moves them more.

    Args:
      matrices: (T, N, N), row = output, first factor first; float32 or float64.
      every: record the product after every so many factors, from 1 to T. Factors after
        the last record are not looked at.
      reverse: multiply from the other end: row r belongs to the last ``steps[r]``
        matrices, $A_T \cdots A_{T-k+1}$ with k = ``steps[r]``, a lag.

    Returns:
      `Spectrum` with R = T // every rows. What a matrix annihilates reads -inf from
      then on. ``log_abs_det`` is the sum of `slogdet` over the factors and knows
      nothing of the singular values: the sum of these should agree with it. A matrix
      with NaN or inf makes that row and all later ones NaN.

    Raises:
      ValueError: a shape is not (T, N, N) or has a zero, or `every` is outside 1..T.
      TypeError: the dtype is not float32 or float64; `every` is no whole number.

    Notes:
      A matrix whose condition exceeds 1/eps for other reasons than the sizes of its
      rows and columns cannot be told from a singular one and reads -inf too; products
      of singular matrices may, on the other hand, lose a direction unnoticed (see
      `log_singular_values`). Subnormal numbers count as zero, and where one column
      mixes entries further apart than floats reach, so does the smaller.

      Rounding the matrices themselves, by eps, may decide: so it does where a direction
      falls 36 nats (float32: 16) below others and overtakes them later. It then reads
      too large and the smallest too small, by as much, so that ``log_abs_det`` does not
      tell.

      Costs about two QR factorisations a step, and one SVD a record: O(T N^3). Beside
      the matrices, and a copy of them for `reverse`, memory is O(N^2).

    Source:
      The idea of keeping a product as U D T is that of determinant quantum Monte
      Carlo (Loh et al., Phys. Rev. B 41, 9301 (1990); Bauer, SciPost Phys. Core 2, 11
      (2020)). Scales as integers, sorting, sweeping and decoupling are derived in
      tests/README.md.

    Examples:
      >>> import jax.numpy as jnp
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> spectrum = product_spectrum(jnp.stack([shear] * 400), every=200)
      >>> spectrum.log_singular_values.round(1)
      Array([[-132.6, -144.6],
             [-270.6, -283.9]], dtype=float32)
    """
    matrices = _checks.array(matrices, "matrices")
    sizes = _checks.shape(matrices, "matrices", "T N N")
    dtype = _checks.real_floating(matrices, "matrices")
    every = _checks.whole(every, "every", 1, sizes["T"])
    if reverse:
        # Suffixes of A are prefixes of the transposed factors in reversed order.
        matrices = jnp.swapaxes(matrices[::-1], 1, 2)
    return _spectrum_of_stack(matrices, every=every, dtype=dtype)


def tracked_spectrum(
    factor: Callable[[Any, Any], tuple[Any, Array]],
    carry: Any,
    inputs: Any,
    *,
    N: int,
    T: int,
    every: int,
    dtype: jnp.dtype,
) -> Spectrum:
    """Spectrum of factors that are made one at a time, and forgotten.

    ``factor(carry, x) -> (carry, matrix)`` is called in time order, x running along the
    leading axis of the leaves of `inputs`. What is worked on at a time is one product
    and a few records.
    """
    R = T // every
    batch = max(b for b in range(1, _LARGEST_BATCH + 1) if R % b == 0)
    shape = (R // batch, batch, every)
    # The index gives the scans their length where there are no inputs.
    inputs = (jnp.arange(T), inputs)
    inputs = jax.tree.map(
        lambda a: a[: R * every].reshape(*shape, *a.shape[1:]), inputs
    )
    extend = push_unbalanced if every <= PUSHES_PER_BALANCE else push

    def step(state, x):
        carry, product, (high, low) = state
        carry, matrix = factor(carry, x[1])
        matrix = matrix.astype(dtype)
        product = extend(product, matrix)
        log_det = add_compensated(high, low, log_abs_det(matrix))
        return (carry, product, log_det), None

    def record(state, xs):
        # Unrolled where it is one step: a loop in a loop copies the state twice.
        (carry, product, log_det), _ = jax.lax.scan(step, state, xs, unroll=every == 1)
        product = by_size(product)
        seen = couplings(product)
        finite = jnp.all(jnp.isfinite(seen.L))
        left = jnp.where(finite, seen.L, 0)
        rest = absorb(product, left, None)
        right = jnp.where(finite, rest.right, jnp.nan)
        total = jnp.where(finite, log_det[0] + log_det[1], jnp.nan)
        return (carry, rest._replace(right=right), log_det), (seen, total)

    def records(state, xs):
        state, (seen, log_det) = jax.lax.scan(record, state, xs)
        return state, (jax.vmap(values_of)(seen), log_det)

    zero = jnp.zeros((), dtype)
    product = identity(N, dtype)._replace(rotation=None)
    start = varying_like((carry, product, (zero, zero)), carry, inputs)
    _, (values, log_det) = jax.lax.scan(records, start, inputs)
    steps = every * jnp.arange(1, R + 1, dtype=jnp.int32)
    return Spectrum(steps, values.reshape(R, N), log_det.reshape(R))


@partial(jax.jit, static_argnames=("every", "dtype"))
def _spectrum_of_stack(matrices, *, every, dtype):
    T, N, _ = matrices.shape
    return tracked_spectrum(
        lambda carry, matrix: (carry, matrix),
        None,
        matrices,
        N=N,
        T=T,
        every=every,
        dtype=dtype,
    )
