"""The cotangents of all states, or the logs of their norms, in one backward pass."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax._linalg import varying_like
from vgjax._scaled import Scaled, add, log_norm, normalised
from vgjax._system import NO_RULE, System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, Reading, reading_of
from vgjax.gradients._unrolled import Cotangent, directly_read, pulls
from vgjax.trajectories import Trajectory

__all__ = ["cotangents", "log_cotangents"]


def __dir__() -> list[str]:
    return __all__


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
        states, outputs or carry: any function. It is traced where something that it
        reads has changed, and other arrays, its own or closed over, compile nothing
        anew. Or an array (T+1, N) of direct cotangents, of the carry's dtype.
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
      Costs what `jax.grad` by the parameters does, or less. Holds the T N numbers of
      the states: each step is taken again on the way back. Of a complex leaf it is the
      derivative by the real part, then by the imaginary part.

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
    measured = system(step, carry, inputs, length)
    return _cotangents(measured, reading_of(loss, measured))


@jax.jit
def _cotangents(system: System, reading: Reading) -> Array:
    # One backward pass through the scan keeps what each step computed; the recursion
    # takes every step twice, 1.2 to 1.8 times as long.
    try:
        return _by_nudges(system, reading)
    except NO_RULE:
        return _by_recursion(system, reading)


def _by_nudges(system: System, reading: Reading) -> Array:
    """Differentiate by zeros that are added to every state."""

    def moved(at, by):
        return at._replace(state=at.state + by)

    def advance(_, at, x_and_nudge):
        x, nudge = x_and_nudge
        new, y = system.step(at, x)
        new = moved(new, nudge)
        return None, new, (new.state, y)

    def value(at_start, nudges):
        start = moved(system.start, at_start)
        nudged = replace(system, start=start, inputs=(system.inputs, nudges))
        _, last, (states, outputs) = nudged.scan(advance)
        states = jnp.concatenate([start.state[None], states])
        return reading(Trajectory(states, outputs, system.carry(last)))

    nudges = jnp.zeros((system.T, system.N), system.dtype)
    nudges = varying_like(nudges, system)
    first, later = jax.grad(value, argnums=(0, 1))(nudges[0], nudges)
    return jnp.concatenate([first[None], later])


def log_cotangents(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
) -> Float[Array, " T+1"]:
    r"""Return the log norms of a loss's cotangents by lag, $\log \|dL/ds_{T-k}\|$.

    These are the norms of what `cotangents` gives, the last state first, however far
    below or above the range of the dtype they fall.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      loss: as for `cotangents`.
      length: T, needed where there are no inputs.

    Returns:
      (T+1,), nats, of which ``[k]`` belongs to the state k steps before the last.
      -inf where the loss does not move with a state at all.

    Notes:
      One backward pass, which takes each step again. Every cotangent carries its scale
      as a power of two, one for all N numbers.

    Examples:
      >>> import jax.numpy as jnp
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> log_norm = log_cotangents(halve, jnp.ones(1), jnp.zeros((5000, 1)), last)
      >>> log_norm[jnp.array([0, 1, 5000])].round(2)  # log(2) a step
      Array([ 0.00000e+00, -6.90000e-01, -3.46574e+03], dtype=float32)
    """
    measured = system(step, carry, inputs, length)
    return _log_cotangents(measured, reading_of(loss, measured))


@jax.jit
def _log_cotangents(system: System, reading: Reading) -> Array:
    before, direct = directly_read(system, reading)
    back, dtype = pulls(system), system.product_dtype

    def read_here(later: Scaled, read: Cotangent) -> tuple[Scaled, Array]:
        """Add what is read of a state to what later steps brought to it."""
        state = add(later, normalised(read.state))
        return state, log_norm(state, dtype)

    def earlier(later, row):
        before, x, read = row
        state, norm = read_here(later, read)
        # The outputs of the step that made this state are pulled through it together.
        unread = jax.tree.map(jnp.zeros_like, read.outputs)
        made = Scaled(Cotangent(state.values, unread), state.exponent)
        made = add(
            made, normalised(Cotangent(jnp.zeros_like(read.state), read.outputs))
        )
        return normalised(back.one(before, x)(made.values)[1], made.exponent), norm

    nothing = normalised(varying_like(jnp.zeros(system.N, system.dtype), system))
    read = Cotangent(direct.states[1:], direct.outputs)
    rows = (before, system.inputs, read)
    later, log_norms = jax.lax.scan(earlier, nothing, rows, reverse=True)
    _, first = read_here(later, Cotangent(direct.states[0], []))
    return jnp.concatenate([log_norms[::-1], first[None]])


def _by_recursion(system: System, reading: Reading) -> Array:
    before, direct = directly_read(system, reading)
    back = pulls(system)

    def earlier(total, row):
        before, x, state, outputs = row
        _, pulled = back.one(before, x)(Cotangent(total, outputs))
        return state + pulled, total

    rows = (before, system.inputs, direct.states[:-1], direct.outputs)
    first, later = jax.lax.scan(earlier, direct.states[-1], rows, reverse=True)
    return jnp.concatenate([first[None], later])
