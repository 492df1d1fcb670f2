"""Factorisations of a matrix times a product: by LU, and with more care where need be.

The left factor of a product is made by elimination, which rounds every entry by its own
size. A plain LU factorisation suffices where columns and pivots are of like size. Where
they are not, or rank is lost, two eliminations with complete pivoting take its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import (
    any_in_batch,
    descending,
    exponent,
    is_before,
    lu,
    matmul,
    power_of_two,
    roundoff,
    scaled,
    unpacked,
    varying_like,
)
from vgjax._tolerances import CARE_BITS, DISORDER_BITS, UNEVEN_COLUMNS, WEAK_PIVOT
from vgjax.products._elimination import ABSENT, eliminated, sizes_of_products
from vgjax.products._leaks import no_leaks
from vgjax.products._roundings import (
    Roundings,
    Transport,
    doubt_of,
    dropped_by,
    of_elimination,
    of_factorisation,
    of_multiplied,
    unit_of_rows,
)

if TYPE_CHECKING:
    from vgjax.products.graded import GradedProduct

LARGEST = 2**29  # of the exponents that mean something, in bits


class Factors(NamedTuple):
    """What ``matrix @ basis @ diag(2^old)`` is, its columns taken in some order.

    ``(matrix @ basis)[:, columns] @ diag(2^old[columns]) = left @ diag(2^exponents) @
    M``.
    """

    left: Array  # (N, N) well-conditioned
    exponents: Array  # (N,) int32
    M: Array  # (N, N) upper triangular, near one
    columns: Array  # (N,)
    transport: Transport | None  # of what rounding may have done, if it is wanted


class Image(NamedTuple):
    """Where a matrix takes the columns of a basis.

    ``raw @ diag(2^old) = even @ diag(2^scale)``.
    """

    raw: Array  # (N, N), matrix @ basis
    even: Array  # (N, N), the same with its columns brought near one
    scale: Array  # (N,) int32
    row_size: Array  # (N,) largest entries of the rows of `even`


def image_of(matrix: Array, basis: Array, exponents: Array) -> Image:
    raw = matmul(matrix, basis)
    even, scale = _columns_near_one(raw, exponents)
    return Image(raw, even, scale, jnp.max(jnp.abs(even), axis=1))


class Quick(NamedTuple):
    """Factors by an LU factorisation with partial pivoting, and how good they are."""

    factors: Factors
    pivots: Array  # (N,) the diagonal of U
    M_row: Array  # (N,) largest entries of the rows of M
    row_size: Array  # (N,) of the image, its rows in the order of the pivots


def factored_plainly(matrix: Array, image: Image, product: GradedProduct) -> Quick:
    columns, even = _sorted_if_needed(image)
    packed, rows = lu(even)
    lower, upper = unpacked(packed)
    left = jnp.zeros_like(lower).at[rows].set(lower)
    pivots = jnp.diagonal(upper)
    scale = image.scale[columns]
    exponents = scale + exponent(pivots)
    M = _ratios(upper, scale, exponents)
    transport = None
    if product.leaks is not None:
        grown = image.scale - product.exponents
        transport = of_factorisation(
            matrix,
            product.left,
            lower,
            upper,
            rows,
            columns,
            grown,
            product.leaks.doubt,
        )
    factors = Factors(left, exponents, M, columns, transport)
    row_size = image.row_size[rows]
    return Quick(factors, pivots, jnp.max(jnp.abs(M), axis=1), row_size)


def _sorted_if_needed(image: Image) -> tuple[Array, Array]:
    """Sort columns by scale, if they are far out of order, and say how.

    In float32 always: there most steps ask for it.
    """
    scale = image.scale
    if image.even.dtype == jnp.float32:
        columns = descending(scale).astype(jnp.int32)
        return columns, image.even[:, columns]
    # All pairs: a running minimum takes ten times as long to compile.
    higher = scale[None, :] > scale[:, None] + DISORDER_BITS
    uneven = jnp.any(higher & is_before(len(scale)))

    def in_order(even):
        columns = jnp.where(uneven, descending(scale).astype(jnp.int32), index)
        return columns, even[:, columns]

    index = varying_like(jnp.arange(len(scale), dtype=jnp.int32), image)
    some = any_in_batch(uneven)
    return jax.lax.cond(some, in_order, lambda even: (index, even), image.even)


def delicacy(
    matrix: Array,
    basis: Array,
    image: Image,
    quick: Quick,
    alive: Array | None = None,
) -> Array:
    """(N,) What makes it necessary to factor again with more care, if anything.

    `alive` None: all columns are.
    """
    N, dtype, row_size = matrix.shape[0], matrix.dtype, quick.row_size
    eps = float(jnp.finfo(dtype).eps)
    # Round-off in a pivot is magnified by small ones before it, and counts for more in
    # a column that is small because it cancelled. Taken too large this costs time.
    # A row of zeros has an exact zero for its pivot, which is no round-off.
    share = jnp.abs(quick.pivots) / jnp.where(row_size > 0, row_size, 1)
    share = jnp.where(row_size > 0, share, 1)
    before = jnp.min(jnp.where(is_before(N), share[:, None], 1), axis=0)
    column_size = jnp.max(jnp.abs(matrix), axis=0)
    largest = jnp.max(column_size)
    reach = jnp.where(largest > 0, largest, 1) * jnp.max(jnp.abs(basis), axis=0)
    left_over = jnp.max(jnp.abs(image.raw), axis=0) / reach
    left_over = jnp.minimum(left_over, 1)[quick.factors.columns]
    noise = 2 * roundoff(N, dtype) / before / left_over
    weak = share < jnp.minimum(noise, eps**WEAK_PIVOT)
    weak = weak if alive is None else weak & alive
    graded = (column_size > 0) & (column_size < eps**UNEVEN_COLUMNS * largest)
    return weak | graded | (quick.M_row > 2**CARE_BITS)


def factored(matrix: Array, product: GradedProduct) -> tuple[Factors, Array]:
    """Factor ``matrix @ left @ diag(2^exponents)``, with as much care as it takes.

    Returns the factors, and whether it took any.
    """
    basis, exponents = product.left, product.exponents
    image = image_of(matrix, basis, exponents)
    quick = factored_plainly(matrix, image, product)
    R, columns = quick.factors.M, quick.factors.columns
    alive = (exponents > -LARGEST)[columns]
    rows = alive & (quick.pivots != 0)
    M = jnp.where(rows[:, None] & alive[None, :], R, 0)
    quick = quick._replace(
        factors=quick.factors._replace(M=M), M_row=jnp.max(jnp.abs(M), axis=1)
    )
    # A direction that is annihilated here may live on in what had leaked from it.
    dies = alive & (quick.pivots == 0)
    delicate = jnp.any(delicacy(matrix, basis, image, quick, alive) | dies)

    def with_care(quick):
        slow = _factored_with_care(matrix, product)
        return jax.tree.map(lambda s, q: jnp.where(delicate, s, q), slow, quick)

    some = any_in_batch(delicate)
    return jax.lax.cond(some, with_care, lambda q: q, quick.factors), delicate


def _factored_with_care(matrix: Array, product: GradedProduct) -> Factors:
    """Factor for a matrix with columns of many sizes, or one that loses rank.

    ``matrix @ basis`` would mix the columns of the matrix and round the small ones
    away. Its own elimination first turns their sizes into sizes of rows, which the
    product with the basis keeps, row by row.
    """
    N, known = len(matrix), product.leaks

    def stage(carry, basis_and_exponents):
        left, factor, dropped, unit, is_there, rounded, lost = carry
        basis, exponents, doubted, leaked = basis_and_exponents
        image = matmul(factor, basis)
        # What the last elimination dropped is zero in `factor`; here it is noise.
        sums = sizes_of_products(jnp.abs(factor) + dropped, basis, matmul)
        at = jnp.where(is_there, unit, ABSENT)
        found = eliminated(image, sums, at, exponents)
        rows = found.rows
        # Scales of rows apart: pivots near one, or below where noise is larger.
        largest = jnp.max(found.sums, axis=1)
        of_sums = jnp.where(largest == 0, 0, exponent(largest))
        size = jnp.where(found.is_pivot, exponent(jnp.diagonal(found.upper)), of_sums)
        if known is not None:
            size = unit_of_rows(found, size, of_sums, rounded.sample)
        upper = scaled(found.upper, -size[:, None])
        lower = found.lower * gaps(at[rows], upper.dtype)
        lower = jnp.zeros_like(lower).at[rows].set(lower)
        left = matmul(left, lower)
        seen = None
        if known is not None:
            unseen = sizes_of_products(rounded.unseen, basis, matmul)
            rounded = rounded._replace(unseen=unseen)
            turn, inverse, rounded = of_elimination(found, upper, size, rounded)
            lost = doubt_of(found, at, doubted, lost, leaked)
            seen = turn, inverse, lower, rows
        factor = found.put_back(upper)
        dropped = found.put_back(scaled(dropped_by(found), -size[:, None]))
        unit = unit[rows] + size
        carry = (left, factor, dropped, unit, found.is_pivot, rounded, lost)
        return carry, (found.columns, seen)

    eye, nothing = jnp.eye(N, dtype=matrix.dtype), jnp.zeros_like(matrix)
    level, exponents = jnp.zeros(N, jnp.int32), present(product.exponents)
    rounded, lost, doubted, leaked = (), None, exponents, nothing
    if known is not None:
        leaked = jnp.maximum(jnp.abs(known.sample), known.floor)
        none = no_leaks(N, matrix.dtype)
        rounded, lost = Roundings(none.sample, none.variance, nothing), none.doubt
        doubted = jnp.maximum(exponents, known.doubt)
    start = (eye, matrix, nothing, level, jnp.ones(N, bool), rounded, lost)
    # The matrix itself, then its product with the basis: one loop, compiled once.
    stages = (
        (eye, level, level, nothing),
        (product.left, exponents, doubted, leaked),
    )
    stages = jax.tree.map(lambda *both: jnp.stack(both), *stages)
    start, stages = varying_like((start, stages), matrix, product)
    carry, (columns, seen) = jax.lax.scan(stage, start, stages)
    left, upper, _, unit, is_there, rounded, lost = carry
    columns = columns[1]
    upper, scale = upper[:, columns], exponents[columns]
    there = is_there[:, None] & (scale > ABSENT)[None, :]
    M = jnp.where(there, _ratios(upper, scale, scale), 0)
    transport = None
    if seen is not None:
        (_, turn), (_, inverse), factors, rows = seen
        sample, own = of_multiplied(factors, rows, unit)
        sample, own = rounded.sample + sample, rounded.variance + own
        transport = Transport(turn, inverse, sample, own, unit, level, lost)
    exponents = jnp.where(is_there, unit + scale, ABSENT)
    return Factors(left, exponents, M, columns, transport)


def present(exponents: Array) -> Array:
    """The same, of what was annihilated exactly `ABSENT`."""
    return jnp.where(exponents > -LARGEST, exponents, ABSENT)


def gaps(exponents: Array, dtype: jnp.dtype) -> Array:
    """(N, N), 2 to what each of some exponents is above every other, cut off."""
    return power_of_two(exponents[:, None] - exponents[None, :], dtype)


def scaled_triangle(R: Array, exponents: Array) -> tuple[Array, Array]:
    """Exponents d and M with ``R diag(2^exponents) = diag(2^d) M``, M near one."""
    new = exponents + exponent(jnp.diagonal(R))
    present = exponents > -LARGEST
    rows = present & (jnp.diagonal(R) != 0)
    M = _ratios(R, exponents, new)
    return new, jnp.where(rows[:, None] & present[None, :], M, 0)


def _ratios(R: Array, columns: Array, rows: Array) -> Array:
    """Upper triangle ``diag(2^-rows) R diag(2^columns)``."""
    return jnp.triu(R) * power_of_two(columns[None, :] - rows[:, None], R.dtype)


def _columns_near_one(matrix: Array, exponents: Array) -> tuple[Array, Array]:
    size = jnp.max(jnp.abs(matrix), axis=0)
    # A column of zeros has a derivative: it keeps its scale.
    e = jnp.where(size == 0, 0, exponent(size))
    return scaled(matrix, -e[None, :]), exponents + e
