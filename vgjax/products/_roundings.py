"""What one push rounds: new leaks, their variance, and what is doubted.

`vgjax.products._leaks` derives what the terms are.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from vgjax._linalg import exponent, matmul, regular, roundoff, scaled
from vgjax._tolerances import TYPICAL_ROUNDING
from vgjax.products._elimination import ABSENT, Elimination, sizes_of_products
from vgjax.products._sizes import (
    inverse_of_lower,
    inverse_of_upper,
    multipliable,
    product_of_squares,
    ratios_of,
    signed,
    squared,
    times,
    within,
)


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
    lower = times(lower, ratios_of(-row, lower.dtype))
    # Both near one, that their squares are floats.
    away = exponent(jnp.max(jnp.abs(matrix)))
    matrix = within(scaled(matrix[rows], by_row - away))
    basis = within(scaled(basis, away - grown[None, :]))[:, columns]
    eps, upper = float(jnp.finfo(upper.dtype).eps), within(upper)
    # Of the squares: a sum of N roundings is no N times as large as one.
    sums = matmul(squared(lower), squared(upper))
    sums = sums + matmul(squared(matrix), squared(basis))
    inverse, new, variance = _new(inverse_of_lower(lower), upper, sums, eps)
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
    by = ratios_of(-size, upper.dtype)
    eps, upper = float(jnp.finfo(upper.dtype).eps), within(upper)
    lower = times(found.lower, by)
    known = times(before.sample[found.rows][:, found.rows], by)
    unseen = before.unseen[found.rows][:, found.columns]
    sums = within(scaled(found.sums + unseen, by_row))
    lower_inverse = inverse_of_lower(lower)
    inverse, new, own = _new(lower_inverse, upper, squared(sums), eps)
    # lower (I + new) upper = (I + known) lower upper.
    turned = within(matmul(lower_inverse, matmul(known, lower)))
    # Without its diagonal, which is in the variance.
    off = jnp.where(jnp.eye(len(lower), dtype=bool), 0, known)
    moved = product_of_squares(squared(lower_inverse), squared(off)) * squared(lower.T)
    variance = before.variance[found.rows] + own + jnp.sum(moved, axis=1)
    # What is past the rank has no pivot, but carries leaks on: as much as it may be.
    noise = roundoff(len(upper), upper.dtype) * sums
    rest = scaled(found.rest, by_row)
    rest = jnp.where(jnp.abs(rest) < noise, noise, rest)
    whole = within(upper + jnp.where(found.is_rest, rest, 0))
    unseen = jnp.sqrt(product_of_squares(squared(lower_inverse), squared(sums)))
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
    inverse = inverse_of_upper(regular(upper))
    # Signs come last: else the noise of an entry may cancel that of another by chance,
    # which the true roundings need not do.
    squares = matmul(squared(lower_inverse), squares)
    squares = multipliable(squares, squares)
    sizes = within(jnp.sqrt(matmul(squares, squared(inverse))))
    sizes = TYPICAL_ROUNDING * eps * sizes
    variance = jnp.diagonal(sizes) ** 2 + len(upper) * eps**2
    return inverse, signed(sizes), variance


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
        return inverse_of_lower(within(factor[rows]))[:, jnp.argsort(rows)]

    back = within(matmul(inverse(last, rows[1]), inverse(first, rows[0])))
    sizes = jnp.sqrt(product_of_squares(squared(back), squared(rounded)))
    sizes = times(TYPICAL_ROUNDING * eps * sizes, ratios_of(-unit, sizes.dtype))
    return signed(sizes), jnp.diagonal(sizes) ** 2


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
    size = size + within(
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


def _exponents_of(upper: Array) -> Array:
    pivots = jnp.diagonal(upper)
    return jnp.where(pivots == 0, 0, exponent(pivots))
