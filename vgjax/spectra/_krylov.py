r"""The Krylov space of a few blocks: it knows more than the last of them.

Subspace iteration brings values closer by a power of ratios of singular values, and
crawls where these are nearly one. The space of $V, A V, \dots, A^{p-1} V$ with $A =
\Phi^T \Phi$, made orthonormal as it grows, holds what any polynomial of A makes of V.
The best of these is like Chebyshev's: sweeps go as the root of one over the gap, and no
longer as one over the gap.

Source: Golub, Luk & Overton, ACM Trans. Math. Softw. 7, 149 (1981), for blocks; Musco &
Musco, NeurIPS (2015), theorem 1, for what they gain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import matmul, varying_like
from vgjax.products import LogSVD

# Blocks in the first space, and in the largest: it takes twice as many as before where
# so few still bring little.
FEWEST, MOST = 4, 16


class Krylov(NamedTuple):
    """Up to p blocks side by side, and their images; zero where there is none yet."""

    blocks: Array  # (N, p b), orthonormal
    images: Array  # (N, p b), Phi times each, over e^level
    level: Array  # () nats, the largest value that the first of them showed


def space_of(block: Array, p: int) -> Krylov:
    """Return the space with one block, which has no image yet, and room for p."""
    zero = jnp.zeros((len(block), p * block.shape[1]), block.dtype)
    space = Krylov(_put(zero, block, 0), zero, jnp.zeros((), block.dtype))
    return varying_like(space, block)


def block_at(space: Krylov, at: Array, b: int) -> Array:
    """Return one of the blocks, (N, b)."""
    return jax.lax.dynamic_slice_in_dim(space.blocks, at * b, b, axis=1)


def swept(space: Krylov, at: Array, svd: LogSVD) -> Krylov:
    """Keep the image of a block, known from the sweep that began with it."""
    level = jnp.where(at == 0, svd.log_values[0], space.level)
    block = block_at(space, at, svd.right.shape[1])
    scale = jnp.exp(svd.log_values - level)
    image = matmul(svd.left, scale[:, None] * matmul(svd.right.T, block))
    return space._replace(images=_put(space.images, image, at), level=level)


def extended(space: Krylov, at: Array, block: Array) -> Krylov:
    """Put what is new in a block behind the others."""
    # Not twice, which is enough for blocks that bring something new: of one that has
    # converged the first pass leaves round-off, half of it along the others.
    for _ in range(3):
        known = matmul(space.blocks.T, block)
        block, _ = jnp.linalg.qr(block - matmul(space.blocks, known))
    return space._replace(blocks=_put(space.blocks, block, at + 1))


def best(space: Krylov, b: int) -> Array:
    """Return the b orthonormal vectors of the space that Phi makes most of, (N, b)."""
    _, triangle = jnp.linalg.qr(space.images)
    right = jnp.linalg.svd(triangle)[2]
    return matmul(space.blocks, right[:b].T)


def _put(side_by_side: Array, block: Array, at: Array | int) -> Array:
    start = at * block.shape[1]
    return jax.lax.dynamic_update_slice_in_dim(side_by_side, block, start, axis=1)
