"""Singular values and vectors of a graded product, however far apart they are."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import (
    any_in_batch,
    descending,
    exponent,
    is_before,
    matmul,
    power_of_two,
    qr,
    scaled,
    varying_like,
)
from vgjax._tolerances import DECOUPLING_SWEEPS
from vgjax.products._leaks import Leaks, in_frame, of_right
from vgjax.products.graded import (
    GradedProduct,
    balanced,
    by_size,
    is_alive,
    lower_factor,
    orthogonal,
    rotation_of,
)

__all__ = ["LogSVD", "log_singular_values", "log_svd"]


def __dir__() -> list[str]:
    return __all__


_LOG2 = math.log(2)


class LogSVD(NamedTuple):
    """``Phi = left @ diag(exp(log_values)) @ right.T``.

    Attributes:
      left: (N, N), column i is the i-th left singular vector.
      log_values: (N,) nats, descending.
      right: (N, N), column i is the i-th right singular vector.
    """

    left: Array
    log_values: Array
    right: Array


class Couplings(NamedTuple):
    """What the singular values of a product depend on, its directions sorted.

    Gaps between neighbours that are wider than a margin are shortened to it: the
    singular values of directions so far apart do not move each other.
    """

    exponents: Array  # (N,) descending
    depth: Array  # (N,) bits below the first direction, gaps shortened
    L: Array  # (N, N) with Phi = (orthogonal) @ L @ diag(2^exponents) @ (orthogonal)
    alive: Array | None  # (N,) False where annihilated; None if nothing is


class _Limits(NamedTuple):
    """What one SVD can take in a dtype, in bits."""

    margin: int  # two directions so far apart do not move each other
    span: int  # the scales that fit into one SVD
    top: int  # exponent that the largest direction gets


def _limits(dtype: jnp.dtype) -> _Limits:
    info = jnp.finfo(dtype)
    # Above 2^top dgesdd rescales (its BIGNUM), and its dqds squares what it is given:
    # values further down than `span` would underflow.
    spare = 20  # bits, for the entries of L, which are near one but not one
    top = -info.minexp // 2 - info.nmant - spare
    span = -info.minexp - info.nmant // 2 - spare
    return _Limits(info.nmant + 1, span, top)


def log_singular_values(product: GradedProduct) -> Array:
    """Return the log singular values of a product.

    Costs two QR and one SVD of an N x N matrix, another SVD for every 600 nats (32 in
    float32) between the first value and the last when gaps above 37 nats (17) are
    taken as 37 (17), and no SVD at all once every gap is that wide.

    Args:
      product: from `push` or `identity`.

    Returns:
      (N,), nats, descending. An annihilated direction reads -inf; after a matrix with
      a NaN or an infinity everything reads NaN.

    Notes:
      What a matrix annihilates is known by a remainder that is round-off. A direction
      that dies because the range of one singular factor meets the null space of a
      later one, as in the powers of a nilpotent matrix, is known only as well as that
      range. It may be missed: its value then drops by some 30 nats (14 in float32) in
      one step and goes on from there, instead of reading -inf.
    """
    return values_of(couplings(product)[0])


def log_svd(product: GradedProduct) -> LogSVD:
    """Return the singular value decomposition of a product, values in logs.

    Costs what `log_singular_values` does, nine QR more, and each SVD once again with
    vectors: O(N^3).

    Args:
      product: from `push` or `identity`.

    Returns:
      `LogSVD`: log values (N,) as `log_singular_values` gives, in nats and
      descending, and orthogonal matrices whose columns are the vectors. A pair of
      vectors is determined up to its common sign, equal values up to a rotation; those
      of annihilated directions complete the two bases. After a NaN all is NaN.

    Raises:
      ValueError: `product` holds values only: its `rotation` is None.
    """
    values = log_singular_values(product)
    left, right = vectors_of(product)
    return LogSVD(left, values, right)


def vectors_of(product: GradedProduct) -> tuple[Array, Array]:
    """Left and right singular vectors."""
    rotation_of(product, "product")
    basis = varying_like(jnp.eye(len(product.left), dtype=product.left.dtype), product)
    start = (basis, product._replace(leaks=None))
    basis, product = jax.lax.fori_loop(
        0, DECOUPLING_SWEEPS + 1, lambda _, p: _swept(*p), start
    )
    product = by_size(product)
    Q, R = qr(product.right.T)
    alive = is_alive(product)
    L = lower_factor(product, R, alive)
    frame = _couplings(product, L, alive)
    frame = frame._replace(L=_without_distractions(frame, by_square=False))
    eye = varying_like(jnp.eye(len(L), dtype=L.dtype), frame)
    left, right = _by_windows(
        lambda depth, _: _window_vectors(frame, depth), frame, (eye, eye)
    )
    right = matmul(matmul(rotation_of(product, "product"), Q), right)
    return matmul(matmul(basis, product.left), left), right


def couplings(
    product: GradedProduct, *, all_alive: bool = False
) -> tuple[Couplings, Leaks | None]:
    """Return the couplings and the leaks, both in the frame of L, largest first."""
    leaks = product.leaks
    _, R, product = orthogonal(product)
    order = descending(product.exponents)
    product = by_size(product)
    alive = None if all_alive else is_alive(product)
    _, R_of_right = qr(product.right.T)
    L = lower_factor(product, R_of_right, alive)
    leaks = of_right(in_frame(leaks, R, order, L), R_of_right)
    return _couplings(product, L, alive), leaks


def _couplings(product: GradedProduct, L: Array, alive: Array | None) -> Couplings:
    exponents = product.exponents
    gap = jnp.minimum(exponents[:-1] - exponents[1:], _limits(L.dtype).margin)
    gap = gap if alive is None else jnp.where(alive[1:], gap, 0)
    gap = jnp.concatenate([gap, jnp.zeros(1, gap.dtype)])
    # In floats, exact for these whole numbers: sums of integers are more to compile.
    depth = matmul(gap.astype(L.dtype), is_before(len(L)).astype(L.dtype))
    return Couplings(exponents, depth.astype(gap.dtype), L, alive)


def values_of(frame: Couplings) -> Array:
    """Log singular values, descending, from the couplings."""
    frame = frame._replace(L=_without_distractions(frame))
    diagonal = _log(jnp.abs(jnp.diagonal(frame.L)), frame.exponents)
    off_diagonal = jnp.where(jnp.eye(len(frame.L), dtype=bool), 0, frame.L)
    coupled = ~(jnp.sum(jnp.abs(off_diagonal)) == 0)  # a NaN is a coupling

    def from_svd(_):
        values = _by_windows(lambda *w: _window_values(frame, *w), frame, diagonal)
        return jnp.where(coupled, values, diagonal)

    # The logs of an SVD stay inside of its branch: outside, XLA joins them to what
    # differs between the plain program and the careful one, and so may the last bit.
    values = jax.lax.cond(any_in_batch(coupled), from_svd, lambda d: d, diagonal)
    if frame.alive is not None:
        values = jnp.where(frame.alive, values, -jnp.inf)
    # Directions are sorted by the powers of two of their scales only.
    return jnp.sort(values, descending=True)


def _without_distractions(frame: Couplings, *, by_square: bool = True) -> Array:
    """L without the couplings that move no singular value and mislead LAPACK.

    Vectors feel a coupling itself where values feel its square: then not `by_square`.


    Bidiagonalisation follows the largest off-diagonal entry it meets. Between two
    equal singular values that is a rounding error, or a coupling to a direction many
    orders of magnitude away; then columns of both sizes are mixed and the small one is
    lost. On the tight-binding ring of 16 sites this happens at one step in thirty, by
    up to 80 nats, whatever number of QR sweeps went before.
    """
    L = frame.L if frame.alive is None else jnp.where(frame.alive, frame.L, 0)
    # Of the diagonal itself: its entries are near one, but not between one and two.
    depth = frame.depth - exponent(jnp.diagonal(L))
    gap = depth[:, None] - depth[None, :]
    eps = float(jnp.finfo(L.dtype).eps)
    tiny = float(jnp.finfo(L.dtype).tiny)
    size = jnp.abs(L) / jnp.maximum(jnp.abs(jnp.diagonal(L)), tiny)[None, :]
    # A coupling moves a value by its square, or, between equal values, by itself. The
    # fractions 16 and 64 are a heuristic: they leave the sum over a row below eps for
    # N up to some hundreds.
    weak = size < eps / 16
    if by_square:
        weak = weak | ((size < eps**0.5 / 64) & (gap >= 2))
    return jnp.where(weak & ~jnp.eye(len(L), dtype=bool), 0, L)


def _swept(basis: Array, product: GradedProduct) -> tuple[Array, GradedProduct]:
    """Make directions couple less: ``basis @ product`` stays the same."""
    Q, _, product = orthogonal(balanced(product))
    return matmul(basis, Q), product


def _log(x: Array, e: Array) -> Array:
    """``log(x 2^e)``, rounded once: the powers of two are added as integers."""
    # Masked before and after: 0 / 0 is in the derivative of an unused log of zero.
    zero = x == 0
    x = jnp.where(zero, 1, x)
    own = exponent(x)
    found = jnp.log(scaled(x, -own)) + _LOG2 * (e + own).astype(x.dtype)
    return jnp.where(zero, -jnp.inf, found)


def _by_windows(read, frame: Couplings, start):
    """Put together what `read` finds in one SVD after another.

    A window sees `span` bits of depth; what lies outside is moved to its edge, and
    only directions at least a margin from an edge that is not an end are kept.
    """
    N = len(frame.depth)
    margin, span, _ = _limits(frame.L.dtype)
    core = span - 2 * margin
    last = frame.depth[-1]

    def window(k, found):
        first = k * core
        keep = (frame.depth >= first + margin) | (k == 0)
        keep = keep & ((frame.depth < first + core + margin) | (last <= first + span))
        depth = jnp.clip(frame.depth, first, first + span) - first
        seen = read(depth, first)
        return jax.tree.map(lambda new, old: jnp.where(keep, new, old), seen, found)

    def window_if_needed(k, found):
        needed = (k == 0) | (last > (k - 1) * core + span)
        see = any_in_batch(needed)
        return jax.lax.cond(see, lambda f: window(k, f), lambda f: f, found)

    # At most N - 1 margins deep, and the first window sees two more than its core.
    windows = -(-((N - 3) * margin) // core)
    if windows <= 1:
        return window(0, start)
    return jax.lax.fori_loop(0, windows, window_if_needed, start)


def _window(frame: Couplings, depth: Array) -> Array:
    scale = power_of_two(_limits(frame.L.dtype).top - depth, frame.L.dtype)
    return frame.L * scale[None, :]


def _window_values(frame: Couplings, depth: Array, first: Array) -> Array:
    values = jnp.linalg.svd(_window(frame, depth), compute_uv=False)
    top = _limits(frame.L.dtype).top
    return _log(values, frame.exponents + frame.depth - first - top)


def _window_vectors(frame: Couplings, depth: Array) -> tuple[Array, Array]:
    """Left and right vectors, as columns.

    By QR iteration: divide and conquer, the default, finds small values and their
    vectors only to eps times the largest.
    """
    svd = jax.lax.linalg.svd
    iterative = partial(svd, algorithm=jax.lax.linalg.SvdAlgorithm.QR)
    # TPU has an algorithm of its own, and no other.
    left, _, right = jax.lax.platform_dependent(
        _window(frame, depth), tpu=svd, default=iterative
    )
    return left, right.T
