"""How many steps to take between two factorisations, by the growth measured so far.

As in the step-size control of an ODE solver: an interval is proposed, a stretch of
steps is taken with it, and its error decides. A pivot e^d below the largest has a
relative error of about eps e^d, so what a group of steps may grow by bounds its length.
A stretch that is rejected is taken again with a QR factorisation at every step.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._frames import Block, Chain, Stretch, length_of, steps_with_lu, steps_with_qr
from vgjax._linalg import any_in_batch, varying_like


def adaptive_steps(
    chain: Chain, block: Block, xs: Any, active: Array | None, allowed: float
) -> tuple[Block, Any]:
    """Take a stretch of steps at the proposed interval, or again at every step.

    A pivot that is no larger than the round-off of its row is made zero.

    Args:
      chain: how to take steps.
      block: state and vectors to start from, and the proposed interval.
      xs: leaves (c, ...), what `chain.push` is given.
      active: (c,), False for steps that are not taken; None where all are.
      allowed: what round-off may add up to in the log of a pivot, over all steps.

    Returns:
      The block after the last step, with the next proposal, and the readings, leaves
      (c, ...).
    """
    c = length_of(xs)

    # Try the proposed interval.
    def with_lu(block):
        every = _shared_out(block.qr_interval, c)
        stretch = steps_with_lu(chain, block, xs, active, every)
        return varying_like(stretch, block, xs)

    shapes = jax.eval_shape(with_lu, block)
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    is_proposed = block.qr_interval > 0
    proposed = jax.lax.cond(
        any_in_batch(is_proposed),
        with_lu,
        lambda _: varying_like(nothing, block, xs),
        block,
    )
    is_small = (proposed.error <= allowed) & (proposed.size <= _reach(proposed))
    accepted = is_proposed & is_small

    # Take the steps again where it was rejected. This compiles a second copy of the
    # step: one loop over both attempts compiled 5 % faster, and ran 10 % slower.
    def again(proposed):
        slow = steps_with_qr(chain, block, xs, active)
        return jax.tree.map(lambda s, p: jnp.where(accepted, p, s), slow, proposed)

    stretch = jax.lax.cond(any_in_batch(~accepted), again, lambda p: p, proposed)

    # Propose the next.
    rejected = ~accepted & (block.qr_interval > 1)
    most = jnp.where(rejected, block.qr_interval - 1, block.max_interval)
    taken = jnp.where(accepted, block.qr_interval, 1)
    interval = jnp.minimum(_longest_expected(stretch, taken, allowed, c), most)
    block = stretch.block._replace(qr_interval=interval, max_interval=most)
    return block, stretch.readings


def _longest_expected(
    stretch: Stretch, interval: Array, allowed: float, c: int
) -> Array:
    """The longest interval expected to be accepted, from the growth measured so far."""
    dtype = stretch.error.dtype
    eps = float(jnp.finfo(dtype).eps)
    interval = interval.astype(dtype)
    per_step = stretch.spread / c
    # Spreads add up on average; their fluctuations hardly do.
    left = jnp.log(allowed / jnp.maximum(stretch.error, eps))
    further = jnp.where(per_step > 0, left / per_step, c)
    within_reach = interval * _reach(stretch) / jnp.maximum(stretch.size, eps)
    longest = jnp.minimum(interval + further, jnp.minimum(within_reach, c))
    is_number = jnp.isfinite(stretch.error)
    return jnp.where(is_number, jnp.maximum(longest, 0), 0).astype(jnp.int32)


def _shared_out(interval: Array, c: int) -> Array:
    """Steps of a group where c are shared out evenly among as few as there must be."""
    groups = -(-c // jnp.maximum(interval, 1))
    return -(-c // groups)


def _reach(stretch: Stretch) -> float:
    """Nats that a group may grow or shrink by: a quarter of the range of floats."""
    return 0.25 * math.log(jnp.finfo(stretch.size.dtype).max)
