"""Jacobians of a step along its trajectory.

``J_t = d s_t / d s_{t-1}``, row = output; the propagator
``Phi(t, s) = J_t ... J_{s+1}`` has the newest factor on the left.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax import activations
from vgjax._layout import layout_of
from vgjax._system import System, jacobian, system
from vgjax._typing import Carry, Inputs, Step

__all__ = [
    "Saturation",
    "input_jacobians",
    "propagator",
    "saturation",
    "state_jacobian",
    "state_jacobians",
]


def __dir__() -> list[str]:
    return __all__


def state_jacobian(step: Step, carry: Carry, x=None) -> Float[Array, "N N"]:
    """Return how the next state moves with the present one.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: where to differentiate; N numbers.
      x: the inputs of this one step, without a time axis.

    Returns:
      (N, N). Entry i, j is the derivative of coordinate i of the next state by
      coordinate j of the present one.
    """
    inputs = jax.tree.map(lambda a: jnp.asarray(a)[None], x)
    return state_jacobians(step, carry, inputs, length=1)[0]


def state_jacobians(
    step: Step, carry: Carry, inputs: Inputs = None, *, length: int | None = None
) -> Float[Array, "T N N"]:
    """Return the state Jacobian of every step of a trajectory.

    Costs N backward passes through the step at each time, run as one batch. The stack
    takes T N^2 numbers; `vgjax.jacobian_spectrum` never holds it.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.

    Returns:
      (T, N, N). ``[t]`` maps changes of ``states[t]`` to changes of ``states[t + 1]``,
      row = output.
    """
    return _state_jacobians(system(step, carry, inputs, length))


def input_jacobians(step: Step, carry: Carry, inputs: Inputs) -> Float[Array, "T N D"]:
    """Return how each state moves with the inputs of the step that led to it.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D), or a PyTree whose leaves hold D numbers a step, in
        `ravel_pytree` order.

    Returns:
      (T, N, D). ``[t, i, j]`` is the derivative of coordinate i of ``states[t + 1]`` by
      number j of ``inputs[t]``, with ``states[t]`` held fixed.
    """
    if not jax.tree.leaves(inputs):
        msg = f"Argument `inputs` must hold arrays, but is {inputs}."
        raise ValueError(msg)
    measured = system(step, carry, inputs)
    if layout_of(measured.inputs).N == 0:
        msg = "Argument `inputs` must hold floating numbers, but has none."
        raise TypeError(msg)
    return _input_jacobians(measured)


def propagator(
    step: Step, carry: Carry, inputs: Inputs = None, *, length: int | None = None
) -> Float[Array, "N N"]:
    """Return how the last state moves with the first: `jax.jacrev` of the whole scan.

    This is the definition, and what everything else is tested against where T is
    small. For long T its entries overflow or vanish and its small singular values are
    noise; use `vgjax.jacobian_spectrum`.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.

    Returns:
      (N, N), row = output: ``Phi(T, 0) = J_T ... J_2 J_1``.
    """
    return _propagator(system(step, carry, inputs, length))


class Saturation(NamedTuple):
    """What automatic differentiation loses of the state Jacobians of a trajectory.

    Attributes:
      lost: (T,) fraction of the N rows that are given as zeros and are not.
      wrong: (T,) fraction off by more than 1 % of the row's largest entry.
    """

    lost: Array
    wrong: Array


def saturation(
    step: Step, carry: Carry, inputs: Inputs = None, *, length: int | None = None
) -> Saturation:
    """Return how much of each state Jacobian autodiff loses to saturated activations.

    Compares, along one trajectory, the Jacobians through JAX's derivatives of tanh,
    logistic, erf and expm1 (`vgjax.activations.plain`) with those through exact ones
    (`vgjax.activations.exact`). Which of them `step` itself uses makes no difference.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.

    Returns:
      `Saturation`: ``lost`` and ``wrong``, (T,) each, fractions of the N rows between 0
      and 1; a lost row is also wrong. A row that is truly zero, or too small for a
      normal number, is neither; NaN where the Jacobian holds one.

    Notes:
      Costs twice what `state_jacobians` does, and holds no stack. Formulas that cancel
      by themselves (`jax.nn.gelu` below -5) and rules of other `jax.custom_vjp` are
      common to both sides, and not seen.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> step = lambda h, x: (jnp.tanh(x * h), None)
      >>> inputs = jnp.array([[1.0, 1.0], [1.0, 30.0]])  # the second one saturates
      >>> vgjax.jacobians.saturation(step, jnp.ones(2), inputs).lost
      Array([0. , 0.5], dtype=float32)
    """
    return _saturation(system(step, carry, inputs, length))


@jax.jit
def _state_jacobians(system: System) -> Array:
    def advance(_, at, x):
        return None, *system.jacobian(at, x)

    return system.scan(advance)[2]


@jax.jit
def _input_jacobians(system: System) -> Array:
    layout = layout_of(system.first_input())

    def advance(_, at, x):
        held = layout.flatten(jax.tree.leaves(x))

        def after(numbers):
            new, _ = system.step(at, layout.unflatten(numbers, held.passengers))
            return new.state, new

        new, J = jacobian(after, held.state)
        return None, new, J

    return system.scan(advance)[2]


@jax.jit
def _propagator(system: System) -> Array:
    def last(state):
        def advance(_, at, x):
            return None, system.step(at, x)[0], None

        at = system.from_state(state).scan(advance)[1]
        return at.state, None

    return jacobian(last, system.start.state)[1]


@jax.jit
def _saturation(system: System) -> Saturation:
    def jacobian_of(step, at, x):
        def after(state):
            new, _ = step(at._replace(state=state), x)
            return new.state, new

        return jacobian(after, at.state)

    def advance(_, at, x):
        new, true = jacobian_of(activations.exact(system.step), at, x)
        _, plain = jacobian_of(activations.plain(system.step), at, x)
        # Largest entries: squares would underflow where it matters.
        size = jnp.max(jnp.abs(true), axis=1)
        lost = (size > 0) & (jnp.max(jnp.abs(plain), axis=1) == 0)
        off = jnp.max(jnp.abs(plain - true), axis=1)
        wrong = (size > 0) & ~(off <= 0.01 * size)  # NaN is wrong

        def fraction(rows):
            rows = jnp.mean(rows.astype(system.product_dtype))
            return jnp.where(jnp.any(jnp.isnan(size)), jnp.nan, rows)

        return None, new, Saturation(fraction(lost), fraction(wrong))

    return system.scan(advance)[2]
