r"""What the rounding of a product's factors may have done to its singular values.

The exact product is ``left (I + F) diag(2^e) right`` for some F, the *leaks*: of
direction i a share F[i, j] 2^(e_j - e_i) is what rounding took from direction j. A push
``matrix left = left' U`` turns it, exactly, into

    F' = U F U^-1 + L^-1 dM U^-1,    |dM| <= eps (|matrix| |left| + |L| |U|),

for dM is the backward error of one product and one LU factorisation (Higham, Accuracy
and Stability of Numerical Algorithms (2002), theorem 9.3). Where a push takes care,
left' is a product of two itself, and its rounding d adds left'^-1 d. So F is carried
along as a sample: new leaks have the root mean square size of L^-1 dM U^-1 and signs
from the bits of these sizes, so that a step that repeats rounds alike and a call always
finds the same. It is read in an orthogonal frame (`in_frame`). One sample has N^2
entries, and says for each pair of directions whether the noise of one, which may have
been eps when it was small, has grown to be what the other is made of.

A leak into a smaller direction changes a value by its square, into one of like size by
itself, one on the diagonal by itself; what leaks from a small direction into a larger
one counts less by the ratio of the scales, 2^(e_j - e_i). With eta the sum of these, a
log singular value is off by at most -log(1 - eta) (Veselic & Slapnicar, Linear Algebra
Appl. 195, 81 (1993)).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import any_in_batch, matmul, regular, scaled, varying_like
from vgjax._tolerances import HIDDEN_BY_CHANCE, MIXING_BITS, TYPICAL_ROUNDING
from vgjax.products._elimination import ABSENT
from vgjax.products._roundings import Transport
from vgjax.products._sizes import (
    inverse_of_lower,
    inverse_of_upper,
    not_lost,
    product_of_squares,
    ratios_of,
    squared,
    times,
    within,
)


class Leaks(NamedTuple):
    """Of a product ``left (I + F) diag(2^e) right``, what is known of F."""

    sample: Array  # (N, N) an F of random roundings
    floor: Array  # (N, N) its size, where chance made it small
    variance: Array  # (N,) of the diagonal, sum of the squares of its steps
    doubt: Array  # (N,) int32, what was taken for annihilated is below 2^doubt


def no_leaks(N: int, dtype: jnp.dtype) -> Leaks:
    """Leaks of the empty product."""
    zero = jnp.zeros((N, N), dtype)
    return Leaks(zero, zero, jnp.zeros(N, dtype), jnp.full(N, ABSENT, jnp.int32))


def reordered(leaks: Leaks, order: Array) -> Leaks:
    """The same, of the directions in another order."""

    def taken(leaks):
        # As one list: columns of rows come out transposed, and XLA would then copy
        # every matrix of leaks at every step, in order or not.
        N = len(order)
        at = order[:, None] * N + order[None, :]
        return Leaks(
            leaks.sample.reshape(N * N)[at],
            leaks.floor.reshape(N * N)[at],
            leaks.variance[order],
            leaks.doubt[order],
        )

    # Most are in order, and to take N^2 numbers one by one costs as much as a product.
    is_other = any_in_batch(jnp.any(order != jnp.arange(len(order), dtype=order.dtype)))
    leaks = varying_like(leaks, leaks, order)
    return jax.lax.cond(is_other, taken, lambda same: same, leaks)


def carried(
    leaks: Leaks | None,
    transport: Transport | None,
    columns: Array,
    overall: Array,
    exponents: Array,
    after: Array,
) -> Leaks | None:
    """Leaks after a push that took the directions in an order of columns.

    A power of two, `overall`, was taken out of the matrix. `exponents` are those of the
    directions before, and `after` the push, in the order of the columns.
    """
    if leaks is None or transport is None:
        return None
    sample, floor_before, variance, _ = reordered(leaks, columns)
    upper, inverse, new, own, row, column, doubt = jax.lax.stop_gradient(transport)
    by = ratios_of(column, upper.dtype)
    sample, floor = times(sample, by), times(floor_before, by)
    applied = matmul(upper, sample)
    turned = within(matmul(applied, inverse))
    # What chance hides in the sample moves the diagonal, too.
    hidden = jnp.tril(jnp.maximum(squared(floor) - squared(sample), 0), -1)
    hidden = product_of_squares(squared(upper), hidden) * squared(inverse.T)
    # A sum would be fused with the product, into a loop three times as slow.
    hidden = matmul(hidden, jnp.ones_like(variance))
    exponents, pivots = exponents[columns], jnp.abs(jnp.diagonal(upper))
    is_gone, is_alive = exponents < ABSENT // 2, (after > ABSENT // 2) & (pivots != 0)
    # A direction that is annihilated now leaves what had leaked from it, which may be
    # larger than the direction it is in.
    is_left = (~is_gone & ~is_alive)[None, :] & is_alive[:, None]
    scale = (row + overall - after)[:, None] + exponents[None, :]

    def largest(applied, floor):
        moved = scaled(jnp.abs(applied), scale + column[None, :])
        stayed = scaled(floor * pivots[:, None], scale + column[:, None])
        both = jnp.where(is_left, jnp.maximum(moved, stayed), 0)
        return within(jnp.max(both, axis=1))

    # Most steps annihilate nothing.
    some = any_in_batch(jnp.any(is_left))
    none = varying_like(jnp.zeros_like(pivots), pivots, applied, floor_before)
    outlives = jax.lax.cond(some, largest, lambda *_: none, applied, floor_before)
    # From here on without units of rows and columns.
    in_one_unit = ratios_of(row, upper.dtype)
    moved = jnp.diagonal(turned + new) - jnp.diagonal(sample)
    sample, new = times(turned + new, in_one_unit), times(new, in_one_unit)
    ratios = pivots[:, None] / jnp.where(pivots == 0, 1, pivots)[None, :]
    floor = times(floor_before * ratios, ratios_of(row + column, upper.dtype))
    # Directions of like size mix, and ratios of their pivots grow without end.
    is_near = jnp.abs(exponents[:, None] - exponents[None, :]) <= MIXING_BITS
    most = jnp.where(is_near, HIDDEN_BY_CHANCE * jnp.abs(sample), jnp.inf)
    floor = jnp.maximum(jnp.minimum(floor, most), jnp.abs(new))
    is_there = (floor_before > 0) & (pivots != 0)[:, None]
    # A matrix that maps an annihilated direction elsewhere brings back what had leaked
    # into it.
    revives = jnp.any((upper != 0) & is_gone[None, :], axis=1)
    had_leaked = jnp.any((floor_before > 0) & is_gone[:, None], axis=0)
    is_there = is_there | (revives[:, None] & had_leaked[None, :])
    return Leaks(
        sample,
        not_lost(floor, is_there),
        variance + jnp.maximum(moved**2, own) + hidden + outlives**2,
        jnp.where(doubt > ABSENT, doubt + overall, ABSENT),
    )


def rebased(leaks: Leaks | None, L: Array) -> Leaks | None:
    """Leaks of a product whose left factor was multiplied by a lower triangle."""
    if leaks is None:
        return None
    L = within(jax.lax.stop_gradient(L))
    sample = matmul(inverse_of_lower(L), matmul(leaks.sample, L))
    diagonal = jnp.abs(jnp.diagonal(L))
    floor = within(leaks.floor * diagonal[None, :] / diagonal[:, None])
    floor = not_lost(floor, leaks.floor > 0)
    return leaks._replace(sample=within(sample), floor=floor)


def of_right(leaks: Leaks | None, R: Array) -> Leaks | None:
    """Leaks once the right factor is rounded, ``right.T = Q R``.

    Row j of it is off by eps of its length, and value i by as much as the inverse of R
    makes of that. It is eps unless matrices far from normal were multiplied since the
    right factor was last diagonal. Directions are in descending order.
    """
    if leaks is None:
        return None
    R = regular(jax.lax.stop_gradient(R))
    moved = matmul(jnp.sum(R**2, axis=0), inverse_of_upper(R) ** 2)
    moved = (TYPICAL_ROUNDING * float(jnp.finfo(R.dtype).eps)) ** 2 * moved
    return leaks._replace(variance=leaks.variance + moved)


def in_frame(leaks: Leaks | None, R: Array, order: Array, L: Array) -> Leaks | None:
    """Leaks of ``Q R (I + F) ...`` as those of ``Q[:, order] L (I + F') ...``.

    Q is orthogonal. The columns of Q R are not, nor are the rows to the right of F. In
    such a frame a leak changes the length of another direction to first order, in an
    orthogonal one to second order.
    """
    if leaks is None:
        return None
    R, L = jax.lax.stop_gradient((regular(R), L))
    eye = jnp.eye(len(R), dtype=R.dtype)
    forward = within(matmul(inverse_of_lower(L), R[order]))
    backward = within(matmul(inverse_of_upper(R)[:, order], L))
    sample = within(matmul(within(matmul(forward, leaks.sample)), backward))
    # So large that it is undecided, so small that its square is finite. The noise of
    # the diagonal is in the variance.
    beyond = 2.0 ** (int(jnp.finfo(R.dtype).maxexp) * 2 // 5)
    floor = jnp.where(eye == 1, 0, jnp.minimum(leaks.floor, beyond))
    squares = product_of_squares(product_of_squares(forward**2, floor**2), backward**2)
    return Leaks(
        sample,
        jnp.sqrt(squares),
        leaks.variance[order] + jnp.diagonal(squares),
        leaks.doubt[order],
    )
