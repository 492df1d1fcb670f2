"""Derivatives of singular values of a product in which a direction was annihilated.

A graded product gives what was annihilated no scale, and so cannot hold how it moves,
which the next factor mixes with the rest. One matrix of floats can, and knows the large
singular values: it goes along, and is asked for nothing but their derivatives.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import any_in_batch, exponent, matmul, scaled, varying_like
from vgjax.products.graded import GradedProduct, has_annihilated


def extended(whole: Array, matrix: Array) -> Array:
    """Multiply a product, up to a power of two, by one more matrix from the left."""
    return _near_one(matmul(_near_one(matrix), whole))


def without_lost_derivative(
    product: GradedProduct, is_lost: Array
) -> tuple[GradedProduct, Array]:
    """Stop derivatives of a product that the next push would lose.

    Returns it, and whether one is lost now, or was before.
    """
    is_lost = is_lost | has_annihilated(product)
    stopped = jax.lax.stop_gradient(product.left)
    left = jnp.where(is_lost, stopped, product.left)
    return product._replace(left=left), is_lost


def _near_one(matrix: Array) -> Array:
    e = exponent(jax.lax.stop_gradient(jnp.max(jnp.abs(matrix))))
    return scaled(matrix, -e)


@jax.custom_jvp
def with_slopes_of(whole: Array, values: Array, is_lost: Array) -> Array:
    """The values, with other derivatives where their own are lost.

    Args:
      whole: (N, N), the product up to a power of two.
      values: (N,) its log singular values, descending.
      is_lost: () whether to take the derivatives from `whole`. Of values that are below
        half of its digits they are infinite, or 0 where 0 is found, and of -inf 0.
    """
    del whole, is_lost
    return values


@with_slopes_of.defjvp
def _with_slopes_of_rule(primals, tangents):
    (whole, values, is_lost), (moved, slopes, _) = primals, tangents
    references = (*primals, moved, slopes)

    def from_whole(moved, slopes):
        U, sizes, V = jnp.linalg.svd(whole)
        eps = float(jnp.finfo(whole.dtype).eps)
        is_seen = sizes > eps**0.5 * sizes[0]
        along = jnp.sum(matmul(U.T, moved) * V, axis=1)
        found = jnp.where(values == -jnp.inf, 0, along / jnp.where(is_seen, sizes, 1))
        # Not NaN: in reverse mode its product with the zero cotangent of a value that
        # nobody asks for would be NaN, and spoil the others.
        is_unseen = ~is_seen & (values != -jnp.inf)
        beyond_range = 2 * int(jnp.finfo(found.dtype).maxexp)
        found = scaled(found, jnp.where(is_unseen, beyond_range, 0))
        return varying_like(jnp.where(is_lost, found, slopes), *references)

    def as_they_are(_, slopes):
        return varying_like(slopes, *references)

    some = any_in_batch(is_lost)
    return values, jax.lax.cond(some, from_whole, as_they_are, moved, slopes)
