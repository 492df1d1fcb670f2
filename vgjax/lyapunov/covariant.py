"""Covariant Lyapunov vectors: directions that each Jacobian maps onto one another."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _checks
from vgjax._frames import random_basis
from vgjax._linalg import (
    exponent,
    matmul,
    roundoff,
    row_sorted_qr,
    scaled,
    varying_like,
)
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step

__all__ = ["CovariantVectors", "covariant_vectors"]


def __dir__() -> list[str]:
    return __all__


class CovariantVectors(NamedTuple):
    """Covariant Lyapunov vectors along a stretch of a trajectory.

    Attributes:
      vectors: (S+1, N, k), columns of norm one.
      log_growth: (S, k) nats, growth of each vector in each step.
    """

    vectors: Array
    log_growth: Array


def covariant_vectors(
    step: Step,
    carry: Carry,
    inputs: Inputs = None,
    *,
    length: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
    burn_out: int = 0,
) -> CovariantVectors:
    r"""Return the k leading covariant Lyapunov vectors along a trajectory.

    Vector i is the direction at each state that grows at exponent i forwards in time
    and shrinks at it backwards: $J_t v_{t-1} = e^{g_t} v_t$, and $g_t$ is on average
    that exponent. For a constant W they are its right eigenvectors.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D), or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.
      k: how many vectors, from 1 to N. Default: all N.
      burn_in: steps at the beginning in which the nested subspaces settle, forwards.
      burn_out: steps at the end in which the vectors settle in them, backwards.

    Returns:
      `CovariantVectors` of the S = T - burn_in - burn_out steps between: vectors
      (S+1, N, k), ``vectors[r, :, i]`` at state burn_in + r, of norm one, in descending
      order of their exponents; log_growth (S, k), nats, ``log_growth[r]`` on the way
      from state burn_in + r to the next. The sign of a vector is arbitrary, and kept
      along the trajectory. The first direction that a step after the burn-in
      annihilates, to round-off, and those after it are NaN at all times, as are those
      that a step shrinks out of the range of the dtype. After a Jacobian with a NaN or
      an infinity everything is NaN.

    Raises:
      ValueError: as `vgjax.rollout` does; `k` outside 1..N; `burn_in` outside 0..T-1,
        or `burn_out` outside 0..T - `burn_in` - 1.
      TypeError: as `vgjax.rollout` does; one of the three is no whole number.

    Notes:
      That each vector is mapped to the next holds to round-off whatever the burns are;
      that they are the covariant ones, to $e^{-n (\lambda_i - \lambda_{i+1})}$ with n
      the shorter burn. Where two exponents are equal only the plane of both is
      covariant, and the vectors in it are arbitrary.

      One QR factorisation a step, O(N k^2). Holds T - burn_in bases and triangles,
      N k + k^2 numbers each.

    Source:
      Ginelli et al., Phys. Rev. Lett. 99, 130601 (2007).
    """
    measured = system(step, carry, inputs, length)
    N, T = measured.N, measured.T
    k = N if k is None else _checks.integer(k, "k", 1, N)
    burn_in = _checks.integer(burn_in, "burn_in", 0, T - 1)
    burn_out = _checks.integer(burn_out, "burn_out", 0, T - burn_in - 1)
    basis = random_basis(N, k, measured.product_dtype)
    return _covariant_vectors(measured, basis, burn_in=burn_in, burn_out=burn_out)


@partial(jax.jit, static_argnames=("burn_in", "burn_out"))
def _covariant_vectors(system: System, basis: Array, *, burn_in, burn_out):
    S = system.T - burn_in - burn_out
    Q, R, is_roundoff = _forward(system, basis, burn_in)
    C, growth = _backward(R)
    # Put them together over the steps between the burns.
    lost = jnp.cumsum(jnp.any(is_roundoff, axis=0)) > 0
    vectors = matmul(Q[: S + 1], C[: S + 1])
    vectors = jnp.where(lost[None, None, :], jnp.nan, vectors)
    return CovariantVectors(vectors, jnp.where(lost[None, :], jnp.nan, growth[:S]))


def _forward(system: System, basis: Array, burn_in: int) -> tuple[Array, Array, Array]:
    """Nested subspaces: bases (n+1, N, k) and triangles (n, k, k) after the burn-in.

    ``J_t Q[t-1] = Q[t] R[t]``; and which pivots, (n, k), are round-off.
    """
    k, T = basis.shape[1], system.T

    def factored(state, x):
        at, basis = state
        at, image = system.push(at, x, basis)
        Q, R, row_size = row_sorted_qr(image)
        floor = roundoff(len(Q), R.dtype) * row_size[:k]
        return (at, Q), (Q, R, jnp.abs(jnp.diagonal(R)) <= floor)

    def part(start, stop):
        return jax.tree.map(lambda a: a[start:stop], system.inputs)

    def settled(state, x):
        return factored(state, x)[0], None

    begin = varying_like((system.start, basis), system)
    start, _ = jax.lax.scan(settled, begin, part(0, burn_in), length=burn_in)
    rest = part(burn_in, T)
    _, (Q, R, is_roundoff) = jax.lax.scan(factored, start, rest, length=T - burn_in)
    return jnp.concatenate([start[1][None], Q]), R, is_roundoff


def _backward(R: Array) -> tuple[Array, Array]:
    """Coefficients (n+1, k, k) of the vectors in the subspaces, from the last back.

    ``C[t-1] = R[t]^-1 C[t]`` with columns of norm one; and the logs of what a step
    forward makes of that norm, (n, k).
    """

    def solved(C, R):
        pivots = jnp.diagonal(R)
        R = jnp.fill_diagonal(R, jnp.where(pivots == 0, 1, pivots), inplace=False)
        # R^-1 C may leave the range of floats, and squares of it sooner.
        of_row = exponent(jnp.abs(jnp.diagonal(R)))
        near_one = scaled(R, -of_row[None, :])
        before = jax.scipy.linalg.solve_triangular(near_one, C)
        e = jnp.max(exponent(before) - of_row[:, None], axis=0)
        before = scaled(before, -of_row[:, None] - e[None, :])
        size = jnp.linalg.norm(before, axis=0)
        before = before / size[None, :]
        growth = -e.astype(R.dtype) * math.log(2) - jnp.log(size)
        return before, (before, growth)

    eye = varying_like(jnp.eye(R.shape[-1], dtype=R.dtype), R)
    _, (C, growth) = jax.lax.scan(solved, eye, R, reverse=True)
    return jnp.concatenate([C, eye[None]]), growth
