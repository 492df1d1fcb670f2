"""Chains of matrices with their answers, or on which answers are asked of an oracle."""

import numpy as np
import oracles
import scipy.linalg


def orthogonal(rng, N):
    """Haar-distributed orthogonal matrix."""
    Q, R = np.linalg.qr(rng.standard_normal((N, N)))
    return Q * np.sign(np.diag(R))


def telescoping(seed, log_scales):
    """Chain Q_t diag(exp(d_t)) Q_{t-1}^T; its values are the sums of d, sorted."""
    rng = np.random.default_rng(seed)
    T, N = log_scales.shape
    Q = [orthogonal(rng, N) for _ in range(T + 1)]
    chain = np.array(
        [Q[t + 1] @ np.diag(np.exp(log_scales[t])) @ Q[t].T for t in range(T)]
    )
    return chain, -np.sort(-np.cumsum(log_scales, axis=0), axis=1)


def cosines(T=500, N=6):
    """Log scales 3 cos(t i) - i/2, whose single steps differ from their mean."""
    t = np.arange(1, T + 1)[:, None]
    i = np.arange(1, N + 1)[None, :]
    return 3 * np.cos(t * i) - i / 2


def ring(n, step, T):
    """Tight-binding ring: T factors exp(-step H), and their log values (T, n)."""
    H = np.zeros((n, n))
    for i in range(n):
        H[i, (i + 1) % n] = H[(i + 1) % n, i] = -1
    levels = 2 * step * np.cos(2 * np.pi * np.arange(n) / n)
    answer = -np.sort(-np.arange(1, T + 1)[:, None] * levels, axis=1)
    return np.repeat(scipy.linalg.expm(-step * H)[None], T, 0), answer


def tanh_chain(seed, N, gain, T, noise=0.3):
    """Jacobians diag(tanh'(a_t)) W of a driven tanh network, exact in saturation."""
    rng = np.random.default_rng(seed)
    W = gain * rng.standard_normal((N, N)) / np.sqrt(N)
    h = 0.1 * rng.standard_normal(N)
    chain = []
    for _ in range(T):
        a = W @ h + noise * rng.standard_normal(N)
        h = np.tanh(a)
        chain.append(oracles.tanh_slope(a)[:, None] * W)
    return np.array(chain)


def gaussian_chain(seed, N, T):
    """Independent N(0, 1/N) matrices."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((T, N, N)) / np.sqrt(N)
