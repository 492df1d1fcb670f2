"""A loss of a trajectory, and how it moves with each state and output by itself."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _checks
from vgjax.trajectories import FrozenStep, Prepared, Trajectory, freeze, state_size

Loss: TypeAlias = Callable[[Trajectory], Any] | Any
"""``loss(trajectory) -> scalar``, or (T+1, N) direct cotangents of the states."""


class Direct(NamedTuple):
    """How a loss moves with each state and output when all others are held fixed."""

    states: Array  # (T+1, N), the initial one first
    outputs: list  # floating leaves of the outputs, (T, ...) each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Given:
    """The loss whose direct cotangents are these."""

    cotangents: Array

    def __call__(self, trajectory):
        return jnp.sum(self.cotangents * trajectory.states)


def frozen_loss(loss: Loss, prepared: Prepared) -> tuple[FrozenStep, list]:
    """Check a loss, and split it into its arrays and the rest."""
    if not callable(loss):
        return freeze(_Given(_checked_cotangents(loss, prepared)))
    if inspect.ismethod(loss):
        msg = (
            f"Argument `loss` must be a function or a callable PyTree, but is the "
            f"bound method {loss.__qualname__}, whose arrays would be frozen at first "
            f"use."
        )
        raise TypeError(msg)
    frozen, arrays = freeze(loss)
    try:
        hash(frozen)
    except TypeError:
        msg = (
            f"Argument `loss` must be hashable or a PyTree of arrays, but "
            f"{type(loss).__name__} is neither; wrap it with jax.tree_util.Partial."
        )
        raise TypeError(msg) from None
    return frozen, arrays


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


def _checked_cotangents(loss: Any, prepared: Prepared) -> Array:
    loss = as_cotangents(loss)
    carry = jax.tree.leaves(prepared.carry)
    dtype = next(a.dtype for a in carry if jnp.issubdtype(a.dtype, jnp.floating))
    rows, N = prepared.T + 1, state_size(prepared.carry)
    if loss.shape != (rows, N):
        msg = (
            f"Argument `loss` must have shape (T+1, N) = ({rows}, {N}) where it is an "
            f"array of direct cotangents, but has shape {loss.shape}."
        )
        raise ValueError(msg)
    _checks.same_dtype(loss, "loss", dtype)
    return loss


def evaluate(frozen: FrozenStep, arrays: list, trajectory: Trajectory) -> Array:
    """Return the loss, refused where it is no scalar."""
    with jax.default_matmul_precision("highest"):
        value = frozen.thawed(arrays)(trajectory)
    dtype = getattr(value, "dtype", None)
    if jnp.shape(value) != () or dtype is None or not _is_floating(value):
        found = type(value).__name__ if dtype is None else f"{dtype}{[*value.shape]}"
        msg = f"Argument `loss` must return one real number, but returns {found}."
        raise TypeError(msg)
    return value


def direct_cotangents(
    frozen: FrozenStep, arrays: list, trajectory: Trajectory
) -> Direct:
    """Differentiate a loss by every state and output, the others held fixed.

    The carry is the last state: what reads it counts there.
    """
    outputs, with_outputs = floating(trajectory.outputs)
    carry, with_carry = floating(trajectory.carry)

    def value(states, outputs, carry):
        read = Trajectory(states, with_outputs(outputs), with_carry(carry))
        return evaluate(frozen, arrays, read)

    gradient = jax.grad(value, argnums=(0, 1, 2))
    states, outputs, carry = gradient(trajectory.states, outputs, carry)
    last = jnp.concatenate([leaf.ravel() for leaf in carry])
    return Direct(states.at[-1].add(last), outputs)


def floating(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Leaves of a PyTree that have a derivative, and how to put others in their place.

    In the order of the PyTree, which is that of the state for a carry.
    """
    leaves, structure = jax.tree.flatten(tree)
    places = [_is_floating(leaf) and leaf.size > 0 for leaf in leaves]
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves):
        msg = "Argument `step` must return real outputs, but returns complex ones."
        raise TypeError(msg)

    def merge(new: list) -> Any:
        left = iter(new)
        merged = [
            next(left) if at else leaf for leaf, at in zip(leaves, places, strict=True)
        ]
        return jax.tree.unflatten(structure, merged)

    return [leaf for leaf, at in zip(leaves, places, strict=True) if at], merge


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
