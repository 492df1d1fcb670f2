"""Vectors pushed forward and pulled back along a trajectory, a block at a time."""

import jax
from jax import Array

from vgjax.trajectories import Flat


def push_forward(step):
    """Make ``push(flat, block, x) -> (next flat, J @ block)``, block (N, k)."""

    def push(flat: Flat, block: Array, x) -> tuple[Flat, Array]:
        def advance(state):
            new, _ = step(flat._replace(state=state), x)
            return new.state, new

        _, multiply, new = jax.linearize(advance, flat.state, has_aux=True)
        return new, jax.vmap(multiply, in_axes=1, out_axes=1)(block)

    return push


def pull_back(step):
    """Make ``pull(flat, block, x) -> J.T @ block``, block (N, k)."""

    def pull(flat: Flat, block: Array, x) -> Array:
        def advance(state):
            return step(flat._replace(state=state), x)[0].state

        _, pull_one = jax.vjp(advance, flat.state)
        return jax.vmap(lambda v: pull_one(v)[0], in_axes=1, out_axes=1)(block)

    return pull
