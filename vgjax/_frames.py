r"""A block of tangent vectors along a trajectory, and the growth of its columns.

Growth is measured by triangles. If every group of steps is factored as
$J_m \cdots J_1 B_0 = B_1 U$ with an upper triangle U, first columns stay a basis of
what first columns were carried to, whatever B is. The triangles of all groups,
multiplied, are that of a QR factorisation at every step, once the last B has been
factored by QR too. So B need only be well-conditioned, which LU factorisation with
pivoting makes it at a fraction of the cost.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vgjax._linalg import any_in_batch, roundoff, row_sorted_qr, varying_like
from vgjax._tolerances import LEAK_DECIDES

# Numbers of a basis that is kept for the next call.
_LARGEST_KEPT = 2**18


class Block(NamedTuple):
    """Where a chain of steps is, and the vectors that went along."""

    carry: Any
    basis: Array  # (N, k) orthonormal
    qr_interval: Array  # () int32, steps between two factorisations; 0: a QR at each
    max_interval: Array  # () int32, the next longer one was rejected
    leaks: "Leaks | None" = None  # what rounding may have done; None: nobody asked


class Leaks(NamedTuple):
    """How much of each later column rounding may have put into an earlier one.

    The noise that a factorisation makes grows with what it is made of: by the ratio of
    two pivots from one to the next. What has come near one decides where a column turns
    to, and what both of them grow by from then on.
    """

    size: Array  # (k, k) of column i in column j, relative; only i > j means anything
    decided: Array  # (k,) bool, whether one came near one, ever


class Reading(NamedTuple):
    """What one factorisation found."""

    triangle: Array  # (k, k) upper
    noise: Array  # (k,) whether a pivot was no larger than round-off, and not zero
    floor: Array  # (k,) what is round-off in each row
    fresh: Array  # (k,) what rounding puts into each column


Push = Callable[[Any, Array, Any], tuple[Any, Array]]
"""``push(carry, block, x) -> (carry, block)``, the block multiplied by one Jacobian."""

Read = Callable[[Reading], Any]
"""What to keep of a factorisation, a PyTree of arrays."""


class Chain(NamedTuple):
    """How to take steps."""

    push: Push
    read: Read
    nothing: Any  # what is kept of a step without a factorisation


def first_block(carry: Any, basis: Array, *references: Any) -> Block:
    """Return a block that is factored at every step until its growth is known.

    In `shard_map` it varies as what the steps are made of, the references, does.
    """
    block = Block(carry, basis, jnp.int32(1), jnp.int32(jnp.iinfo(jnp.int32).max))
    return varying_like(block, block, *references)


def no_leaks(k: int, dtype: jnp.dtype) -> Leaks:
    """Leaks of a block that begins."""
    return Leaks(jnp.zeros((k, k), dtype), jnp.zeros(k, bool))


def random_basis(N: int, k: int, dtype: jnp.dtype) -> np.ndarray:
    """(N, k) orthonormal, always the same.

    Columns of the identity would stay in what a triangular Jacobian leaves invariant,
    and miss what grows outside of it. By NumPy: JAX's generator would be a quarter of
    the program that is compiled.
    """
    # A large one is made anew: it would take much memory, and a call takes far longer.
    draw = _drawn if N * k <= _LARGEST_KEPT else _drawn.__wrapped__
    return draw(N, k, np.dtype(dtype))


@lru_cache(maxsize=8)
def _drawn(N: int, k: int, dtype: np.dtype) -> np.ndarray:
    normal = np.random.Generator(np.random.PCG64(0)).standard_normal((N, k))
    basis = np.linalg.qr(normal)[0].astype(dtype)
    basis.flags.writeable = False  # it is kept
    return basis


def chunked_times(T: int, c: int) -> Array:
    """Return the times 0 to T - 1 in chunks of c, (chunks, c) int32.

    The first is filled up from before the first step, with times below 0.
    """
    chunks = -(-T // c)
    times = jnp.arange(chunks * c, dtype=jnp.int32) - (chunks * c - T)
    return times.reshape(chunks, c)


def input_at(inputs: Any, t: Array) -> Any:
    """Return the inputs of one time; of those before the first step, the first."""
    return jax.tree.map(lambda a: a[jnp.maximum(t, 0)], inputs)


class Stretch(NamedTuple):
    """What a stretch of steps led to."""

    block: Block
    readings: Any  # what `Chain.read` kept, leaves (c, ...)
    error: Array  # () what round-off adds up to in the log of a pivot, at most
    spread: Array  # () nats, the sum over groups of log(largest / smallest pivot)
    size: Array  # () nats, the largest |log pivot|


def factored_steps(chain: Chain, block: Block, xs: Any, active, every: int) -> Stretch:
    """Take steps with a QR factorisation after so many, and after the last."""
    due = _due(every, xs, active).at[-1].set(True)
    return _steps(chain, _qr, block, xs, active, due)


def steps_with_lu(
    chain: Chain, block: Block, xs: Any, active: Array | None, every: Array
) -> Stretch:
    """Take steps with LU factorisations in between, and a QR factorisation at the end.

    With row pivoting no entry of the lower triangle is above one, and in practice it is
    well-conditioned; the QR factorisation at the end sees whether it was.
    """
    due = _due(every, xs, active).at[-1].set(False)
    steps = _steps(chain, _lu, block, xs, active, due)
    end = steps.block
    state = (end.basis, end.leaks, steps.error, steps.spread, steps.size)
    (basis, leaks, *measured), last = _factored(chain, _qr, state)
    readings = jax.tree.map(lambda a, one: a.at[-1].set(one), steps.readings, last)
    return Stretch(end._replace(basis=basis, leaks=leaks), readings, *measured)


def steps_with_qr(chain: Chain, block: Block, xs: Any, active: Array | None) -> Stretch:
    """Take steps with a QR factorisation after each, and zeros for round-off."""

    def factor(image):
        basis, reading = _qr(image)
        # The whole row: what is right of such a pivot would pass for a value later on.
        is_roundoff = jnp.abs(reading.triangle) <= reading.floor[:, None]
        is_roundoff = is_roundoff & reading.noise[:, None]
        triangle = jnp.where(is_roundoff, 0, reading.triangle)
        return basis, reading._replace(triangle=triangle)

    due = _due(1, xs, active).at[-1].set(True)
    return _steps(chain, factor, block, xs, active, due)


def _due(every: Array | int, xs: Any, active: Array | None) -> Array:
    """After which steps to factor; the caller says it of the last, taken or not."""
    due = (jnp.arange(length_of(xs), dtype=jnp.int32) + 1) % every == 0
    return due if active is None else due & active


def _steps(chain: Chain, factor, block: Block, xs: Any, active, due: Array) -> Stretch:
    """Take steps, and factor by ``factor(image)`` where that is due."""
    nothing = varying_like(chain.nothing, block, xs)

    def pushed(carry_and_basis, x):
        carry, basis = carry_and_basis
        return varying_like(chain.push(carry, basis, x), block, xs)

    def step(state, x):
        carry, basis, *measured = state
        active, x, due = x
        if active is None:
            carry, basis = pushed((carry, basis), x)
        else:
            carry, basis = jax.lax.cond(
                active, pushed, lambda same, _: same, (carry, basis), x
            )

        # A batch branches together, but each member is factored only when it is due.
        def factored(measured):
            new = _factored(chain, factor, measured)
            old = (measured, nothing)
            return jax.tree.map(lambda n, o: jnp.where(due, n, o), new, old)

        measured, reading = jax.lax.cond(
            any_in_batch(due),
            factored,
            lambda measured: (measured, nothing),
            (basis, *measured),
        )
        return (carry, *measured), reading

    zero = jnp.zeros((), block.basis.dtype)
    start = (block.carry, block.basis, block.leaks, zero, zero, zero)
    start = varying_like(start, block, xs)
    end, readings = jax.lax.scan(step, start, (active, xs, due))
    carry, basis, leaks, *measured = end
    block = block._replace(carry=carry, basis=basis, leaks=leaks)
    return Stretch(block, readings, *measured)


def _factored(chain: Chain, factor, state):
    basis, leaks, error, spread, size = state
    eps = float(jnp.finfo(basis.dtype).eps)
    basis, reading = factor(basis)
    logs = jnp.log(jnp.abs(jnp.diagonal(reading.triangle)))
    gap = jnp.max(logs) - jnp.min(logs)
    size = jnp.maximum(size, jnp.max(jnp.abs(logs)))
    measured = (error + eps * jnp.exp(gap), spread + gap, size)
    leaks = None if leaks is None else _leaking(leaks, reading, logs)
    factored = (basis, leaks, *measured), chain.read(reading)
    return varying_like(factored, state)


def _leaking(leaks: Leaks, reading: Reading, logs: Array) -> Leaks:
    """The same after one more factorisation, with the logs of its pivots."""
    logs = jax.lax.stop_gradient(logs)
    eps = float(jnp.finfo(logs.dtype).eps)
    # What is annihilated leaks nowhere, and nothing that leaks into it counts.
    is_there = jnp.isfinite(logs)
    middle = jnp.mean(logs, where=is_there)
    reach = 0.2 * math.log(jnp.finfo(logs.dtype).max)
    away = jnp.clip(jnp.where(is_there, logs - middle, 0), -reach, reach)
    by = jnp.where(is_there, jnp.exp(away), 0)[:, None]
    by = by * jnp.where(is_there, jnp.exp(-away), 0)[None, :]
    size = jnp.minimum(leaks.size, 1) * by
    # New ones count once they have grown, or not fallen.
    is_large = jnp.tril(size, -1) > eps ** LEAK_DECIDES[jnp.finfo(logs.dtype).bits]
    # A column that turns to another takes all those between along.
    size = jnp.hypot(size, reading.fresh[None, :])
    return Leaks(size, leaks.decided | _between(is_large))


def _between(is_large: Array) -> Array:
    """(k,) whether a column is one of a pair (i > j), or lies between the two."""
    later = jax.lax.cummax(is_large.astype(jnp.int32), axis=0, reverse=True)
    return jnp.any(jnp.tril(later) > 0, axis=1)


def _lu(image: Array) -> tuple[Array, Reading]:
    N, k = image.shape
    factors, _, rows = jax.lax.linalg.lu(image)
    lower = jnp.tril(factors, -1) + jnp.eye(N, k, dtype=image.dtype)
    basis = jnp.zeros_like(image).at[rows].set(lower, unique_indices=True)
    triangle = jnp.triu(factors[:k])
    no, nothing = jnp.zeros(k, bool), jnp.zeros_like(triangle[0])
    return basis, Reading(triangle, no, nothing, _fresh(image, triangle))


def _qr(image: Array) -> tuple[Array, Reading]:
    N, k = image.shape
    Q, R, row_size = row_sorted_qr(image)
    # LAPACK makes finite pivots beside an infinity, and the infinity would count as
    # what they are round-off of.
    R = jnp.where(jnp.all(jnp.isfinite(image)), R, jnp.nan)
    pivot, floor = jnp.abs(jnp.diagonal(R)), roundoff(N, image.dtype) * row_size[:k]
    noise = (pivot > 0) & (pivot <= floor)
    return Q, Reading(R, noise, floor, _fresh(image, R))


def _fresh(image: Array, triangle: Array) -> Array:
    """(k,) what rounding puts into each column of the basis, relative to it."""
    image, triangle = jax.lax.stop_gradient((image, triangle))
    pivot, size = jnp.abs(jnp.diagonal(triangle)), jnp.max(jnp.abs(image), axis=0)
    eps = float(jnp.finfo(image.dtype).eps)
    return eps * size / jnp.where(pivot > 0, pivot, 1)


def length_of(xs: Any) -> int:
    """Return how many steps there are."""
    return len(jax.tree.leaves(xs)[0])
