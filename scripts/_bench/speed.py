"""What `product_spectrum` takes beside a product and an SVD at every step."""

from functools import partial

import jax
import jax.numpy as jnp
import systems

import vgjax

from ._measure import alone, in_turn, start
from ._table import Bounded, Table

AIM = 1.5  # of `exact, every step`, as a ratio to the naive program


def report(toy):
    """Print one table with a thread for OpenBLAS, and one with as many as it takes."""
    sizes = [8] if toy else [16, 32, 64, 128, 256]
    T = 20 if toy else 200
    for threads in ("1", None):
        table = Table(
            f"OPENBLAS_NUM_THREADS={threads or 'default'}, tanh chain, T = {T}; "
            "columns after the first time are ratios to it",
            "N 5d | multiply, SVD,\nus per step 8.0f | "
            "SVDs in\none batch 8.2f | exact,\nevery step 8.2f | "
            "exact,\nevery 10 8.2f | QR chain\nalone 8.2f",
        )
        for N in sizes:
            us, in_batch, every, *rest = alone(ratios, N, T, threads=threads)
            table.row(N, us, in_batch, Bounded(every, AIM), *rest)
        print()


def ratios(N, T):
    """Microseconds per step of the naive program, then four ratios."""
    start()
    chain = jnp.asarray(systems.tanh_chain(1, N, 1.2, T))
    eye = jnp.eye(N)

    def log_svd(product):
        return jnp.log(jnp.linalg.svd(product, compute_uv=False))

    def naive(chain):
        def step(product, J):
            product = J @ product
            return product, log_svd(product)

        return jax.lax.scan(step, eye, chain)[1]

    def batched(chain):
        def step(product, J):
            product = J @ product
            return product, product

        return log_svd(jax.lax.scan(step, eye, chain)[1])

    def naive_tenth(chain):
        def step(product, factors):
            product = jax.lax.scan(lambda p, J: (J @ p, None), product, factors)[0]
            return product, log_svd(product)

        return jax.lax.scan(step, eye, chain.reshape(-1, 10, N, N))[1]

    def qr_chain(chain):
        def step(Q, J):
            Q, R = jnp.linalg.qr(J @ Q)
            return Q, jnp.log(jnp.abs(jnp.diagonal(R)))

        return jax.lax.scan(step, eye, chain)[1]

    exact = vgjax.products.product_spectrum
    functions = [
        jax.jit(naive),
        jax.jit(batched),
        exact,
        lambda chain: exact(chain, every=10),
        jax.jit(naive_tenth),
        jax.jit(qr_chain),
    ]
    seconds = in_turn([partial(f, chain) for f in functions], 5 if N >= 128 else 11)
    base, in_batch, every, tenth, base_tenth, chain_only = seconds
    return (
        base / T * 1e6,
        in_batch / base,
        every / base,
        tenth / base_tenth,
        chain_only / base,
    )
