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

from vgjax._linalg import (
    any_in_batch,
    exponent,
    is_before,
    matmul,
    power_of_two,
    regular,
    roundoff,
    scaled,
    varying_like,
)
from vgjax.products._elimination import ABSENT, Elimination, sizes_of_products

# Errors are so many times the effect of a typical rounding; `scripts/bench --errors`
# finds none too small.
_SAFETY = 3.0
# New leaks are so many times the root of the summed squares of their terms.
_NOISE = 4.0
# Undecided from here on, where an error would exceed 0.7 nats. With 0.1, one right
# value in a thousand more is undecided; with either no error is too small.
_LARGEST = 0.5
# By how much chance may make a leak of the sample too small.
_HIDDEN = 100.0
# Directions within so many bits of each other turn into one another.
_MIXING = 8
# Directions within so many bits of each other share their errors.
_NEAR = 3
# Larger triangles are inverted by halves: LAPACK solves for one column at a time. For
# N = 64 this takes 18 us, with halves of 32 29.
_BLOCK = 16


class Leaks(NamedTuple):
    """Of a product ``left (I + F) diag(2^e) right``, what is known of F."""

    sample: Array  # (N, N) an F of random roundings
    floor: Array  # (N, N) its size, where chance made it small
    variance: Array  # (N,) of the diagonal, sum of the squares of its steps
    doubt: Array  # (N,) int32, what was taken for annihilated is below 2^doubt


class Transport(NamedTuple):
    """How a push turns leaks, rows in units of 2^row and columns of 2^column."""

    upper: Array  # (N, N) upper triangle; past the rank a square of what was left
    inverse: Array  # (N, N) of the triangle alone, with ones past the rank
    new: Array  # (N, N) a sample of new leaks
    variance: Array  # (N,) of its diagonal
    row: Array  # (N,) int32
    column: Array  # (N,) int32
    doubt: Array  # (N,) int32, that of the leaks from now on


class Roundings(NamedTuple):
    """What the eliminations of one push have rounded, rows in the order of the last."""

    sample: Array  # (N, N) of leaks
    variance: Array  # (N,) of their diagonal
    unseen: Array  # (N, N) sizes; eps of them is noise past the rank, and no leak


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
    by = _ratios(column, upper.dtype)
    sample, floor = _times(sample, by), _times(floor_before, by)
    applied = matmul(upper, sample)
    turned = _within(matmul(applied, inverse))
    # What chance hides in the sample moves the diagonal, too.
    hidden = jnp.tril(jnp.maximum(_squared(floor) - _squared(sample), 0), -1)
    hidden = _product_of_squares(_squared(upper), hidden) * _squared(inverse.T)
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
        return _within(jnp.max(both, axis=1))

    # Most steps annihilate nothing.
    some = any_in_batch(jnp.any(is_left))
    none = varying_like(jnp.zeros_like(pivots), pivots, applied, floor_before)
    outlives = jax.lax.cond(some, largest, lambda *_: none, applied, floor_before)
    # From here on without units of rows and columns.
    in_one_unit = _ratios(row, upper.dtype)
    moved = jnp.diagonal(turned + new) - jnp.diagonal(sample)
    sample, new = _times(turned + new, in_one_unit), _times(new, in_one_unit)
    ratios = pivots[:, None] / jnp.where(pivots == 0, 1, pivots)[None, :]
    floor = _times(floor_before * ratios, _ratios(row + column, upper.dtype))
    # Directions of like size mix, and ratios of their pivots grow without end.
    is_near = jnp.abs(exponents[:, None] - exponents[None, :]) <= _MIXING
    most = jnp.where(is_near, _HIDDEN * jnp.abs(sample), jnp.inf)
    floor = jnp.maximum(jnp.minimum(floor, most), jnp.abs(new))
    is_there = (floor_before > 0) & (pivots != 0)[:, None]
    # A matrix that maps an annihilated direction elsewhere brings back what had leaked
    # into it.
    revives = jnp.any((upper != 0) & is_gone[None, :], axis=1)
    had_leaked = jnp.any((floor_before > 0) & is_gone[:, None], axis=0)
    is_there = is_there | (revives[:, None] & had_leaked[None, :])
    return Leaks(
        sample,
        _not_lost(floor, is_there),
        variance + jnp.maximum(moved**2, own) + hidden + outlives**2,
        jnp.where(doubt > ABSENT, doubt + overall, ABSENT),
    )


def rebased(leaks: Leaks | None, L: Array) -> Leaks | None:
    """Leaks of a product whose left factor was multiplied by a lower triangle."""
    if leaks is None:
        return None
    L = _within(jax.lax.stop_gradient(L))
    sample = matmul(_inverse_of_lower(L), matmul(leaks.sample, L))
    diagonal = jnp.abs(jnp.diagonal(L))
    floor = _within(leaks.floor * diagonal[None, :] / diagonal[:, None])
    floor = _not_lost(floor, leaks.floor > 0)
    return leaks._replace(sample=_within(sample), floor=floor)


def of_right(leaks: Leaks | None, R: Array) -> Leaks | None:
    """Leaks once the right factor is rounded, ``right.T = Q R``.

    Row j of it is off by eps of its length, and value i by as much as the inverse of R
    makes of that. It is eps unless matrices far from normal were multiplied since the
    right factor was last diagonal. Directions are in descending order.
    """
    if leaks is None:
        return None
    R = regular(jax.lax.stop_gradient(R))
    moved = matmul(jnp.sum(R**2, axis=0), _inverse(R) ** 2)
    moved = (_NOISE * float(jnp.finfo(R.dtype).eps)) ** 2 * moved
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
    forward = _within(matmul(_inverse_of_lower(L), R[order]))
    backward = _within(matmul(_inverse(R)[:, order], L))
    sample = _within(matmul(_within(matmul(forward, leaks.sample)), backward))
    # So large that it is undecided, so small that its square is finite. The noise of
    # the diagonal is in the variance.
    beyond = 2.0 ** (int(jnp.finfo(R.dtype).maxexp) * 2 // 5)
    floor = jnp.where(eye == 1, 0, jnp.minimum(leaks.floor, beyond))
    squares = _product_of_squares(
        _product_of_squares(forward**2, floor**2), backward**2
    )
    return Leaks(
        sample,
        jnp.sqrt(squares),
        leaks.variance[order] + jnp.diagonal(squares),
        leaks.doubt[order],
    )


def of_factorisation(
    matrix: Array,
    basis: Array,
    lower: Array,
    upper: Array,
    rows: Array,
    columns: Array,
    grown: Array,
    doubt: Array,
) -> Transport:
    """Transport by ``(matrix @ basis)[rows][:, columns] = lower @ upper``.

    Columns in units of 2^grown. That, and `doubt`, are of the basis before its columns
    are put in order.
    """
    row = _exponents_of(upper)
    by_row, column = -row[:, None], grown[columns]
    upper = scaled(upper, by_row)
    lower = _times(lower, _ratios(-row, lower.dtype))
    # Both near one, that their squares are floats.
    away = exponent(jnp.max(jnp.abs(matrix)))
    matrix = _within(scaled(matrix[rows], by_row - away))
    basis = _within(scaled(basis, away - grown[None, :]))[:, columns]
    eps, upper = float(jnp.finfo(upper.dtype).eps), _within(upper)
    # Of the squares: a sum of N roundings is no N times as large as one.
    sums = matmul(_squared(lower), _squared(upper))
    sums = sums + matmul(_squared(matrix), _squared(basis))
    inverse, new, variance = _new(_inverse_of_lower(lower), upper, sums, eps)
    # Where nothing is left of a doubted direction it may be as large as round-off.
    noise = roundoff(len(upper), upper.dtype) * jnp.sqrt(jnp.max(sums, axis=1))
    pivot = jnp.where(jnp.diagonal(upper) == 0, exponent(noise), row)
    doubt = doubt[columns]
    doubt = jnp.where(doubt > ABSENT, doubt + column + pivot, ABSENT)
    return Transport(upper, inverse, new, variance, row, column, doubt)


def unit_of_rows(
    found: Elimination, of_pivots: Array, of_sums: Array, before: Array
) -> Array:
    """(N,) int32, exponents of the units in which the rows of a triangle are kept.

    That of the pivot, raised where the roundings of the row, of its sums in size, or a
    leak `before` from another row would be cut off.
    """
    # Ten bits below the cut, for what is multiplied by them.
    reach = int(jnp.finfo(before.dtype).maxexp) // 2 - 14
    units = jnp.maximum(of_pivots, of_sums - reach)
    before = before[found.rows][:, found.rows]
    is_there = (before != 0) & ~jnp.eye(len(before), dtype=bool)
    known = jnp.where(is_there, exponent(before) + units[None, :], ABSENT)
    return jnp.maximum(units, jnp.max(known, axis=1) - reach)


def of_elimination(
    found: Elimination, upper: Array, size: Array, before: Roundings
) -> tuple[Array, Array, Roundings]:
    """`upper` and `inverse` of a `Transport`, and the roundings, with those before.

    Those `before` are of the matrix that is eliminated, and its rows. `upper` has the
    rows in units of 2^size, and so have all results. What is rounded in columns past
    the rank is no leak, for no row of the triangle makes it: it is `unseen`, and noise
    of the next product.
    """
    by_row = -size[:, None]
    by = _ratios(-size, upper.dtype)
    eps, upper = float(jnp.finfo(upper.dtype).eps), _within(upper)
    lower = _times(found.lower, by)
    known = _times(before.sample[found.rows][:, found.rows], by)
    unseen = before.unseen[found.rows][:, found.columns]
    sums = _within(scaled(found.sums + unseen, by_row))
    lower_inverse = _inverse_of_lower(lower)
    inverse, new, own = _new(lower_inverse, upper, _squared(sums), eps)
    # lower (I + new) upper = (I + known) lower upper.
    turned = _within(matmul(lower_inverse, matmul(known, lower)))
    # Without its diagonal, which is in the variance.
    off = jnp.where(jnp.eye(len(lower), dtype=bool), 0, known)
    moved = _product_of_squares(_squared(lower_inverse), _squared(off)) * _squared(
        lower.T
    )
    variance = before.variance[found.rows] + own + jnp.sum(moved, axis=1)
    # What is past the rank has no pivot, but carries leaks on: as much as it may be.
    noise = roundoff(len(upper), upper.dtype) * sums
    rest = scaled(found.rest, by_row)
    rest = jnp.where(jnp.abs(rest) < noise, noise, rest)
    whole = _within(upper + jnp.where(found.is_rest, rest, 0))
    unseen = jnp.sqrt(_product_of_squares(_squared(lower_inverse), _squared(sums)))
    unseen = jnp.where(found.is_pivot[None, :], 0, unseen)
    rounded = Roundings(turned + new, variance, found.put_back(unseen))
    return whole, inverse, rounded


def _new(
    lower_inverse: Array, upper: Array, squares: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Inverse of the upper triangle, a sample of new leaks and its variance.

    `squares`, (N, N), are those of the sizes of what was summed up in the entries of
    ``lower @ upper``.
    """
    inverse = _inverse(regular(upper))
    # Signs come last: else the noise of an entry may cancel that of another by chance,
    # which the true roundings need not do.
    squares = matmul(_squared(lower_inverse), squares)
    squares = _multipliable(squares, squares)
    sizes = _within(jnp.sqrt(matmul(squares, _squared(inverse))))
    sizes = _NOISE * eps * sizes
    variance = jnp.diagonal(sizes) ** 2 + len(upper) * eps**2
    return inverse, _signed(sizes), variance


def of_multiplied(factors: Array, rows: Array, unit: Array) -> tuple[Array, Array]:
    """Leaks by the rounding of ``left = factors[0] @ factors[1]``, and their variance.

    A factor f is a unit lower triangle whose row k was moved to rows[f, k]. As
    ``matrix left_before = (left - d) U``, new leaks are ``left^-1 d``; their rows are
    in units of 2^unit.
    """
    first, last = factors
    eps, index = float(jnp.finfo(first.dtype).eps), jnp.arange(len(unit))
    whole = matmul(jnp.abs(first), jnp.abs(last))
    # Exact are a product with a one, and a sum of one term. Where two are summed up,
    # its rounding is that of the result, for which they may have cancelled.
    terms = matmul(*((factor != 0).astype(first.dtype) for factor in factors))
    without_ones = factors.at[jnp.arange(2)[:, None], rows, index].set(0)
    inexact = matmul(*jnp.abs(without_ones))
    inexact = inexact + jnp.where(terms == 2, jnp.abs(matmul(first, last)), 0)
    rounded = jnp.where(terms > 2, whole, inexact)

    def inverse(factor, rows):
        return _inverse_of_lower(_within(factor[rows]))[:, jnp.argsort(rows)]

    back = _within(matmul(inverse(last, rows[1]), inverse(first, rows[0])))
    sizes = jnp.sqrt(_product_of_squares(_squared(back), _squared(rounded)))
    sizes = _times(_NOISE * eps * sizes, _ratios(-unit, sizes.dtype))
    return _signed(sizes), jnp.diagonal(sizes) ** 2


def doubt_of(
    found: Elimination,
    row_exponents: Array,
    column_exponents: Array,
    lost: Array,
    leaked: Array,
) -> Array:
    """(N,) int32, below what power of two each direction is that counts as lost.

    `lost`, (N,), is that of rows that were lost before. Columns that were come with
    their doubt for an exponent. `leaked`, (N, N), is how much of the columns may be
    that of others, of what is gone, too: of a column of zeros that may be all.
    """
    rows, columns = row_exponents[found.rows], column_exponents[found.columns]
    noise = roundoff(len(rows), found.sums.dtype) * found.sums
    size = jnp.maximum(jnp.abs(found.rest), noise)
    leaked = leaked[found.columns][:, found.columns]
    size = size + _within(
        sizes_of_products(jnp.where(found.is_rest, size, 0), leaked, matmul)
    )
    # What was made of zeros alone is zero.
    size = jnp.where(size > 0, exponent(size) + 1 + rows[:, None], ABSENT)
    size = jnp.where(rows[:, None] > ABSENT, size, ABSENT)
    size = jnp.maximum(size, lost[found.rows][:, None])
    is_there = (~found.is_pivot & (columns > ABSENT))[None, :] & (size > ABSENT)
    size = jnp.where(is_there, size + columns[None, :], ABSENT)
    return jnp.where(found.is_pivot, ABSENT, jnp.max(size, axis=1))


def dropped_by(found: Elimination) -> Array:
    """(N, N) sizes of which eps is what was taken for zero past the rank.

    To be added to those of the next product: the zero rows hide it, and a small
    direction may consist of nothing else.
    """
    eps = float(jnp.finfo(found.sums.dtype).eps)
    return jnp.where(found.is_rest, jnp.abs(found.rest) / eps + found.sums, 0)


def errors(leaks: Leaks, exponents: Array, values: Array) -> Array:
    """(N,) nats, what each log singular value may be off; inf: undecided.

    Directions, and values, are in descending order.
    """
    N, eps = len(values), float(jnp.finfo(values.dtype).eps)
    is_alive = exponents > ABSENT // 2
    gap = exponents[:, None] - exponents[None, :]
    # Leaks, relative to the direction that they enter.
    off = ~jnp.eye(N, dtype=bool) & is_alive[None, :]
    size = jnp.maximum(jnp.abs(leaks.sample), leaks.floor)
    # Column j counts less in a row of larger scale.
    size = jnp.where(off, size * power_of_two(jnp.minimum(-gap, 0), values.dtype), 0)
    size = _SAFETY * size

    # The diagonal, directions of like size, and the squares of all others.
    both = jnp.maximum(size, size.T)
    near = power_of_two(_NEAR - jnp.abs(gap), values.dtype)
    own = jnp.maximum(jnp.abs(jnp.diagonal(leaks.sample)), jnp.sqrt(leaks.variance))
    own = jnp.where(is_alive, own, 0)
    own = jnp.where(jnp.isnan(own), jnp.inf, own)  # a maximum may pass over NaN
    own = jnp.max(jnp.where(jnp.abs(gap) <= _NEAR, own[None, :], 0), axis=1)
    eta = _SAFETY * (own + 3 * N**0.5 * eps)
    eta = eta + jnp.sum(both * jnp.minimum(near, 1), axis=1)
    eta = eta + jnp.sum(size**2, axis=1) + jnp.sum(size**2, axis=0)

    # Values are sorted, so those of like size may have swapped directions.
    eta = jnp.max(jnp.where(jnp.abs(gap) <= _NEAR, eta[None, :], 0), axis=1)
    # An undecided direction may be arbitrarily small. A smaller one that it leaks into
    # may then consist of that leak alone, and is undecided, too.
    is_noise = ~(eta < _LARGEST) & is_alive  # not >=, or a NaN would pass for decided
    is_below = is_before(N).T & (size > 0)
    eta = jnp.where(jnp.any(is_below & is_noise[None, :], axis=1), jnp.inf, eta)

    # In nats.
    error = -jnp.log1p(-jnp.minimum(eta, _LARGEST))
    error = error + 4 * eps * jnp.abs(values)
    error = jnp.where(eta < _LARGEST, error, jnp.inf)

    # What was taken for annihilated may be as large as its doubt, or next to nothing.
    doubt = jnp.max(leaks.doubt)
    error = jnp.where(exponents <= doubt + _NEAR, jnp.inf, error)
    lost = jnp.sum(leaks.doubt > ABSENT)
    rank = jnp.sum(is_alive)
    is_certain = jnp.arange(N) >= rank + lost
    of_lost = jnp.where(is_certain, 0, jnp.inf)
    error = jnp.where(values == -jnp.inf, of_lost, error)
    return jnp.where(jnp.isnan(values), jnp.nan, error)


def _ratios(exponents: Array, dtype: jnp.dtype) -> Array:
    """(N, N), 2^(e_i - e_j), cut off at twice the range of floats.

    As an outer product of N powers: N^2 of them cost as much as the elimination.
    """
    middle = (jnp.max(exponents) + jnp.min(exponents)) // 2
    reach = int(jnp.finfo(dtype).maxexp) // 2 - 1
    e = jnp.clip(exponents - middle, -reach, reach)
    return power_of_two(e, dtype)[:, None] * power_of_two(-e, dtype)[None, :]


def _exponents_of(upper: Array) -> Array:
    pivots = jnp.diagonal(upper)
    return jnp.where(pivots == 0, 0, exponent(pivots))


def _inverse(upper: Array) -> Array:
    """Inverse of an upper triangle, cut off."""

    def inverse(U):
        N = len(U)
        if N <= _BLOCK:
            eye = jnp.eye(N, dtype=U.dtype)
            return jax.lax.linalg.triangular_solve(U, eye, left_side=True)
        h = N // 2
        first, last = inverse(U[:h, :h]), inverse(U[h:, h:])
        between = -matmul(first, _within(matmul(U[:h, h:], last)))
        above = jnp.concatenate([first, between], axis=1)
        below = jnp.concatenate([jnp.zeros((N - h, h), U.dtype), last], axis=1)
        return jnp.concatenate([above, below])

    return _within(inverse(upper))


def _inverse_of_lower(lower: Array) -> Array:
    """Inverse of a lower triangle, cut off."""
    return _inverse(lower.T).T


def _not_lost(floor: Array, is_there: Array) -> Array:
    """A leak that faded below the range of floats is not an exact zero."""
    tiny = jnp.asarray(jnp.finfo(floor.dtype).tiny, floor.dtype)
    return jnp.where(is_there, jnp.maximum(floor, tiny), floor)


def _times(x: Array, ratios: Array) -> Array:
    return _within(x * ratios)


def _within(x: Array) -> Array:
    """Cut off far beyond what decides, where products are floats; NaN as beyond it."""
    beyond = 2.0 ** (int(jnp.finfo(x.dtype).maxexp) // 2 - 4)
    return jnp.clip(jnp.where(jnp.isnan(x), beyond, x), -beyond, beyond)


def _squared(x: Array) -> Array:
    return _multipliable(x**2, x)


def _multipliable(squares: Array, of: Array) -> Array:
    """Squares, cut off at both ends so that products of them are floats.

    Zero only where `of` is: what underflows is noise, too. In float32 the least is the
    root of tiny, and no product of two underflows. In float64 that is 2^-511, at which
    saturated units would count for more than they are; at 2^-818 they do not, and two
    factors that small are rare.
    """
    info = jnp.finfo(squares.dtype)
    lowest = info.minexp // 2 if squares.dtype == jnp.float32 else info.minexp * 4 // 5
    least, most = 2.0**lowest, 2.0 ** (int(info.maxexp) - 8)
    return jnp.where(of == 0, 0, jnp.clip(squares, least, most))


def _product_of_squares(a: Array, b: Array) -> Array:
    """``a @ b``, cut off: infinity times zero in the next product would be NaN."""
    return jnp.minimum(matmul(a, b), 2.0 ** (int(jnp.finfo(a.dtype).maxexp) - 8))


def _signed(sizes: Array) -> Array:
    """Numbers of about these sizes, signs and factors taken from their bits.

    Equal sizes in equal places have equal noise, for a step that repeats rounds alike.
    """
    # The multiplier is Knuth's (TAOCP 6.4), the other that of MurmurHash's last mix.
    index = jnp.arange(sizes.size, dtype=jnp.uint32).reshape(sizes.shape)
    bits = jax.lax.bitcast_convert_type(sizes.astype(jnp.float32), jnp.uint32)
    bits = bits + index * jnp.uint32(2654435769)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0x85EBCA6B)
    bits = bits ^ (bits >> 16)
    factor = 0.5 + (bits & 1023).astype(sizes.dtype) / 1024
    return jnp.where(bits >> 31 == 1, -factor, factor) * sizes
