"""The worst error of each family of products and activations, beside its bound."""

import time

import jax.numpy as jnp
import numpy as np
import oracles
import systems
import test_activations
from flax import nnx

import vgjax

from ._measure import alone, start
from ._table import Bounded, Table


def report(toy):
    """Print one table; return how many bounds are missed."""
    return alone(accuracy, toy, threads="1")


def accuracy(toy):
    start()
    began = time.perf_counter()
    table = Table(
        "Worst over all i and recorded times, nats or eps",
        "family 50s | worst error 8.1e",
    )
    for name, bound, measure in families(toy):
        table.row(name, Bounded(measure(), bound))
    seconds = time.perf_counter() - began
    print(f"\n{table.missed} bounds missed ({seconds:.0f} s)")
    return table.missed


def families(toy):
    """Name, bound and a function giving the worst error, in nats, of each family."""

    def against(chain, answer, **options):
        return lambda: worst(spectrum(chain, **options), answer)

    short = 40 if toy else None
    chain, answer = systems.telescoping(1, systems.cosines())
    yield "telescoping, N = 6, T = 500", 1e-10, against(chain, answer)
    for beta in (5, 40) if toy else (5, 10, 20, 40, 100):
        chain, answer = systems.ring(16, 0.1, 10 * beta)
        yield (
            f"tight-binding ring, N = 16, beta = {beta}, every step",
            1e-10,
            against(chain, answer),
        )
    T = 1_000 if toy else 100_000
    yield f"cat map, T = {T:.0e}, relative", 1e-12, lambda: cat_map(T)
    yield "shear, T = 200", 1e-12, shear
    yield "rank one, T = 100: the finite value", 1e-10, rank_one
    for gain in (1.2,) if toy else (0.9, 1.2, 3.0):
        for N in (4,) if toy else (4, 8, 16):
            name = f"tanh RNN, gain {gain}, N = {N}, T = {short or 300}"
            yield name, 1e-10, lambda g=gain, n=N: tanh_cell(n, g, short or 300)
    for kind in ("GRU", "LSTM"):
        for features in (4,) if toy else (4, 8):
            name = f"{kind}, {features} features, T = {short or 300}, whole carry"
            yield name, 1e-10, lambda k=kind, f=features: gated(k, f, short or 300)
    yield "near-orthogonal, N = 16, T = 1000", 1e-10, near_orthogonal
    N, T = (16, 500) if toy else (64, 5_000)
    name = f"telescoping, N = {N}, T = {T}, over {8 * T:,} nats"
    yield name, 1e-8, lambda: wide(N, T)
    T = 10_000 if toy else 1_000_000
    yield f"triangular, N = 4, T = {T:.0e}", 1e-8, lambda: long_chain(T)
    yield "one factor times exp(+-300)", 1e-9, shifted
    for gain in (8.0,) if toy else (8.0, 16.0, 32.0):
        for backwards in (False, True):
            side = "columns" if backwards else "rows"
            name = f"saturated {side}, gain {gain:.0f}, N = 8, T = 40"
            yield name, 1e-9, lambda g=gain, b=backwards: saturated(g, b)
    yield "float32, N = 16, T = 300", 1e-2, lambda: single("float32", short or 300)
    yield "the same in float64", 1e-9, lambda: single("float64", short or 300)
    yield from activations(toy)


def spectrum(chain, dtype="float64", **options):
    found = vgjax.products.product_spectrum(jnp.asarray(chain, dtype), **options)
    return np.asarray(found.log_singular_values)


def worst(found, answer):
    """Largest error; the answer an array of all rows, or {t: row} of an oracle."""
    rows = answer.items() if isinstance(answer, dict) else enumerate(answer, start=1)
    return float(max(np.abs(found[t - 1] - row).max() for t, row in rows))


def oracle(chain, digits):
    T = len(chain)
    times = sorted({1, 2, 5, 10, T // 8, T // 4, T // 2, 3 * T // 4, T})
    return oracles.log_singular_values(chain, [t for t in times if t], digits)


def cat_map(T):
    chain = np.broadcast_to(np.array([[2.0, 1.0], [1.0, 1.0]]), (T, 2, 2))
    answer = 0.9624236501192069 * T * np.array([1, -1])
    return float(np.abs(spectrum(chain, every=T)[0] / answer - 1).max())


def shear():
    a, b, T = 0.9, 5.0, 200
    t = np.arange(1, T + 1)
    excess = np.arcsinh(t * b / a / 2)
    answer = (t * np.log(a))[:, None] + np.stack([excess, -excess], 1)
    return worst(spectrum(np.repeat([[[a, b], [0, a]]], T, 0)), answer)


def rank_one():
    u, v = np.array([1.0, -2, 3, 0]), np.array([2.0, 1, 1, 5])
    found = spectrum(np.repeat(np.outer(u, v)[None], 100, 0))
    if not np.isneginf(found[:, 1:]).all():
        return float("inf")
    norms = np.log(np.linalg.norm(u) * np.linalg.norm(v))
    answer = np.arange(100) * np.log(abs(u @ v)) + norms
    return worst(found[:, :1], answer[:, None])


def tanh_cell(N, gain, T):
    chain = systems.tanh_chain(1, N, gain, T)
    return worst(spectrum(chain), oracle(chain, 2600 if gain == 3 else 1200))


def gated(kind, features, T):
    cells = {"GRU": nnx.GRUCell, "LSTM": nnx.LSTMCell}
    options = {"dtype": jnp.float64, "param_dtype": jnp.float64, "rngs": nnx.Rngs(1)}
    cell = cells[kind](2, features, **options)
    zero = jnp.zeros(features)
    carry = (zero, zero) if kind == "LSTM" else zero
    inputs = jnp.asarray(np.random.default_rng(1).standard_normal((T, 2)))
    jacobians = np.asarray(vgjax.state_jacobians(cell, carry, inputs))
    found = vgjax.jacobian_spectrum(cell, carry, inputs).log_singular_values
    return worst(np.asarray(found), oracle(jacobians, 2000))


def near_orthogonal():
    rng = np.random.default_rng(3)
    chain = 0.99 * np.array([systems.orthogonal(rng, 16) for _ in range(1000)])
    answer = np.arange(1, 1001)[:, None] * np.log(0.99) * np.ones(16)
    return worst(spectrum(chain), answer)


def wide(N, T):
    log_scales = np.broadcast_to(-8 * np.arange(N) / (N - 1), (T, N))
    chain, answer = systems.telescoping(4, log_scales)
    every = T // 50
    found = spectrum(chain, every=every)
    return worst(found, answer[every - 1 :: every])


def long_chain(T):
    # Triangular, so that the determinants of its leading blocks, and with them the sums
    # of log values once they are far apart, are known; the correction is of high order.
    diagonal = np.array([1.01, 0.97, 0.9, 0.8])
    W = np.diag(diagonal) + np.diag([0.3, -0.2, 0.4], 1)
    step = vgjax.steps.from_function(lambda W, h, x: (W @ h, x), jnp.asarray(W))
    found = vgjax.jacobian_spectrum(step, jnp.ones(4), length=T, every=T)
    left, right = unit_eigenvectors(W)
    answer = T * np.log(diagonal) + volume_corrections(left, right)
    return float(np.abs(np.asarray(found.log_singular_values)[0] - answer).max())


def unit_eigenvectors(W):
    values, right = np.linalg.eig(W)
    right = right[:, np.argsort(-np.abs(values))].real
    return np.linalg.inv(right), right


def volume_corrections(left, right):
    """Limit of log sigma_i(W^t) - t log|lambda_i|, from the volumes of eigenvectors."""

    def log_volume(vectors):
        return np.linalg.slogdet(vectors.T @ vectors)[1] / 2

    sums = [
        log_volume(right[:, :k]) + log_volume(left[:k].T) if k else 0.0
        for k in range(len(left) + 1)
    ]
    return np.diff(sums)


def shifted():
    chain = systems.tanh_chain(3, 6, 1.2, 50)
    before = spectrum(chain)
    errors = []
    for shift in (300.0, -300.0):
        scaled = chain.copy()
        scaled[20] *= np.exp(shift)
        answer = before + np.where(np.arange(50) >= 20, shift, 0)[:, None]
        errors.append(worst(spectrum(scaled), answer))
    return max(errors)


def saturated(gain, backwards):
    chain = systems.tanh_chain(1, 8, gain, 40)
    if backwards:
        chain = np.swapaxes(chain[::-1], 1, 2)
    return worst(spectrum(chain), oracle(chain, int(150 * gain) + 800))


def single(dtype, T):
    chain = systems.tanh_chain(1, 16, 1.2, T).astype(np.float32)
    return worst(spectrum(chain, dtype), oracle(chain, 1200))


def activations(toy):
    """Derivatives of the activations on the grids of their tests, in eps, not nats."""
    for dtype in ("float32", "float64"):
        for function in ("tanh",) if toy else test_activations.REACH:
            for order, mark in ((1, "'"), (2, "''")):
                name = f"{function}{mark}, {dtype}, eps of its largest term"
                given = (function, dtype, order)
                yield name, 4, lambda given=given: max(test_activations.errors(*given))
