"""Gaussian elimination with complete pivoting, of matrices whose scales are integers.

Rows and columns carry powers of two that never enter the arithmetic: they commute with
Schur complements, and only say which pivot comes next. An entry loses no more than the
round-off of the products that it is made of, so what is zero stays zero and what is
tiny stays exact, where reflections would add eps times the row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vgjax._linalg import exponent, power_of_two, roundoff, scaled, varying_like
from vgjax._tolerances import OVERTAKES

# Exponent of a row, a column or a direction that is not there: int32 has no -inf. Half
# of it is the limit, for what is annihilated may drift upwards.
ABSENT = -(2**30)


class Elimination(NamedTuple):
    """``matrix[rows][:, columns] = lower @ upper``; past the rank the identity, 0."""

    lower: Array  # (N, N) unit lower triangle
    upper: Array  # (N, N) upper triangle; the rows past the rank are zero
    rows: Array  # (N,)
    columns: Array  # (N,)
    is_pivot: Array  # (N,) bool, in the order of the pivots
    rest: Array  # (N, N) in that order, what is left where there is no pivot
    sums: Array  # (N, N) in that order, of the sizes that each entry was made from

    @property
    def is_rest(self) -> Array:
        """(N, N), which entries lie past the rank, in their row and their column."""
        return ~self.is_pivot[:, None] & ~self.is_pivot[None, :]

    def put_back(self, matrix: Array) -> Array:
        """Return a matrix in that order with its columns as they were before."""
        return jnp.zeros_like(matrix).at[:, self.columns].set(matrix)


def eliminated(
    matrix: Array, sums: Array, row_exponents: Array, column_exponents: Array
) -> Elimination:
    """Factor ``diag(2^row_exponents) @ matrix @ diag(2^column_exponents)``.

    The next pivot is the largest entry, scales counted, that is more than round-off of
    what it was made from: of `sums`, (N, N), and what was subtracted since. N rank-one
    updates one after the other, O(N^3).

    Source: G. W. Stewart, Matrix Algorithms I (1998), section 3.4; that scales only
    choose the pivots is in Demmel et al., Linear Algebra Appl. 299, 21 (1999).
    """
    N = len(matrix)
    index = jnp.arange(N, dtype=jnp.int32)
    never = jnp.iinfo(jnp.int32).min
    smallest, eps = roundoff(N, matrix.dtype), float(jnp.finfo(matrix.dtype).eps)

    def eliminate(k, carry):
        A, sums, rows, columns, rank = carry
        ahead = (index >= k)[:, None] & (index >= k)[None, :]
        weight_of_row, weight_of_column = row_exponents[rows], column_exponents[columns]
        there = (weight_of_row > ABSENT)[:, None] & (weight_of_column > ABSENT)[None, :]
        live = ahead & there & (jnp.abs(A) > smallest * sums)
        score = exponent(A) + weight_of_row[:, None] + weight_of_column[None, :]
        score = jnp.where(live, score, never)
        found = jnp.max(score) > never
        at = jnp.argmax(score).astype(jnp.int32)
        row, column = jnp.where(found, at // N, k), jnp.where(found, at % N, k)
        by_row, by_column = _swapped(index, k, row), _swapped(index, k, column)
        A, sums = A[by_row][:, by_column], sums[by_row][:, by_column]
        rows, columns = rows[by_row], columns[by_column]

        below = index > k
        pivot = jnp.where(found, A[k, k], 1)
        # Near one: the square of the pivot, in the derivative, is beyond the range.
        e = -exponent(pivot)
        factor = jnp.where(below & found, scaled(A[:, k], e) / scaled(pivot, e), 0)
        # What is above the pivot, scales counted, is round-off that was passed over: in
        # its column, and its row. It is taken for zero, and for round-off of so much.
        by_row = _weight(row_exponents[rows], k, A.dtype)
        by_column = _weight(column_exponents[columns], k, A.dtype)
        following = jnp.where(below, A[k], 0)
        is_above = jnp.abs(factor) * by_row > OVERTAKES
        is_before = jnp.abs(following) * by_column > OVERTAKES * jnp.abs(pivot)
        factor = jnp.where(is_above, 0, factor)
        following = jnp.where(is_before, 0, following)
        lost_above = jnp.where(is_above, jnp.abs(A[:, k]) / eps, 0)
        lost_before = jnp.where(is_before, jnp.abs(A[k]) / eps, 0)
        row_of_pivot = jnp.where(is_before & found, 0, A[k])
        A = A - jnp.outer(factor, following)
        sums = sums + sizes_of_products(
            factor[:, None], following[None, :], jnp.multiply
        )
        sums = sums.at[:, k].set(jnp.maximum(sums[:, k], lost_above))
        sums = sums.at[k].set(jnp.maximum(sums[k], lost_before))
        A = A.at[k].set(row_of_pivot)
        A = A.at[:, k].set(jnp.where(below & found, factor, A[:, k]))
        return A, sums, rows, columns, rank + found.astype(rank.dtype)

    start = (matrix, sums, index, index, jnp.zeros((), jnp.int32))
    start = varying_like(start, matrix, sums, row_exponents, column_exponents)
    A, sums, rows, columns, rank = jax.lax.fori_loop(
        np.int32(0), np.int32(N), eliminate, start
    )
    is_pivot = index < rank
    eye = jnp.eye(N, dtype=A.dtype)
    lower = jnp.where(is_pivot[None, :], jnp.tril(A, -1), 0) + eye
    upper = jnp.where(is_pivot[:, None], jnp.triu(A), 0)
    found = Elimination(lower, upper, rows, columns, is_pivot, A, sums)
    return found._replace(rest=jnp.where(found.is_rest, A, 0))


def sizes_of_products(
    a: Array, b: Array, multiply: Callable[[Array, Array], Array]
) -> Array:
    """``multiply(|a|, |b|)``, positive wherever two nonzero factors met.

    Where all products underflow each counts as tiny / eps, so that eps times the sum is
    still a normal float. Otherwise the entry would pass for an exact zero.
    """
    sums = multiply(jnp.abs(a), jnp.abs(b))
    terms = multiply((a != 0).astype(a.dtype), (b != 0).astype(a.dtype))
    info = jnp.finfo(a.dtype)
    least = terms * (float(info.tiny) / float(info.eps))
    return jnp.where(sums == 0, least, sums)


def _weight(exponents: Array, k: Array, dtype: jnp.dtype) -> Array:
    """(N,) 2^(e - e_k), cut off where it decides."""
    return power_of_two(jnp.minimum(exponents - exponents[k], 64), dtype)


def _swapped(index: Array, a: int | Array, b: Array) -> Array:
    return jnp.where(index == a, b, jnp.where(index == b, a, index))
