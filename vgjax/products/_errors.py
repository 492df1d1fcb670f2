"""What the leaks of a product may have moved its singular values by."""

import jax.numpy as jnp
from jax import Array

from vgjax._linalg import (
    is_before,
    power_of_two,
)
from vgjax.products._elimination import ABSENT
from vgjax.products._leaks import Leaks

# Errors are so many times the effect of a typical rounding; `scripts/bench --errors`
# finds none too small.
_SAFETY = 3.0
# Undecided from here on, where an error would exceed 0.7 nats. With 0.1, one right
# value in a thousand more is undecided; with either no error is too small.
_LARGEST = 0.5
# Directions within so many bits of each other share their errors.
_NEAR = 3


def errors(leaks: Leaks, exponents: Array, values: Array) -> Array:
    """(N,) nats, what each log singular value may be off; inf: undecided.

    Directions, and values, are in descending order.
    """
    N, eps = len(values), float(jnp.finfo(values.dtype).eps)
    is_alive = exponents > ABSENT // 2
    gap = exponents[:, None] - exponents[None, :]
    # Leaks, relative to the direction that they enter.
    off = ~jnp.eye(N, dtype=bool) & is_alive[None, :]
    size = jnp.maximum(jnp.abs(leaks.sample), leaks.floor)
    # Column j counts less in a row of larger scale.
    size = jnp.where(off, size * power_of_two(jnp.minimum(-gap, 0), values.dtype), 0)
    size = _SAFETY * size

    # The diagonal, directions of like size, and the squares of all others.
    both = jnp.maximum(size, size.T)
    near = power_of_two(_NEAR - jnp.abs(gap), values.dtype)
    own = jnp.maximum(jnp.abs(jnp.diagonal(leaks.sample)), jnp.sqrt(leaks.variance))
    own = jnp.where(is_alive, own, 0)
    own = jnp.where(jnp.isnan(own), jnp.inf, own)  # a maximum may pass over NaN
    own = jnp.max(jnp.where(jnp.abs(gap) <= _NEAR, own[None, :], 0), axis=1)
    eta = _SAFETY * (own + 3 * N**0.5 * eps)
    eta = eta + jnp.sum(both * jnp.minimum(near, 1), axis=1)
    eta = eta + jnp.sum(size**2, axis=1) + jnp.sum(size**2, axis=0)

    # Values are sorted, so those of like size may have swapped directions.
    eta = jnp.max(jnp.where(jnp.abs(gap) <= _NEAR, eta[None, :], 0), axis=1)
    # An undecided direction may be arbitrarily small. A smaller one that it leaks into
    # may then consist of that leak alone, and is undecided, too.
    is_noise = ~(eta < _LARGEST) & is_alive  # not >=, or a NaN would pass for decided
    is_below = is_before(N).T & (size > 0)
    eta = jnp.where(jnp.any(is_below & is_noise[None, :], axis=1), jnp.inf, eta)

    # In nats.
    error = -jnp.log1p(-jnp.minimum(eta, _LARGEST))
    error = error + 4 * eps * jnp.abs(values)
    error = jnp.where(eta < _LARGEST, error, jnp.inf)

    # What was taken for annihilated may be as large as its doubt, or next to nothing.
    doubt = jnp.max(leaks.doubt)
    error = jnp.where(exponents <= doubt + _NEAR, jnp.inf, error)
    lost = jnp.sum(leaks.doubt > ABSENT)
    rank = jnp.sum(is_alive)
    is_certain = jnp.arange(N) >= rank + lost
    of_lost = jnp.where(is_certain, 0, jnp.inf)
    error = jnp.where(values == -jnp.inf, of_lost, error)
    return jnp.where(jnp.isnan(values), jnp.nan, error)
