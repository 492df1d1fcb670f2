"""How much of what the loss reads at one step reaches the state of another."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax._linalg import varying_like
from vgjax._scaled import ZERO, Scaled, log_norm, normalised
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, Reading, reading_of
from vgjax.gradients._unrolled import Cotangent, Unrolled, pulls, unroll

__all__ = ["gradient_flow"]


def __dir__() -> list[str]:
    return __all__


def gradient_flow(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
) -> Float[Array, "T T"]:
    r"""Return $\log \|dL_t/ds_s\|$ for all steps s and t, as a map.

    $L_t$ is the part of the loss that reads what step t made, its state $s_t$ and its
    output $y_t$: the cotangents of all states, and those of the loss as a whole, are
    the sums over t of what is measured here.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      loss: as for `cotangents`.
      length: T, needed where there are no inputs.

    Returns:
      (T, T), nats. ``[t - 1, s - 1]`` is how far $L_t$ reaches back to $s_s$; a row is
      read from its diagonal to the left. -inf where s > t, since no later state can
      matter, and where a step is not read or nothing of it arrives.

    Raises:
      ValueError: as `cotangents` does.
      TypeError: as `cotangents` does; the step returns complex outputs.

    Notes:
      A loss of the outputs does not read the states themselves: $y_t$ is made in step t
      of $s_{t-1}$, so the diagonal is -inf and row t begins at s = t - 1. What the loss
      reads of the initial state appears nowhere. One pass back carries the T
      cotangents, each with an integer for its scale: any number of steps is safe, at
      O(T^2) work and no memory of order T^2 but the result. A direct cotangent that is
      subnormal counts as zero.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), equations 4 and 5, the factors that
      transport an error from step t back to step s.

    Examples:
      >>> import jax.numpy as jnp
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> every = lambda trajectory: trajectory.states.sum()
      >>> gradient_flow(halve, jnp.ones(1), jnp.zeros((3, 1)), every).round(2)
      Array([[ 0.  ,  -inf,  -inf],
             [-0.69,  0.  ,  -inf],
             [-1.39, -0.69,  0.  ]], dtype=float32)
    """
    measured = system(step, carry, inputs, length)
    return _gradient_flow(measured, reading_of(loss, measured))


@jax.jit
def _gradient_flow(system: System, reading: Reading) -> Array:
    unrolled = unroll(system, reading)
    back = pulls(system)
    T, N, dtype = system.T, system.N, system.product_dtype

    # Written into the result as it comes: stacked by the scan, it would have to be
    # transposed, which takes another T^2 numbers.
    def earlier(rows_and_found, row_and_time):
        (rows, found), (row, t) = rows_and_found, row_and_time
        state, e = normalised(row.read.values.state, row.read.exponent)
        rows = _set_row(rows, t, state, e)
        norms = jax.vmap(lambda row: log_norm(row, dtype))(rows)
        found = found.at[:, t].set(norms)

        pull = back.one(row.before, row.inputs)
        unread = jax.tree.map(jnp.zeros_like, row.read.values.outputs)
        states = jax.vmap(lambda state: pull(Cotangent(state, unread))[1])(rows.values)
        # Rows of later steps are zero, and stay it where a Jacobian is NaN.
        states = jnp.where((rows.exponent == ZERO)[:, None], 0, states)
        rows = jax.vmap(normalised)(states, rows.exponent)
        # The row that is read here brings its outputs with it.
        state, e = normalised(pull(row.read.values)[1], row.read.exponent)
        return (_set_row(rows, t, state, e), found), None

    none = Scaled(jnp.zeros((T, N), system.dtype), jnp.full(T, ZERO, jnp.int32))
    xs: tuple[Unrolled, Array] = (unrolled, jnp.arange(T))
    nothing = jnp.full((T, T), -jnp.inf, dtype)
    begin = varying_like((none, nothing), system)
    return jax.lax.scan(earlier, begin, xs, reverse=True)[0][1]


def _set_row(rows: Scaled, t: Array, state: Array, e: Array) -> Scaled:
    return Scaled(rows.values.at[t].set(state), rows.exponent.at[t].set(e))
