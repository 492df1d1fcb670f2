"""The part of `scripts/bench` on certified spectra: what a proof costs."""

import importlib.util
import time

from _measure import call, start, verdict

SIZES = [(N, T) for N in (4, 8, 12, 24, 64) for T in (100, 500)]
TOY = [(4, 20)]


def report(toy):
    """Print one table: a proof of the last record beside two calls without."""
    print(
        "certified_spectrum, tanh chain, gain 1.2, one record, seconds\n"
        "                              product_spectrum, every = T\n"
        "    N     T  spread, nats   first call  second call  certified  "
        "radius (at most 1e-12)"
    )
    if importlib.util.find_spec("flint") is None:
        print("python-flint is not installed: the extra `certified` has it.\n")
        return
    for N, T in TOY if toy else SIZES:
        call("certified", N, T, threads="1")
    print()


def certified(N, T):
    """One row. The certified call is a first one: there is nothing to compile."""
    jax = start()
    import jax.numpy as jnp
    import numpy as np
    import systems

    from vgjax import products

    chain = systems.tanh_chain(1, N, 1.2, T)
    given = jnp.asarray(chain)
    seconds = []
    for run in (
        lambda: products.product_spectrum(given, every=T),
        lambda: products.product_spectrum(given, every=T),
        lambda: products.certified_spectrum(chain, every=T),
    ):
        began = time.perf_counter()
        found = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    first, second, proof = seconds
    radius = found.radius.max()
    print(
        f"{N:5d} {T:5d} {np.ptp(found.log_singular_values):13.0f} {first:12.2f} "
        f"{second:12.4f} {proof:11.2f} {radius:8.0e}  "
        f"{verdict(radius, 1e-12)}",
        flush=True,
    )


PARTS = (certified,)
