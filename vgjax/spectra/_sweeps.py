"""One sweep of a block: forward through a product of Jacobians, and back again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._frames import (
    Chain,
    Push,
    Reading,
    chunked_times,
    first_block,
    input_at,
    no_leaks,
)
from vgjax._layout import Point
from vgjax._linalg import any_in_batch, matmul, varying_like
from vgjax._qr_interval import adaptive_steps
from vgjax._system import System
from vgjax._tolerances import SWEEP_ROUNDOFF
from vgjax.products import GradedProduct, LogSVD, identity, log_singular_values, push
from vgjax.products.singular import vectors_of


class Sweep(NamedTuple):
    """What a sweep found of a product Phi, from a block V."""

    forward: Array  # (k,) nats, of Phi V, descending; right singular vectors are in V
    backward: LogSVD  # of Q Q^T Phi, with Q the image Phi V made orthonormal
    decided: Array  # (k,) bool, whether rounding decided where a vector turned to


class _Road(NamedTuple):
    """A trajectory in chunks, of which only the first states are kept."""

    system: System
    times: Array  # (chunks, c), as of `chunked_times`
    starts: Point  # (chunks, ...), what each chunk starts from


def sweeps(system: System, c: int) -> Callable[[Array], Sweep]:
    """Make ``sweep(V) -> Sweep`` of the product Phi of T steps, V an (N, k) block.

    Backward values are those forward or larger, and none is above those of Phi, up to
    round-off, which is not the same both ways.
    """
    times = chunked_times(system.T, c)
    start = varying_like(system.start, system)
    road = _Road(system, times, start)

    def advance(at, times):
        return _points(road, at, times)[0], at

    road = road._replace(starts=jax.lax.scan(advance, start, times)[1])

    def sweep(V: Array) -> Sweep:
        # Forward and backward in one loop, so that each is compiled once.
        def half(V, is_backward):
            basis, product, decided = _carried(road, V, is_backward)
            return basis, (basis, product, decided)

        V = varying_like(V, system)
        _, (bases, products, decided) = jax.lax.scan(half, V, jnp.array([False, True]))
        forward, values = jax.lax.map(log_singular_values, products)
        Q, basis = bases
        A, B = vectors_of(jax.tree.map(lambda a: a[1], products))
        svd = LogSVD(matmul(Q, B), values, matmul(basis, A))
        return Sweep(forward, svd, jnp.any(decided, axis=0))

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


def _carried(
    road: _Road, V: Array, is_backward: Array
) -> tuple[Array, GradedProduct, Array]:
    """Return basis and triangle of the product, or its transpose, times a block.

    And whether rounding decided where its vectors turned to.
    """

    def push_at(_, V, point_and_time):
        at, t = point_and_time
        x = input_at(road.system.inputs, t)

        def pulled(V):
            return varying_like(road.system.pull(at, x, V), V, road.system)

        def pushed(V):
            return varying_like(road.system.push(at, x, V)[1], V, road.system)

        return (), jax.lax.cond(is_backward, pulled, pushed, V)

    chain = _with_triangles(push_at, V)

    def turned(a):
        return jnp.where(is_backward, a[::-1], a)

    def along(block_and_product, chunk):
        block, product = block_and_product
        times, start = chunk
        _, points = _points(road, start, times)
        points, times = jax.tree.map(turned, (points, times))
        active = times >= 0 if _is_padded(road) else None
        allowed = times.size * roundoff_per_step(V.dtype)
        block, kept = adaptive_steps(chain, block, (points, times), active, allowed)
        return (block, _extended(product, *kept)), None

    block = first_block((), V)._replace(leaks=no_leaks(V.shape[1], V.dtype))
    begin = (block, identity(V.shape[1], V.dtype))
    begin = varying_like(begin, road.system)
    chunks = jax.tree.map(turned, (road.times, road.starts))
    (block, product), _ = jax.lax.scan(along, begin, chunks)
    assert block.leaks is not None  # it began with some
    return block.basis, product, block.leaks.decided


def _with_triangles(push: Push, block: Array) -> Chain:
    """Say of each step whether there is a triangle, and which."""

    def read(seen: Reading):
        return seen.triangle, jnp.ones((), bool)

    eye = jnp.eye(block.shape[1], dtype=block.dtype)
    return Chain(push, read, (eye, jnp.zeros((), bool)))


def _extended(product: GradedProduct, triangles, is_one: Array) -> GradedProduct:
    """Multiply triangles onto a product, where there is one."""

    def extend(product, x):
        triangle, is_one = x
        # A batch pushes together, but each member only what is its own.
        new = jax.lax.cond(
            any_in_batch(is_one), lambda p: push(p, triangle), lambda p: p, product
        )
        return jax.tree.map(lambda n, o: jnp.where(is_one, n, o), new, product), None

    return jax.lax.scan(extend, product, (triangles, is_one))[0]


def _is_padded(road: _Road) -> bool:
    return road.times.size > road.system.T


def roundoff_per_step(dtype: jnp.dtype) -> float:
    """Return what round-off may add to the log of a pivot at each step, nats."""
    return float(jnp.finfo(dtype).eps) ** SWEEP_ROUNDOFF
