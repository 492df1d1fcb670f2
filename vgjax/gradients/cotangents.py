"""The cotangents of all states, in one backward pass."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, evaluate, frozen_loss
from vgjax.trajectories import Trajectory, first, flat_step, prepare


def cotangents(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
) -> Float[Array, "T+1 N"]:
    r"""Return how a loss moves with every state of a trajectory, $dL/ds_t$.

    All that follows from a state counts: $\delta_t = d_t + J_{t+1}^T \delta_{t+1}$,
    with $d_t$ the direct cotangent. For a loss on the last state,
    $\delta_t = \Phi(T, t)^T \delta_T$.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      loss: ``loss(trajectory) -> scalar`` of a `vgjax.trajectories.Trajectory`, on its
        states, outputs or carry: a function, or a callable PyTree such as
        ``jax.tree_util.Partial(nll, labels)``, whose arrays may change without
        compiling anew. Or an array (T+1, N) of direct cotangents, of the carry's dtype.
      length: T, needed where there are no inputs.

    Returns:
      (T+1, N), of which ``[t]`` belongs to ``states[t]``. Plain numbers: what is below
      the range of the dtype reads 0 and what is above it infinity or NaN;
      `gradient_flow` and `lag_contributions` read logs.

    Raises:
      ValueError: as `vgjax.rollout` does; `loss` is an array of another shape.
      TypeError: as `vgjax.rollout` does; `loss` is neither callable nor an array, has
        another dtype than the carry, or does not return one real number.

    Notes:
      Costs what `jax.grad` by the parameters does, or less. Holds what one backward
      pass holds: T times the numbers that a step computes with.

    Examples:
      >>> import jax.numpy as jnp
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> cotangents(halve, jnp.ones(1), jnp.zeros((3, 1)), last)
      Array([[0.125],
             [0.25 ],
             [0.5  ],
             [1.   ]], dtype=float32)
    """
    prepared = prepare(step, carry, inputs, length)
    reading, arrays = frozen_loss(loss, prepared)
    return _cotangents(*prepared, reading, arrays)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _cotangents(frozen, weights, carry, inputs, T, reading, arrays):
    step, flat, unflatten = flat_step(frozen, weights, carry, first(inputs))

    def moved(flat, by):
        return flat._replace(state=flat.state + by)

    def advance(flat, x_and_nudge):
        x, nudge = x_and_nudge
        new, y = step(flat, x)
        new = moved(new, nudge)
        return new, (new.state, y)

    def value(at_start, nudges):
        start = moved(flat, at_start)
        last, (states, outputs) = jax.lax.scan(advance, start, (inputs, nudges))
        states = jnp.concatenate([start.state[None], states])
        return evaluate(reading, arrays, Trajectory(states, outputs, unflatten(last)))

    nudges = jnp.zeros((T, flat.state.size), flat.state.dtype)
    found = jax.grad(value, argnums=(0, 1))(nudges[0], nudges)
    return jnp.concatenate([found[0][None], found[1]])
