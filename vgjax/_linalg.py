"""Dense linear algebra on which every other module stands.

Products at full precision, scaling by exact powers of two, sums that do not
forget, and QR factorisations that keep small rows and reveal the rank.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from vgjax._tolerances import ROUNDOFF


def matmul(a: Array, b: Array) -> Array:
    """``a @ b`` without TF32 or bfloat16, whatever the device's default."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def add_compensated(high: Array, low: Array, x: Array) -> tuple[Array, Array]:
    """Add x to the unevaluated sum ``high + low`` (Knuth's two-sum, TAOCP 4.2.2).

    Over 1e6 steps a plain sum of logs loses 1e-8 nats; this one does not.
    """
    total = high + x
    virtual = total - high
    error = (high - (total - virtual)) + (x - virtual)
    return total, jnp.where(jnp.isfinite(total), low + error, 0)


def exponent(x: Array) -> Array:
    """Integer e with ``2^e <= |x| < 2^(e+1)``.

    The least exponent for zero and subnormals, the largest for NaN and infinity.
    Reads the bits: `jnp.frexp` costs 7 ns an element, twenty times as much.
    """
    info = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(x, _integer_of(x.dtype))
    field = (bits >> info.nmant) & (2 ** (info.bits - info.nmant - 1) - 1)
    return field.astype(jnp.int32) - (info.maxexp - 1)


def power_of_two(e: Array, dtype: jnp.dtype) -> Array:
    """``2^e`` for integer e, to the last bit.

    Below the normal range 0, above it the largest power; `scaled` reaches further.
    """
    info = jnp.finfo(dtype)
    bias = info.maxexp - 1
    field = jnp.clip(e + bias, 0, 2 * bias).astype(_integer_of(dtype))
    return jax.lax.bitcast_convert_type(field << info.nmant, dtype)


def scaled(x: Array, e: Array) -> Array:
    """``x 2^e``, by two factors: one, for the largest x, would be too small to hold."""
    half = e // 2
    return x * power_of_two(half, x.dtype) * power_of_two(e - half, x.dtype)


def angle_to_span(x: Array, basis: Array) -> Array:
    """Angle, radians, between a vector (N,) and the span of columns (N, k).

    The columns are orthonormal, or zero. NaN for the zero vector.
    """
    along = matmul(x, basis)
    # By the tangent: the cosine of a small angle is 1.
    across = jnp.linalg.norm(x - matmul(basis, along))
    along = jnp.linalg.norm(along)
    return jnp.where(along + across > 0, jnp.arctan2(across, along), jnp.nan)


def log_abs_det_of_regular(matrix: Array) -> Array:
    """``log |det|`` of a finite matrix far from singular, its columns of like size.

    Rows are brought near one: of rows of many sizes LU would pivot by size alone.
    """
    e = exponent(jnp.max(jnp.abs(matrix), axis=1))
    pivots = jnp.diagonal(jax.lax.linalg.lu(scaled(matrix, -e[:, None]))[0])
    bits = jnp.sum(e).astype(matrix.dtype)
    return jnp.sum(jnp.log(jnp.abs(pivots))) + bits * math.log(2)


def log_abs_det(matrix: Array) -> Array:
    """``log |det|`` of a square matrix; -inf if it is singular, with gradient 0 there.

    Columns and rows are brought near one: neither their sizes nor the determinant have
    to fit into a float, and pivots are chosen by sizes that mean something.
    """
    size = jnp.where(matrix == 0, -(2**14), exponent(matrix))
    columns = jnp.max(size, axis=0)[None, :]
    # In integers: a matrix scaled by columns alone may have rows that underflow.
    rows = jnp.max(size - columns, axis=1)[:, None]
    bits = (jnp.sum(columns) + jnp.sum(rows)).astype(matrix.dtype)
    found = _log_abs_det_near_one(scaled(matrix, -columns - rows))
    # LAPACK makes -inf of an infinity.
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, found + bits * math.log(2), jnp.nan)


@jax.custom_jvp
def _log_abs_det_near_one(matrix: Array) -> Array:
    """``log |det|`` by LU, where a pivot that others cancelled to round-off is zero.

    Fused multiply-adds leave round-off instead of 0, even where rows are equal. What
    was subtracted from a pivot, |L| |U|, says how large it may be. The factor is a
    heuristic: below that of `roundoff`, since one small pivot in 1e5 factors must not
    be taken for 0, and 1 + 4 eps beside ones is none. Errors of a few more units, which
    one in twenty singular matrices has from N = 8 on, pass for a small determinant.
    """
    N, eps = len(matrix), float(jnp.finfo(matrix.dtype).eps)
    factors = jnp.abs(jax.lax.linalg.lu(matrix)[0])
    pivots = jnp.diagonal(factors)
    subtracted = jnp.sum(jnp.tril(factors, -1) * jnp.triu(factors, 1).T, axis=1)
    singular = jnp.any(pivots <= min(N**2 / 2, 8.0) * eps * subtracted)
    return jnp.where(singular, -jnp.inf, jnp.sum(jnp.log(pivots)))


@_log_abs_det_near_one.defjvp
def _log_abs_det_near_one_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    found = _log_abs_det_near_one(matrix)
    singular = found == -jnp.inf
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)
    safe = jnp.where(singular, eye, matrix)
    tangent = jnp.trace(jnp.linalg.solve(safe, change))
    return found, jnp.where(singular, 0, tangent)


def near_one(matrix: Array) -> tuple[Array, Array]:
    """The matrix times ``2^-e``, and e, 0 unless its entries are far from one.

    LAPACK rescales matrices beyond some 2^(+-456) (float32: 2^(+-37)) by itself, and
    `jnp.linalg.eig` does not undo it. No closer to one than that: entries far below
    the largest, which count where they are the other half of a cycle, would underflow.
    """
    info = jnp.finfo(matrix.dtype)
    limit = int(info.maxexp) // 2 - info.nmant - 4
    size = exponent(jnp.max(jnp.abs(matrix)))
    e = size - jnp.clip(size, -limit, limit)
    return scaled(matrix, -e), e


def _integer_of(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype(f"int{jnp.finfo(dtype).bits}")


@custom_vmap
def any_in_batch(flag: Array) -> Array:
    """Whether the flag is set for any member of the batch that `vmap` runs.

    `lax.cond` on the answer stays a branch under `vmap`; on the flag itself it
    would become a select that pays for both sides at every step.
    """
    return flag


@any_in_batch.def_vmap
def _any_in_batch_rule(axis_size, in_batched, flag):
    del axis_size, in_batched
    return any_in_batch(jnp.any(flag, axis=0)), False


def varying_like(tree: Any, *references: Any) -> Any:
    """`tree`, of the type that a computation on the references has in `shard_map`.

    There a loop's carry, and both sides of a branch, must vary over the same axes of
    the mesh from the start on, and a constant varies over none. Elsewhere it is `tree`.
    """
    axes = sorted(set().union(*map(_varying, jax.tree.leaves(references))), key=str)

    def varied(leaf):
        new = tuple(axis for axis in axes if axis not in _varying(leaf))
        return jax.lax.pcast(leaf, new, to="varying") if new else leaf

    return jax.tree.map(varied, tree) if axes else tree


def is_varying(leaf: Any) -> bool:
    """Whether an array varies over a mesh, inside of `jax.shard_map`."""
    return bool(_varying(leaf))


def _varying(leaf: Any) -> frozenset:
    """Axes of a mesh over which an array inside of `jax.shard_map` varies."""
    # No public name yet: JAX 0.10 and 0.12 have it here.
    manual = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return getattr(manual, "varying", frozenset())


def is_before(N: int) -> Array:
    """(N, N), whether i < j: for running sums and minima of few numbers.

    `jnp.cumsum` and its kin take four times as long to compile.
    """
    index = jnp.arange(N)
    return index[:, None] < index[None, :]


def descending(values: Array) -> Array:
    """Indices that sort `values`, largest first; ties keep their order.

    JAX reverses three arrays around a sort with `descending=True`: more to compile.
    """
    return jnp.argsort(-values, stable=True)


@jax.custom_jvp
def qr(matrix: Array) -> tuple[Array, Array]:
    """Reduced QR, whose derivative stays finite where R has a zero on its diagonal.

    There it is that of the columns before; JAX's own rule divides by the zero, and
    makes NaN of a cotangent that is zero, too.
    """
    Q, R = jnp.linalg.qr(matrix)
    return Q, R


@qr.defjvp
def _qr_rule(primals, tangents):
    (matrix,), (change,) = primals, tangents
    Q, R = qr(matrix)
    empty = jnp.diagonal(R) == 0
    regular = R + jnp.diag(empty.astype(R.dtype))
    change = jax.lax.linalg.triangular_solve(regular, change)  # change R^-1
    along = matmul(Q.T, change)
    turn = jnp.tril(along, -1)
    turn = turn - turn.T
    # `along` undoes `regular`; only the turn of Q sees the zero.
    dR = matmul(along, regular) - matmul(turn, R)
    return (Q, R), (matmul(Q, turn - along) + change, dR)


def lu(matrix: Array) -> tuple[Array, Array]:
    """LU factorisation with partial pivoting, ``matrix[rows] = L @ U``.

    Returns L and U in one matrix, as LAPACK packs them (`unpacked`), and the rows. The
    derivative stays finite where U has a zero on its diagonal: JAX's own divides by it.
    """
    packed, rows = _lu(matrix)
    return packed, rows.astype(jnp.int32)


@jax.custom_jvp
def _lu(matrix: Array) -> tuple[Array, Array]:
    # The rows as floats: in `shard_map` there is no tangent for whole numbers.
    packed, _, rows = jax.lax.linalg.lu(matrix)
    return packed, rows.astype(matrix.dtype)


@_lu.defjvp
def _lu_rule(primals, tangents):
    (matrix,), (change,) = primals, tangents
    packed, rows = _lu(matrix)
    L, U = unpacked(packed)
    U = regular(U)
    solve = jax.lax.linalg.triangular_solve
    along = solve(U, change[rows.astype(jnp.int32)])  # change U^-1
    along = solve(L, along, left_side=True, lower=True, unit_diagonal=True)
    change = matmul(L, jnp.tril(along, -1)) + matmul(jnp.triu(along), U)
    return (packed, rows), (change, 0 * rows)


def regular(upper: Array) -> Array:
    """The same upper triangle with ones for the zeros on its diagonal."""
    return upper + jnp.diag((jnp.diagonal(upper) == 0).astype(upper.dtype))


def unpacked(packed: Array) -> tuple[Array, Array]:
    """L, with ones on its diagonal, and U of `lu`."""
    eye = jnp.eye(*packed.shape, dtype=packed.dtype)
    return jnp.tril(packed, -1) + eye, jnp.triu(packed)


@jax.custom_jvp
def without_derivative_if(flag: Array, x: Array) -> Array:
    """`x`, with a derivative of NaN where the flag is set: unknown, and not zero."""
    del flag
    return x


@without_derivative_if.defjvp
def _without_derivative_if_rule(primals, tangents):
    (flag, x), (_, change) = primals, tangents
    return x, change * jnp.where(flag, jnp.nan, jnp.ones((), x.dtype))


def row_sorted_qr(matrix: Array) -> tuple[Array, Array, Array]:
    """Q, R and the sizes of the rows, taken from largest to smallest.

    In this order the relative accuracy of small rows survives (Cox & Higham,
    BIT 38, 34 (1998)); LAPACK takes them as they come and loses it.
    """
    size = jnp.max(jnp.abs(matrix), axis=1)
    rows = descending(size)
    Q, R = qr(matrix[rows])
    return jnp.zeros_like(Q).at[rows].set(Q), R, size[rows]


class PivotedQR(NamedTuple):
    """``matrix[:, columns] = Q @ R``, with what is only round-off set to zero."""

    Q: Array  # (N, N) orthogonal
    R: Array  # (N, N) upper triangular; the rows past the rank are exactly zero
    columns: Array  # (N,) the pivoting


def roundoff(N: int, dtype: jnp.dtype) -> float:
    """Relative size below which a number that N others cancelled to is round-off."""
    return ROUNDOFF * N**0.5 * float(jnp.finfo(dtype).eps)


def pivoted_qr(matrix: Array, weight: Array, noise: Array) -> PivotedQR:
    """QR with rows sorted and columns pivoted, revealing the rank.

    The next pivot is the column of largest ``weight + exponent of its residual``.
    An entry that is at most `noise`, (N, N), counts as zero, and a column of such
    entries is never pivoted on. Plain JAX, N reflections one after
    the other: LAPACK's `geqp3` has no rule on TPU, and weighs all columns alike.

    Source: Powell & Reid (1968), as analysed by Cox & Higham, BIT 38, 34 (1998).
    """
    N = matrix.shape[0]
    index = jnp.arange(N)
    rows = descending(jnp.max(jnp.abs(matrix), axis=1))
    never = jnp.iinfo(jnp.int32).min

    def reflect(k, carry):
        A, noise, Q, columns, rank = carry
        ahead = index >= k
        residual = jnp.where(ahead[:, None] & (jnp.abs(A) > noise), jnp.abs(A), 0)
        size = jnp.max(residual, axis=0)
        score = jnp.where(ahead & (size > 0), exponent(size) + weight[columns], never)
        alive = jnp.max(score) > never
        pivot = jnp.where(alive, jnp.argmax(score), k)
        swap = jnp.where(index == k, pivot, jnp.where(index == pivot, k, index))
        A, noise, columns = A[:, swap], noise[:, swap], columns[swap]

        x = jnp.where(ahead & alive, A[:, k] / jnp.where(alive, size[pivot], 1), 0)
        length = jnp.sqrt(jnp.sum(jnp.where(alive, x**2, 1)))
        # x[k] and the length with one sign: the other reflection loses small rows.
        v = x + jnp.where((index == k) & alive, jnp.copysign(length, x[k]), 0)
        tau = 2 / jnp.where(alive, jnp.sum(v**2), 1)
        A = A - jnp.outer(tau * v, matmul(v, A))
        Q = Q - jnp.outer(matmul(Q, v), tau * v)
        return A, noise, Q, columns, rank + alive.astype(rank.dtype)

    eye = jnp.eye(N, dtype=matrix.dtype)
    start = (matrix[rows], noise[rows], eye, index, jnp.zeros((), int))
    start = varying_like(start, matrix, weight, noise)
    A, _, Q, columns, rank = jax.lax.fori_loop(0, N, reflect, start)
    R = jnp.where((index < rank)[:, None], jnp.triu(A), 0)
    return PivotedQR(jnp.zeros_like(Q).at[rows].set(Q), R, columns)
