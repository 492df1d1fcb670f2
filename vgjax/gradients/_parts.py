"""The gradient of the parameters, one lag after another."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from vgjax._linalg import any_in_batch, varying_like
from vgjax._scaled import ZERO, Scaled, add, at_exponent, normalised
from vgjax.gradients._unrolled import Cotangent, Pulls, Unrolled


def total_gradient(pulls: Pulls, unrolled: Unrolled) -> Scaled:
    """Return the gradient by the parameters, all lags together."""

    def back(later: Scaled, row: Unrolled):
        here = add(later, row.read)
        _, state = pulls.one(row.before, row.inputs)(here.values)
        return _of_state(state, here.exponent, here.values), here

    later = jax.tree.map(lambda a: jnp.zeros_like(a[0]), unrolled.read.values)
    later = Scaled(later, jnp.full((), ZERO, jnp.int32))
    later = varying_like(later, unrolled)
    _, here = jax.lax.scan(back, later, unrolled, reverse=True)
    return _summed(pulls.all(unrolled.before, unrolled.inputs), here)


def over_lags(
    pulls: Pulls,
    unrolled: Unrolled,
    T: int,
    measure: Callable[[Scaled], Any],
    *,
    read_early: bool | None,
    vectorised: Callable[[Callable], Callable] = lambda f: f,
) -> Any:
    """Measure the part of the gradient that travelled k steps, for each k in turn.

    Where `vectorised` is `jax.vmap`, `unrolled` is a batch, and so is what is measured.
    Where `read_early` is None, as under a trace, both walks are compiled; else one.
    """

    def walk(begin, advance):
        def run(unrolled):
            context, start = vectorised(partial(begin, pulls))(unrolled)

            def lag(cotangents, k):
                one = partial(advance, pulls, k)
                cotangents, part = vectorised(one)(context, cotangents)
                return cotangents, measure(part)

            return jax.lax.scan(lag, start, jnp.arange(T))[1]

        return run

    everywhere = walk(_begin_everywhere, _advance_everywhere)
    from_the_end = walk(_begin_at_the_end, _advance_from_the_end)
    if read_early is not None:
        return (everywhere if read_early else from_the_end)(unrolled)
    early = any_in_batch(is_read_early(unrolled, vectorised))
    return jax.lax.cond(early, everywhere, from_the_end, unrolled)


def is_read_early(
    unrolled: Unrolled, vectorised: Callable[[Callable], Callable] = lambda f: f
) -> Array:
    """Whether the loss reads an earlier step than the last."""

    def one(unrolled):
        # Not zero: NaN is read.
        return jnp.any(unrolled.read.exponent[:-1] != ZERO)

    return jnp.any(vectorised(one)(unrolled))


def concrete_or_none(flag: Array) -> bool | None:
    """The value of a flag; None under a trace."""
    return None if isinstance(flag, Tracer) else bool(flag)


def _begin_at_the_end(_, unrolled: Unrolled):
    return unrolled, jax.tree.map(lambda a: a[-1], unrolled.read)


def _advance_from_the_end(pulls: Pulls, k, unrolled: Unrolled, here: Scaled):
    T = len(unrolled.before.state)
    row = jax.tree.map(lambda a: a[T - 1 - k], unrolled)
    part, state = pulls.one(row.before, row.inputs)(here.values)
    return _of_state(state, here.exponent, here.values), Scaled(part, here.exponent)


def _begin_everywhere(pulls: Pulls, unrolled: Unrolled):
    return pulls.all(unrolled.before, unrolled.inputs), unrolled.read


def _advance_everywhere(_, k, pull, rows: Scaled):
    del k
    part = _summed(pull, rows)
    _, states = pull(rows.values)
    earlier = jax.vmap(_of_state)(states, rows.exponent, rows.values)
    # What is pulled through step t stands in row t - 1, at whose end it is.
    last = jax.tree.map(lambda a: jnp.zeros_like(a[:1]), earlier)
    last = last._replace(exponent=jnp.full_like(last.exponent, ZERO))
    shifted = jax.tree.map(lambda a, z: jnp.concatenate([a[1:], z]), earlier, last)
    return shifted, part


def _of_state(state: Array, e: Array, like: Cotangent) -> Scaled:
    """Cotangent of what the step before returned: its state; its outputs are read."""
    near_one, e = normalised(state, e)
    return Scaled(Cotangent(near_one, jax.tree.map(jnp.zeros_like, like.outputs)), e)


def _summed(pull, rows: Scaled) -> Scaled:
    """Pull rows of different scales by the parameters, and sum over them."""
    top = jnp.max(rows.exponent)
    part, _ = pull(jax.vmap(at_exponent, in_axes=(0, None))(rows, top))
    return Scaled(part, top)
