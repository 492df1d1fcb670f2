"""A loss of a trajectory, and how it moves with each state and output by itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _calls, _checks
from vgjax._programs import Program, traced
from vgjax._system import OwnedArrays, System
from vgjax.trajectories import Trajectory, trajectory_of

Loss: TypeAlias = Callable[[Trajectory], Any] | Any
"""``loss(trajectory) -> scalar``, or (T+1, N) direct cotangents of the states."""


class Direct(NamedTuple):
    """How a loss moves with each state and output when all others are held fixed."""

    states: Array  # (T+1, N), the initial one first
    outputs: list  # real parts of the outputs, (T, ...) each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reading:
    """A loss, traced: what it is apart from its arrays is static."""

    program: Program = field(metadata={"static": True})
    arrays: list  # what the loss owns
    constants: list  # what it closes over

    def __call__(self, trajectory: Trajectory) -> Array:
        """Return the loss."""
        leaves = jax.tree.leaves(trajectory)
        return self.program(self.constants, *self.arrays, *leaves)[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Given:
    """The loss whose direct cotangents are these."""

    cotangents: Array

    def __call__(self, trajectory):
        return jnp.sum(self.cotangents * trajectory.states)


def reading_of(loss: Loss, system: System) -> Reading:
    """Check a loss, and trace it for the trajectories of a system."""
    if not callable(loss):
        loss = _Given(_checked_cotangents(loss, system))
    owner, call = _calls.owned(loss)
    owned = OwnedArrays(owner)

    def value_of(arrays, trajectory):
        with jax.default_matmul_precision("highest"):
            return _checked_value(call(owned.put_back(list(arrays)), trajectory))

    trajectory = jax.eval_shape(trajectory_of, system)
    program, constants = traced(
        value_of, owned.arrays, trajectory, decided_by=(owned.rest, call)
    )
    return Reading(program, owned.arrays, constants)


def as_cotangents(loss: Any) -> Array:
    """Return what is no function as an array."""
    try:
        return jnp.asarray(loss)
    except (TypeError, ValueError):
        msg = (
            f"Argument `loss` must be callable as loss(trajectory), or an array of "
            f"direct cotangents, but is {type(loss).__name__}."
        )
        raise TypeError(msg) from None


def _checked_cotangents(loss: Any, system: System) -> Array:
    loss = as_cotangents(loss)
    rows, N = system.T + 1, system.N
    if loss.shape != (rows, N):
        msg = (
            f"Argument `loss` must have shape (T+1, N) = ({rows}, {N}) where it is an "
            f"array of direct cotangents, but has shape {loss.shape}."
        )
        raise ValueError(msg)
    _checks.same_dtype(loss, "loss", system.dtype)
    return loss


def _checked_value(value: Any) -> Array:
    dtype = getattr(value, "dtype", None)
    if dtype is None or value.shape != () or not _is_floating(value):
        found = type(value).__name__ if dtype is None else f"{dtype}{[*value.shape]}"
        msg = f"Argument `loss` must return one real number, but returns {found}."
        raise TypeError(msg)
    return value


def direct_cotangents(reading: Reading, trajectory: Trajectory) -> Direct:
    """Differentiate a loss by every state and output, the others held fixed.

    The carry is the last state: what reads it counts there.
    """
    outputs, with_outputs = real_parts(trajectory.outputs)
    carry, with_carry = real_parts(trajectory.carry)

    def value(states, outputs, carry):
        return reading(Trajectory(states, with_outputs(outputs), with_carry(carry)))

    gradient = jax.grad(value, argnums=(0, 1, 2))
    states, outputs, carry = gradient(trajectory.states, outputs, carry)
    last = jnp.concatenate([leaf.ravel() for leaf in carry])
    return Direct(states.at[-1].add(last), outputs)


def real_parts(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Real numbers of a PyTree, and how to put others in their place.

    In the order of the PyTree, which is that of the state for a carry: of a complex
    leaf its real part, then its imaginary part. Integers, keys and empty leaves stay.
    """
    leaves, structure = jax.tree.flatten(tree)
    parts = []
    for leaf in leaves:
        if _is_complex(leaf):
            parts += [jnp.real(leaf), jnp.imag(leaf)]
        elif is_differentiable(leaf):
            parts.append(leaf)

    def merge(new: list) -> Any:
        left = iter(new)
        merged = []
        for leaf in leaves:
            if _is_complex(leaf):
                merged.append(jax.lax.complex(next(left), next(left)))
            else:
                merged.append(next(left) if is_differentiable(leaf) else leaf)
        return jax.tree.unflatten(structure, merged)

    return parts, merge


def is_differentiable(leaf: Any) -> bool:
    """Whether an array has a derivative: floating or complex, and not empty."""
    return (_is_floating(leaf) and leaf.size > 0) or _is_complex(leaf)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating) and x.size > 0
