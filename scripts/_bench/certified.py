"""What a proof costs: `certified_spectrum` beside `product_spectrum`."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import systems

from vgjax import products

from ._measure import alone, start, timed
from ._table import Bounded, Table

SIZES = [(N, T) for N in (4, 8, 12, 24, 64) for T in (100, 500)]
TOY = [(4, 20)]
RADIUS = 1e-12  # nats


def report(toy):
    """Print one table: a proof of the last record beside two calls without."""
    if importlib.util.find_spec("flint") is None:
        print("python-flint is not installed: the extra `certified` has it.\n")
        return
    table = Table(
        "certified_spectrum, tanh chain, gain 1.2, one record, seconds; "
        "first and second call of product_spectrum, every = T",
        "N 5d | T 5d | spread, nats 8.0f | first call 8.2f | second call 8.4f | "
        "certified 8.2f | radius 8.0e",
    )
    for N, T in TOY if toy else SIZES:
        *measured, radius = alone(certified, N, T, threads="1")
        table.row(N, T, *measured, Bounded(radius, RADIUS))
    print()


def certified(N, T):
    """Spread, three times and the largest radius.

    The certified call is a first one: there is nothing to compile.
    """
    start()
    chain = systems.tanh_chain(1, N, 1.2, T)
    given = jnp.asarray(chain)
    first, _ = timed(lambda: products.product_spectrum(given, every=T))
    second, _ = timed(lambda: products.product_spectrum(given, every=T))
    proof, found = timed(lambda: products.certified_spectrum(chain, every=T))
    spread = np.ptp(found.log_singular_values)
    return float(spread), first, second, proof, float(found.radius.max())
