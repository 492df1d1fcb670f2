"""A trajectory taken apart into steps, and cotangents that neither vanish nor explode.

A cotangent is kept near one, beside an integer power of two: scaling it is exact, and
so is adding up the scales.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vgjax._linalg import exponent, scaled
from vgjax._typing import Step
from vgjax.gradients._loss import direct_cotangents, floating
from vgjax.trajectories import Flat, FrozenStep, Trajectory, first, flat_step

# Stands for the -inf that int32 lacks; halfway to its end, so that exponents can be
# added to it before it is set again.
ZERO = -(2**30)


class Graded(NamedTuple):
    """Arrays near one, times ``2^exponent``. Zero has an exponent below all others."""

    values: Any
    exponent: Array  # () int32


class Cotangent(NamedTuple):
    """Of what one step returns."""

    state: Array  # (N,)
    outputs: list


class Unrolled(NamedTuple):
    """A trajectory, one row a step."""

    before: Flat  # (T, ...) what each step started from
    inputs: Any  # (T, ...)
    read: Graded  # (T, ...) direct cotangents of what each step returned


class Pulls(NamedTuple):
    """Steps in reverse, each ``(by theta, by state) = pull(Cotangent)``."""

    one: Callable  # one(before, x) -> pull
    all: Callable  # all(before, x) -> pull, a row a step; by theta is summed over rows


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of a step is a parameter: floating, not empty."""
    arrays = (jax.Array, np.ndarray, np.generic, float)
    if not isinstance(leaf, arrays) or np.size(leaf) == 0:
        return False
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def parameter_names(step: Step) -> list[str]:
    """Paths of the parameters of a step, which must have some."""
    leaves = jax.tree_util.tree_leaves_with_path(step)
    names = [jax.tree_util.keystr(path) for path, leaf in leaves if is_parameter(leaf)]
    if not names:
        msg = (
            "Argument `step` must have floating arrays among its leaves, its "
            "parameters, but has none; vgjax.cells.from_function gives them to a "
            "function."
        )
        raise ValueError(msg)
    return names


def pulls(frozen: FrozenStep, weights: list, carry: Any, inputs: Any) -> Pulls:
    """Return what carries cotangents back through a step, by its parameters too."""
    places = [is_parameter(leaf) for leaf in weights]
    parameters = [leaf for leaf, at in zip(weights, places, strict=True) if at]

    def after(theta, state, before, x) -> Cotangent:
        left = iter(theta)
        merged = [
            next(left) if at else leaf for leaf, at in zip(weights, places, strict=True)
        ]
        step, _, _ = flat_step(frozen, merged, carry, first(inputs))
        new, y = step(before._replace(state=state), x)
        return Cotangent(new.state, floating(y)[0])

    def pull(step, before, x):
        return jax.vjp(
            lambda theta, state: step(theta, state, before, x), parameters, before.state
        )[1]

    steps = jax.vmap(after, in_axes=(None, 0, 0, 0))
    return Pulls(partial(pull, after), partial(pull, steps))


def unroll(frozen, weights, carry, inputs, T, reading, arrays) -> Unrolled:
    """Run a step over its inputs, and ask the loss what it reads."""
    step, flat, unflatten = flat_step(frozen, weights, carry, first(inputs))

    def advance(flat, x):
        new, y = step(flat, x)
        return new, (flat, y)

    last, (before, outputs) = jax.lax.scan(advance, flat, inputs, length=T)
    states = jnp.concatenate([before.state, last.state[None]])
    trajectory = Trajectory(states, outputs, unflatten(last))
    direct = direct_cotangents(reading, arrays, trajectory)
    read = Cotangent(direct.states[1:], direct.outputs)
    return Unrolled(before, inputs, jax.vmap(graded)(read))


def graded(values: Any, e: Array | None = None) -> Graded:
    """Bring arrays, times ``2^e``, near one."""
    e = jnp.zeros((), jnp.int32) if e is None else e
    sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(values)]
    own = jnp.max(jnp.stack([exponent(size) for size in sizes]))
    zero = jnp.all(jnp.stack([size == 0 for size in sizes]))
    values = jax.tree.map(lambda leaf: scaled(leaf, -own), values)
    return Graded(values, jnp.where(zero, ZERO, e + own))


def total(a: Graded, b: Graded) -> Graded:
    """Add two graded PyTrees."""
    top = jnp.maximum(a.exponent, b.exponent)
    values = jax.tree.map(jnp.add, at_level(a, top), at_level(b, top))
    return graded(values, top)


def at_level(x: Graded, level: Array) -> Any:
    """Values of a graded PyTree, divided by ``2^level``."""
    return jax.tree.map(lambda leaf: scaled(leaf, x.exponent - level), x.values)


def log_norm_of_all(x: Graded, dtype: jnp.dtype) -> Array:
    """Log of the norm of all leaves together, in nats; -inf for zero."""
    near_one, e = graded(*x)
    leaves = jax.tree.leaves(near_one)
    squares = jnp.stack([jnp.sum(leaf**2).astype(dtype) for leaf in leaves])
    return 0.5 * jnp.log(jnp.sum(squares)) + e.astype(dtype) * math.log(2)
