"""A step under `jax.lax.scan`: its trajectory.

The state is the flat form of the carry's floating leaves, in
`jax.flatten_util.ravel_pytree` order; for the ``(c, h)`` of a Flax LSTM it is [c; h],
and N is twice the number of features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step

__all__ = ["Trajectory", "rollout"]


def __dir__() -> list[str]:
    return __all__


class Trajectory(NamedTuple):
    """States and outputs of a step under `jax.lax.scan`.

    Attributes:
      states: (T+1, N) flat states, the initial one first.
      outputs: The outputs y, each leaf (T, ...).
      carry: The last carry.
    """

    states: Array
    outputs: Any
    carry: Carry


def rollout(
    step: Step, carry: Carry, inputs: Inputs = None, *, length: int | None = None
) -> Trajectory:
    """Run a step over inputs and keep every state.

    Args:
      step: ``step(carry, x) -> (carry, y)``: a Flax nnx cell, one of `vgjax.cells`, a
        function, a method, a `functools.partial`. It is traced where something that it
        reads has changed, and
        compiled only where its program is new: new weights, and new closures over new
        arrays, run what is compiled. A module whose Variables of integers or keys
        change while it steps (dropout, a clock) takes them from step to step, and is
        itself left as it was.
      carry: initial carry, a PyTree. Its floating leaves, of one dtype, are the
        *state*, N numbers; a complex leaf counts as its real part, then its imaginary
        part. All other leaves (integers, flags, keys) are passengers: they are handed
        from step to step, and are not differentiated.
      inputs: (T, D), or a PyTree of arrays of any dtype with time along the leading
        axis. None for a step without inputs, which is called with x = None.
      length: T, needed where there are no inputs.

    Returns:
      `Trajectory`: states (T+1, N), of which ``states[0]`` is the initial one, outputs
      (T, ...) and the last carry.

    Raises:
      ValueError: the step changes floating Variables of its own, such as the running
        statistics of batch normalisation.

    Notes:
      Nothing is batched: write `jax.vmap`. A carry (B, N) with inputs (T, B, D) is one
      state of B N numbers, whose Jacobian has B^2 N^2.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> vgjax.rollout(halve, jnp.array([8.0]), jnp.zeros((3, 1))).states
      Array([[8.],
             [4.],
             [2.],
             [1.]], dtype=float32)
    """
    return trajectory_of(system(step, carry, inputs, length))


@jax.jit
def trajectory_of(system: System) -> Trajectory:
    """Run a system."""

    def advance(_, at, x):
        new, y = system.step(at, x)
        return None, new, (new.state, y)

    _, last, (states, outputs) = system.scan(advance)
    states = jnp.concatenate([system.start.state[None], states])
    return Trajectory(states, outputs, system.carry(last))
