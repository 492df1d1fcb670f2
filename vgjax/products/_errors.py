"""What the leaks of a product may have moved its singular values by."""

import jax.numpy as jnp
from jax import Array

from vgjax._linalg import is_before, power_of_two
from vgjax._tolerances import ERROR_SAFETY, SHARED_ERROR_BITS, UNDECIDED_FROM
from vgjax.products._elimination import ABSENT
from vgjax.products._leaks import Leaks


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
    size = ERROR_SAFETY * size

    # The diagonal, directions of like size, and the squares of all others.
    both = jnp.maximum(size, size.T)
    near = power_of_two(SHARED_ERROR_BITS - jnp.abs(gap), values.dtype)
    own = jnp.maximum(jnp.abs(jnp.diagonal(leaks.sample)), jnp.sqrt(leaks.variance))
    own = jnp.where(is_alive, own, 0)
    own = jnp.where(jnp.isnan(own), jnp.inf, own)  # a maximum may pass over NaN
    own = jnp.max(jnp.where(jnp.abs(gap) <= SHARED_ERROR_BITS, own[None, :], 0), axis=1)
    eta = ERROR_SAFETY * (own + 3 * N**0.5 * eps)
    eta = eta + jnp.sum(both * jnp.minimum(near, 1), axis=1)
    eta = eta + jnp.sum(size**2, axis=1) + jnp.sum(size**2, axis=0)

    # Values are sorted, so those of like size may have swapped directions.
    eta = jnp.max(jnp.where(jnp.abs(gap) <= SHARED_ERROR_BITS, eta[None, :], 0), axis=1)
    # An undecided direction may be arbitrarily small. A smaller one that it leaks into
    # may then consist of that leak alone, and is undecided, too.
    # Not >=, or a NaN would pass for decided.
    is_noise = ~(eta < UNDECIDED_FROM) & is_alive
    is_below = is_before(N).T & (size > 0)
    eta = jnp.where(jnp.any(is_below & is_noise[None, :], axis=1), jnp.inf, eta)

    # In nats.
    error = -jnp.log1p(-jnp.minimum(eta, UNDECIDED_FROM))
    error = error + 4 * eps * jnp.abs(values)
    error = jnp.where(eta < UNDECIDED_FROM, error, jnp.inf)

    # What was taken for annihilated may be as large as its doubt, or next to nothing.
    doubt = jnp.max(leaks.doubt)
    error = jnp.where(exponents <= doubt + SHARED_ERROR_BITS, jnp.inf, error)
    lost = jnp.sum(leaks.doubt > ABSENT)
    rank = jnp.sum(is_alive)
    is_certain = jnp.arange(N) >= rank + lost
    of_lost = jnp.where(is_certain, 0, jnp.inf)
    error = jnp.where(values == -jnp.inf, of_lost, error)
    return jnp.where(jnp.isnan(values), jnp.nan, error)
