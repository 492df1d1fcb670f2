"""Krylov spaces of blocks, beside the dense matrices they stand for."""

import jax.numpy as jnp
import numpy as np
import pytest
import systems

from vgjax.products import LogSVD
from vgjax.spectra import _krylov

N, B = 60, 3


def swept(Phi, V):
    """What a sweep that begins with V finds of a matrix, in NumPy."""
    Q = np.linalg.qr(Phi @ V)[0]
    A, values, Bt = np.linalg.svd(Q.T @ Phi, full_matrices=False)
    return LogSVD(*map(jnp.asarray, (Q @ A, np.log(values), Bt.T)))


def collected(Phi, V, p):
    space = _krylov.space_of(jnp.asarray(V), p)
    for at in range(p):
        svd = swept(Phi, np.asarray(_krylov.block_at(space, at, B)))
        space = _krylov.swept(space, at, svd)
        if at < p - 1:
            space = _krylov.extended(space, at, svd.right)
    return space


def cases():
    rng = np.random.default_rng(1)
    U, V = systems.orthogonal(rng, N), systems.orthogonal(rng, N)
    n = V[:, 0]
    return {
        "nearly equal values": U @ np.diag(np.exp(-1e-2 * np.arange(N))) @ V.T,
        "values over 40 nats": U @ np.diag(np.exp(-np.linspace(0, 40, N))) @ V.T,
        # A block maps onto itself: nothing but round-off is new.
        "one value and an outlier": np.eye(N) + 1e-5 * np.outer(n, n),
    }


@pytest.mark.float64
@pytest.mark.parametrize("name", cases())
def test_blocks_are_orthonormal_and_images_are_theirs(name):
    Phi = cases()[name]
    start = systems.orthogonal(np.random.default_rng(2), N)[:, :B]
    space = collected(Phi, start, 6)
    blocks = np.asarray(space.blocks)
    np.testing.assert_allclose(blocks.T @ blocks, np.eye(6 * B), atol=1e-13)
    images = np.asarray(space.images) * np.exp(float(space.level))
    np.testing.assert_allclose(images, Phi @ blocks, atol=1e-12)


@pytest.mark.float64
def test_the_best_block_is_that_of_the_whole_krylov_space():
    Phi = cases()["nearly equal values"]
    start = systems.orthogonal(np.random.default_rng(2), N)[:, :B]
    powers = [start]
    for _ in range(5):
        powers.append(np.linalg.qr(Phi.T @ Phi @ powers[-1])[0])
    K = np.linalg.qr(np.concatenate(powers, axis=1))[0]
    wanted = np.linalg.svd(Phi @ K, compute_uv=False)[:B]
    best = np.asarray(_krylov.best(collected(Phi, start, 6), B))
    np.testing.assert_allclose(best.T @ best, np.eye(B), atol=1e-13)
    found = np.linalg.svd(Phi @ best, compute_uv=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    # And more than the last of the blocks knows.
    alone = np.linalg.svd(Phi @ powers[-1], compute_uv=False)
    assert np.all(found > alone + 1e-3)
