"""A trajectory taken apart into steps, and cotangents that neither vanish nor explode.

A cotangent is kept near one, beside an integer power of two: scaling it is exact, and
so is adding up the scales.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from vgjax import _calls
from vgjax._layout import Point
from vgjax._scaled import Scaled, normalised
from vgjax._system import NO_RULE, OwnedArrays, System, pullback
from vgjax._typing import Step
from vgjax.gradients._loss import (
    Direct,
    Reading,
    direct_cotangents,
    is_differentiable,
    real_parts,
)
from vgjax.trajectories import Trajectory


class Cotangent(NamedTuple):
    """Of what one step returns."""

    state: Array  # (N,)
    outputs: list


class Unrolled(NamedTuple):
    """A trajectory, one row a step."""

    before: Point  # (T, ...) what each step started from
    inputs: Any  # (T, ...)
    read: Scaled  # (T, ...) direct cotangents of what each step returned


class Pulls(NamedTuple):
    """Steps in reverse, each ``(by theta, by state) = pull(Cotangent)``."""

    one: Callable  # one(before, x) -> pull
    all: Callable  # all(before, x) -> pull, a row a step; by theta is summed over rows


def parameters(step: Step, wrt: Any = None) -> tuple[list[str], tuple[int, ...]]:
    """Paths of the parameters of a step, and their places among its arrays.

    Args:
      step: as a user gave it.
      wrt: None, a class of `flax.nnx.Variable`, or a predicate of a path.
    """
    owner, _ = _calls.owned(step)
    owned = OwnedArrays(owner)
    kinds = _variable_kinds(owner)
    names, places = [], []
    for i, array in enumerate(owned.arrays):
        name = owned.paths[i]
        if is_differentiable(array) and _is_wanted(name, kinds.get(name), wrt):
            names.append(name)
            places.append(i)
    if not names and wrt is not None:
        msg = (
            f"Argument `wrt` must choose some of the floating arrays that `step` owns, "
            f"but chooses none of {owned.paths}."
        )
        raise ValueError(msg)
    if not names:
        msg = (
            "Argument `step` must have floating arrays among its leaves, its "
            "parameters, but has none; vgjax.steps.from_function gives them to a "
            "function."
        )
        raise ValueError(msg)
    return names, tuple(places)


def _is_wanted(name: str, kind: type | None, wrt: Any) -> bool:
    if isinstance(wrt, type):
        return kind is not None and issubclass(kind, wrt)
    if callable(wrt):
        return bool(wrt(name))
    if wrt is not None:
        msg = (
            f"Argument `wrt` must be a class of nnx.Variable, or a function of a path, "
            f"but is {wrt!r}."
        )
        raise TypeError(msg)
    return kind is None or issubclass(kind, sys.modules["flax.nnx"].Param)


def _variable_kinds(owner: Any) -> dict[str, type]:
    """The class of the Flax nnx Variable that each leaf is in, by the leaf's path."""
    nnx = sys.modules.get("flax.nnx")  # not loaded, it has made no Variable
    if nnx is None:
        return {}

    def is_variable(x):
        return isinstance(x, nnx.Variable)

    found = {}
    tree = jax.tree_util.tree_leaves_with_path(owner, is_leaf=is_variable)
    for path, variable in tree:
        if is_variable(variable):
            for inner, _ in jax.tree_util.tree_leaves_with_path(variable):
                found[jax.tree_util.keystr((*path, *inner))] = type(variable)
    return found


def pulls(system: System, places: tuple[int, ...] = ()) -> Pulls:
    """Return what carries cotangents back through a step, by its parameters too.

    Parameters are the arrays at `places`, their real and imaginary parts.
    """
    theta, with_theta = real_parts([system.arrays[i] for i in places])

    def after(theta, state, before, x) -> Cotangent:
        arrays = list(system.arrays)
        for place, array in zip(places, with_theta(theta), strict=True):
            arrays[place] = array
        new, y = replace(system, arrays=arrays).step(before._replace(state=state), x)
        return Cotangent(new.state, real_parts(y)[0])

    def one(before, x):
        def by(theta, state):
            return after(theta, state, before, x)

        return pullback(by, theta, before.state)

    def all_rows(before, x):
        steps = jax.vmap(after, in_axes=(None, 0, 0, 0))
        try:
            out, pull = jax.vjp(
                lambda theta, state: steps(theta, state, before, x),
                theta,
                before.state,
            )
            jax.eval_shape(pull, out)
        except NO_RULE:
            return Partial(_summed_over_rows, jax.vmap(one)(before, x))
        return pull

    return Pulls(one, all_rows)


def _summed_over_rows(pulls: Callable, rows: Cotangent) -> tuple[list, Array]:
    """Pull each row through its own step."""
    by_theta, states = jax.vmap(lambda pull, row: pull(row))(pulls, rows)
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), by_theta), states


def directly_read(system: System, reading: Reading) -> tuple[Any, Direct]:
    """Run a system: what each step started from, and what the loss reads directly."""

    def advance(_, at, x):
        new, y = system.step(at, x)
        return None, new, (at, y)

    _, last, (before, outputs) = system.scan(advance)
    states = jnp.concatenate([before.state, last.state[None]])
    trajectory = Trajectory(states, outputs, system.carry(last))
    return before, direct_cotangents(reading, trajectory)


def unroll(system: System, reading: Reading) -> Unrolled:
    """Run a system, and ask the loss what it reads."""
    before, direct = directly_read(system, reading)
    read = Cotangent(direct.states[1:], direct.outputs)
    return Unrolled(before, system.inputs, jax.vmap(normalised)(read))
