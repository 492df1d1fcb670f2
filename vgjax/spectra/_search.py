"""Sweeps until the leading values have converged, and how that is told.

The change between sweeps is not a convergence criterion: a value may stand still for
many of them. Residuals are.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import any_in_batch, matmul, varying_like
from vgjax._tolerances import STAGNATION, VALUE_ULPS
from vgjax.products import LogSVD
from vgjax.spectra import _krylov
from vgjax.spectra._krylov import Krylov
from vgjax.spectra._sweeps import Sweep


class Estimate(NamedTuple):
    """Leading values and vectors as of the last convergence check, of all the block."""

    log_singular_values: Array  # (b,) nats, descending
    left: Array  # (N, b)
    right: Array  # (N, b)
    change: Array  # (b,) nats, since the check before
    error: Array  # (b,) nats
    converged: Array  # (b,) bool
    sweeps: Array  # () int32


class _State(NamedTuple):
    """Where the search is between two sweeps."""

    estimate: Estimate
    residual_error: Array  # (b,) nats, what values may be short of, as of the check
    is_settled: Array  # (b,) bool, whether more sweeps would only repeat it
    space: Krylov  # from the block of the last check on
    at: Array  # () int32, the block of the space that is swept next; 0 is checked
    size: Array  # () int32, how many blocks the space is to have
    collects: Array  # () bool, whether it is to have more than one


def search(
    sweep: Callable[[Array], Sweep],
    basis: Array,
    k: int,
    tol: float,
    max_sweeps: int,
    roundoff: float,
) -> Estimate:
    """Sweep until the first k values have converged.

    `roundoff`, in nats, is by how much values may differ forward and backward.
    """
    b = basis.shape[1]
    most = min(len(basis) // b, _krylov.MOST)

    def is_moving(state: _State) -> Array:
        estimate = state.estimate
        is_number = ~jnp.any(jnp.isnan(estimate.log_singular_values))
        is_settled = jnp.all(state.is_settled[:k])
        return is_number & ~is_settled & (estimate.sweeps < max_sweeps)

    def advance(state: _State) -> _State:
        block = _krylov.block_at(state.space, state.at, b)
        swept = sweep(block)
        svd = swept.backward
        checked = _check_convergence(state, block, swept, k, most, tol, roundoff)
        state = _where(state.at == 0, checked, state)
        sweeps = state.estimate.sweeps + 1
        state = state._replace(
            estimate=state.estimate._replace(sweeps=sweeps),
            space=_krylov.swept(state.space, state.at, svd),
        )
        return varying_like(_with_next_block(state, svd.right, most), basis)

    # Nothing is known yet.
    infinite, never = jnp.full(b, jnp.inf, basis.dtype), jnp.zeros(b, bool)
    nothing = Estimate(infinite, basis, basis, infinite, infinite, never, jnp.int32(0))
    space = _krylov.space_of(basis, most)
    size = jnp.int32(min(most, _krylov.FEWEST))
    at, collects = jnp.int32(0), jnp.zeros((), bool)
    start = _State(nothing, infinite, never, space, at, size, collects)
    start = varying_like(start, basis)
    return jax.lax.while_loop(is_moving, advance, start).estimate


def _check_convergence(
    state: _State,
    block: Array,
    swept: Sweep,
    k: int,
    most: int,
    tol: float,
    roundoff: float,
) -> _State:
    """Estimate the error of each value of a block, and choose how to go on."""
    forward, svd, is_decided = swept
    left, values, right = svd
    old = state.estimate.log_singular_values
    same = values == old  # also -inf and -inf
    residual = jnp.where(jnp.isneginf(values) & same, 0, _residual_error(block, svd))
    # Forward values are below backward ones by their error; by more only if round-off,
    # which is not the same both ways, grew to be what they are made of.
    apart = jnp.where(values == forward, 0, jnp.abs(values - forward))
    eps = float(jnp.finfo(values.dtype).eps)
    allowed = residual + tol + roundoff + VALUE_ULPS * eps * jnp.abs(forward)
    is_decided = is_decided & ~jnp.isneginf(values)
    is_roundoff = ~(apart <= allowed) | is_decided
    error = jnp.where(is_roundoff, jnp.maximum(apart, residual), residual)
    change = jnp.where(same, 0, jnp.abs(values - old))
    # What is round-off may go on falling, to -inf.
    is_settled = (residual <= tol) & (~is_roundoff | (change <= tol))
    estimate = Estimate(
        values,
        left,
        right,
        change=change,
        error=jnp.where(is_decided & ~jnp.isnan(values), jnp.inf, error),
        converged=is_settled & ~is_roundoff,
        sweeps=state.estimate.sweeps,
    )

    # Collect blocks where a sweep has stagnated. In their space there is one scale for
    # all, and the smallest value must have digits left.
    slow = residual > STAGNATION * state.residual_error
    stagnates = jnp.any((~is_settled & slow)[:k])
    is_even = values[0] - values[-1] < -math.log(eps) / 3
    collects = (state.collects | stagnates) & is_even
    size = jnp.where(state.collects & stagnates, 2, 1) * state.size
    size = jnp.minimum(size, most)
    return _State(estimate, residual, is_settled, state.space, state.at, size, collects)


def _residual_error(block: Array, svd: LogSVD) -> Array:
    r"""(b,) nats, what the values of a block may be short of, by its residuals.

    Of values and vectors of $\Phi^T \Phi$: the residual, relative, is the part of what
    a sweep makes of a vector that is outside of the block.
    """
    _, values, right = svd
    outside = right - matmul(block, matmul(block.T, right))
    residual = jnp.linalg.norm(outside, axis=0)
    # To the last value of the block, which stands for all that are outside.
    gap = -jnp.expm1(2 * (values[-1] - values))
    error = residual * jnp.where(gap > residual, residual / gap, 1) / 2
    return jnp.where(jnp.isneginf(values), jnp.inf, error)


def _with_next_block(state: _State, right: Array, most: int) -> _State:
    """Put what a sweep led to behind the other blocks, or begin a new space."""
    space, at, b = state.space, state.at, right.shape[1]
    if most == 1:
        return state._replace(space=_krylov.space_of(right, most))
    is_full = state.collects & (at == state.size - 1)
    is_growing = state.collects & ~is_full
    following = jax.lax.cond(
        any_in_batch(is_full),
        lambda space: jnp.where(is_full, _krylov.best(space, b), right),
        lambda _: right,
        space,
    )
    fresh = _krylov.space_of(following, most)
    space = jax.lax.cond(
        any_in_batch(is_growing),
        lambda s: _where(is_growing, _krylov.extended(s, at, right), fresh),
        lambda _: fresh,
        space,
    )
    return state._replace(space=space, at=jnp.where(is_growing, at + 1, 0))


def _where(flag: Array, a, b):
    return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)
