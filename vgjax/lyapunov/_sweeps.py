"""One sweep of a block: forward through a product of Jacobians, and back again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._layout import Point
from vgjax._linalg import any_in_batch, matmul, varying_like
from vgjax._system import System
from vgjax.lyapunov._growth import (
    Chain,
    Push,
    Reading,
    chunked_times,
    first_block,
    grow,
    input_at,
)
from vgjax.products import (
    GradedProduct,
    LogSVD,
    identity,
    log_singular_values,
    log_svd,
    push,
)

# As a power of eps: 1e-11 in float64, 1e-5 in float32.
_ERROR = 0.7


class Sweep(NamedTuple):
    """What a sweep found of a product Phi, from a block V."""

    there: Array  # (k,) nats, of Phi V, descending; right singular vectors are in V
    back: LogSVD  # of Q Q^T Phi, with Q the image Phi V made orthonormal


class _Road(NamedTuple):
    """A trajectory in chunks, of which only the first states are kept."""

    system: System
    times: Array  # (chunks, c), as of `chunked_times`
    starts: Point  # (chunks, ...), what each chunk starts from


def sweeps(system: System, c: int) -> Callable[[Array], Sweep]:
    """Make ``sweep(V) -> Sweep`` of the product Phi of T steps, V an (N, k) block.

    Values on the way back are those on the way there or larger, and none is above those
    of Phi: but for round-off, which is not the same both ways.
    """
    start = varying_like(system.start, system)
    road = _Road(system, chunked_times(system.T, c), start)
    starts = jax.lax.scan(lambda a, t: (_points(road, a, t)[0], a), start, road.times)[
        1
    ]
    road = road._replace(starts=starts)

    def sweep(V: Array) -> Sweep:
        Q, there = _carried_forward(road, start, V)
        basis, back = _carried_back(road, Q)
        A, values, B = log_svd(back)
        svd = LogSVD(matmul(Q, B), values, matmul(basis, A))
        return Sweep(log_singular_values(there), svd)

    return sweep


def _points(road: _Road, at: Point, times: Array) -> tuple[Point, Point]:
    """Take the steps of a chunk: where they end, and what each starts from."""
    is_padded = _is_padded(road)

    def advance(at, t):
        new, _ = road.system.step(at, input_at(road.system.inputs, t))
        if is_padded:
            new = jax.tree.map(lambda n, a: jnp.where(t >= 0, n, a), new, at)
        return new, at

    return jax.lax.scan(advance, at, times)


def _carried_forward(
    road: _Road, start: Point, V: Array
) -> tuple[Array, GradedProduct]:
    """Return basis and triangle of the product times a block."""

    def push_at(at, V, t):
        return road.system.push(at, input_at(road.system.inputs, t), V)

    chain = _with_triangles(push_at, V)

    def along(block_and_product, times):
        return _grown(road, chain, block_and_product, times, times), None

    begin = (first_block(start, V), identity(V.shape[1], V.dtype))
    begin = varying_like(begin, road.system)
    (block, product), _ = jax.lax.scan(along, begin, road.times)
    return block.basis, product


def _carried_back(road: _Road, Q: Array) -> tuple[Array, GradedProduct]:
    """Return basis and triangle of the transposed product times a block."""

    def pull_at(_, U, point_and_time):
        at, t = point_and_time
        return (), road.system.pull(at, input_at(road.system.inputs, t), U)

    chain = _with_triangles(pull_at, Q)

    def back(block_and_product, chunk):
        times, start = chunk
        _, points = _points(road, start, times)
        points, times = jax.tree.map(lambda a: a[::-1], (points, times))
        return _grown(road, chain, block_and_product, (points, times), times), None

    begin = (first_block((), Q), identity(Q.shape[1], Q.dtype))
    begin = varying_like(begin, road.system)
    chunks = (road.times, road.starts)
    (block, product), _ = jax.lax.scan(back, begin, chunks, reverse=True)
    return block.basis, product


def _with_triangles(push: Push, block: Array) -> Chain:
    """Say of each step whether there is a triangle, and which."""

    def read(seen: Reading):
        return seen.triangle, jnp.ones((), bool)

    eye = jnp.eye(block.shape[1], dtype=block.dtype)
    return Chain(push, read, (eye, jnp.zeros((), bool)))


def _grown(road: _Road, chain: Chain, block_and_product, xs: Any, times: Array):
    """Take the steps of a chunk, and multiply their triangles onto the product."""
    block, product = block_and_product
    active = times >= 0 if _is_padded(road) else None
    allowed = times.size * roundoff_per_step(block.basis.dtype)
    block, seen = grow(chain, block, xs, active, allowed)
    return block, jax.lax.scan(_extended, product, seen)[0]


def _extended(product: GradedProduct, seen: tuple[Array, Array]):
    triangle, is_one = seen
    return jax.lax.cond(
        any_in_batch(is_one), push, lambda p, _: p, product, triangle
    ), None


def _is_padded(road: _Road) -> bool:
    return road.times.size > road.system.T


def roundoff_per_step(dtype: jnp.dtype) -> float:
    """Return what round-off may add to the log of a pivot at each step, nats."""
    return float(jnp.finfo(dtype).eps) ** _ERROR
