"""What eight singular values of products too large for a Jacobian take."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

import vgjax

from ._measure import alone, peak_memory, start, timed
from ._table import Bounded, Table

MEMORY = 4_000  # MB


def report(toy):
    """Print the first call of two networks, and what it answered."""
    table = Table(
        "leading_spectrum, k = 8, T = 100, float64, OPENBLAS_NUM_THREADS=default; "
        "s: first call, compiled in it;\n"
        "its own estimate of the error, and the error, nats (-: no answer known); "
        "peak memory of the process",
        "cell 5s | state 6d | s 7.1f | sweeps 6d | converged >9s | "
        "estimate 8.0e | error 8.0e | MB 6.0f",
    )
    sizes = {"lru": 64, "tanh": 32} if toy else {"lru": 65_536, "tanh": 4_096}
    for kind, N in sizes.items():
        *measured, memory = alone(leading, kind, N, 10 if toy else 250)
        table.row(kind, N, *measured, Bounded(memory, MEMORY))
    print()


def leading(kind, N, max_sweeps):
    """Measure a first call; the error is against |lambda|^T for the LRU."""
    start()
    warnings.simplefilter("ignore", RuntimeWarning)  # the table says it
    T, k = 100, 8
    key = jax.random.key(1)
    if kind == "lru":
        cell = vgjax.cells.build("lru", 2, N // 2, key=key, dtype=float)
        carry, inputs = cell.initialize_carry(), cell.random_inputs(key, T)
        rates = -np.exp(np.asarray(cell.log_nu[...]))
        answer = T * np.sort(np.repeat(rates, 2))[::-1][:k]
    else:
        W = 1.2 / N**0.5 * jax.random.normal(key, (N, N), float)
        cell = vgjax.steps.from_function(lambda W, h, x: (jnp.tanh(W @ h), x), W)
        carry, inputs, answer = jax.random.normal(key, (N,), float), None, None
    options = {"k": k, "length": T, "max_sweeps": max_sweeps}
    seconds, found = timed(
        lambda: vgjax.spectra.leading_spectrum(cell, carry, inputs, **options)
    )
    error = None
    if answer is not None:
        error = float(np.abs(found.log_singular_values - answer).max())
    converged = f"{found.converged.sum()}/{k}"
    estimate = float(found.error.max())
    return seconds, int(found.sweeps), converged, estimate, error, peak_memory()
