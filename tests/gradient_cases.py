"""Arguments of the functions of `vgjax.gradients`, and the same by hand."""

import functools

import gradient_systems as systems
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgjax import steps

T = 9


def case(kind, dtype, seed=1):
    """Arguments of ours, and d and e with all else that `paths` takes."""
    params = systems.parameters(seed)
    rng = np.random.default_rng(seed + 10)
    h, inputs = rng.standard_normal(systems.N), rng.standard_normal((T, systems.D))
    data = systems.data_of(kind, T)
    states = systems.run(params, h, inputs)
    hand = (params, states, inputs, *systems.direct(kind, params, states, data))
    cast = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, dtype))
    step = steps.from_function(systems.network, cast(params))
    data = cast(data)
    loss = Partial(systems.LOSSES[kind], data) if kind in systems.LOSSES else data
    return (step, cast(h), cast(inputs), loss), hand


def scale(params, h, x):
    return params["w"] * h + params["u"] * x, None


def fixed_point(w, T, dtype):
    """A linear unit that stays exactly where it is, for it starts there."""
    params = {"w": jnp.asarray(w, dtype), "u": jnp.ones((), dtype)}
    step = steps.from_function(scale, params)
    return step, jnp.full(1, 1 / (1 - w), dtype), jnp.ones((T, 1), dtype)


def last_one(trajectory):
    return trajectory.states[-1, 0]
