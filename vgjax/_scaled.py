"""Arrays near one, with a power of two beside them: numbers beyond the range of floats.

Scaling by a power of two is exact, and so is adding up exponents.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import exponent, scaled

# Stands for the -inf that int32 lacks; halfway to its end, so that exponents can be
# added to it before it is set again.
ZERO = -(2**30)


class Scaled(NamedTuple):
    """Arrays near one, times ``2^exponent``. Zero has an exponent below all others."""

    values: Any
    exponent: Array  # () int32


def normalised(values: Any, e: Array | None = None) -> Scaled:
    """Bring arrays, times ``2^e``, near one."""
    e = jnp.zeros((), jnp.int32) if e is None else e
    sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(values)]
    own = jnp.max(jnp.stack([exponent(size) for size in sizes]))
    zero = jnp.all(jnp.stack([size == 0 for size in sizes]))
    values = jax.tree.map(lambda leaf: scaled(leaf, -own), values)
    return Scaled(values, jnp.where(zero, ZERO, e + own))


def add(a: Scaled, b: Scaled) -> Scaled:
    """Add two scaled PyTrees."""
    top = jnp.maximum(a.exponent, b.exponent)
    values = jax.tree.map(jnp.add, at_exponent(a, top), at_exponent(b, top))
    return normalised(values, top)


def at_exponent(x: Scaled, to: Array) -> Any:
    """Values of a scaled PyTree, divided by ``2^to``."""
    return jax.tree.map(lambda leaf: scaled(leaf, x.exponent - to), x.values)


def log_norm(x: Scaled, dtype: jnp.dtype) -> Array:
    """Log of the norm of all leaves together, in nats; -inf for zero."""
    near_one, e = normalised(*x)
    leaves = jax.tree.leaves(near_one)
    squares = jnp.stack([jnp.sum(leaf.astype(dtype) ** 2) for leaf in leaves])
    square = jnp.sum(squares)
    # Masked twice: the derivative of log at 0 would be NaN beside other entries.
    log = 0.5 * jnp.log(jnp.where(square == 0, 1, square))
    log = jnp.where(square == 0, -jnp.inf, log)
    return log + e.astype(dtype) * math.log(2)
