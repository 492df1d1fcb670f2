"""Arithmetic of sizes of roundings, which may span more than the range of floats.

What is added up are squares: a sum of N roundings is no N times as large as one. All is
cut off where it no longer matters, so that products of it are floats and none is NaN.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import matmul, power_of_two

# Larger triangles are inverted by halves: LAPACK solves for one column at a time. For
# N = 64 this takes 18 us, with halves of 32 29.
_BLOCK = 16


def ratios_of(exponents: Array, dtype: jnp.dtype) -> Array:
    """(N, N), 2^(e_i - e_j), cut off at twice the range of floats.

    As an outer product of N powers: N^2 of them cost as much as the elimination.
    """
    middle = (jnp.max(exponents) + jnp.min(exponents)) // 2
    reach = int(jnp.finfo(dtype).maxexp) // 2 - 1
    e = jnp.clip(exponents - middle, -reach, reach)
    return power_of_two(e, dtype)[:, None] * power_of_two(-e, dtype)[None, :]


def inverse_of_upper(upper: Array) -> Array:
    """Inverse of an upper triangle, cut off."""

    def inverse(U):
        N = len(U)
        if N <= _BLOCK:
            eye = jnp.eye(N, dtype=U.dtype)
            return jax.lax.linalg.triangular_solve(U, eye, left_side=True)
        h = N // 2
        first, last = inverse(U[:h, :h]), inverse(U[h:, h:])
        between = -matmul(first, within(matmul(U[:h, h:], last)))
        above = jnp.concatenate([first, between], axis=1)
        below = jnp.concatenate([jnp.zeros((N - h, h), U.dtype), last], axis=1)
        return jnp.concatenate([above, below])

    return within(inverse(upper))


def inverse_of_lower(lower: Array) -> Array:
    """Inverse of a lower triangle, cut off."""
    return inverse_of_upper(lower.T).T


def not_lost(floor: Array, is_there: Array) -> Array:
    """A leak that faded below the range of floats is not an exact zero."""
    tiny = jnp.asarray(jnp.finfo(floor.dtype).tiny, floor.dtype)
    return jnp.where(is_there, jnp.maximum(floor, tiny), floor)


def times(x: Array, ratios: Array) -> Array:
    return within(x * ratios)


def within(x: Array) -> Array:
    """Cut off far beyond what decides, where products are floats; NaN as beyond it."""
    beyond = 2.0 ** (int(jnp.finfo(x.dtype).maxexp) // 2 - 4)
    return jnp.clip(jnp.where(jnp.isnan(x), beyond, x), -beyond, beyond)


def squared(x: Array) -> Array:
    return multipliable(x**2, x)


def multipliable(squares: Array, of: Array) -> Array:
    """Squares, cut off at both ends so that products of them are floats.

    Zero only where `of` is: what underflows is noise, too. In float32 the least is the
    root of tiny, and no product of two underflows. In float64 that is 2^-511, at which
    saturated units would count for more than they are; at 2^-818 they do not, and two
    factors that small are rare.
    """
    info = jnp.finfo(squares.dtype)
    lowest = info.minexp // 2 if squares.dtype == jnp.float32 else info.minexp * 4 // 5
    least, most = 2.0**lowest, 2.0 ** (int(info.maxexp) - 8)
    return jnp.where(of == 0, 0, jnp.clip(squares, least, most))


def product_of_squares(a: Array, b: Array) -> Array:
    """``a @ b``, cut off: infinity times zero in the next product would be NaN."""
    return jnp.minimum(matmul(a, b), 2.0 ** (int(jnp.finfo(a.dtype).maxexp) - 8))


def signed(sizes: Array) -> Array:
    """Numbers of about these sizes, signs and factors taken from their bits.

    Equal sizes in equal places have equal noise, for a step that repeats rounds alike.
    """
    # The multiplier is Knuth's (TAOCP 6.4), the other that of MurmurHash's last mix.
    index = jnp.arange(sizes.size, dtype=jnp.uint32).reshape(sizes.shape)
    bits = jax.lax.bitcast_convert_type(sizes.astype(jnp.float32), jnp.uint32)
    bits = bits + index * jnp.uint32(2654435769)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0x85EBCA6B)
    bits = bits ^ (bits >> 16)
    factor = 0.5 + (bits & 1023).astype(sizes.dtype) / 1024
    return jnp.where(bits >> 31 == 1, -factor, factor) * sizes
