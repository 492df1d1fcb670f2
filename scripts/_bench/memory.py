"""Whether the memory that `jacobian_spectrum` takes grows with the number of steps."""

import jax
import jax.numpy as jnp
import systems

import vgjax

from ._measure import alone, peak_memory, start
from ._table import Table


def report(toy):
    """Print the peak memory of a process for each length."""
    N, lengths = (4, [20, 200]) if toy else (32, [1_000, 10_000, 100_000])
    table = Table(
        f"Peak memory of the process, tanh cell, N = {N}, 10 records (aim: flat)",
        "T 8d | MB 8.0f",
    )
    for T in lengths:
        table.row(T, alone(memory, N, T))
    print()


def memory(N, T):
    start()
    W = jnp.asarray(1.2 * systems.gaussian_chain(1, N, 1)[0])
    step = vgjax.steps.from_function(lambda W, h, x: (jnp.tanh(W @ h), x), W)
    h = jnp.ones(N)
    jax.block_until_ready(vgjax.jacobian_spectrum(step, h, length=T, every=T // 10))
    return peak_memory()
