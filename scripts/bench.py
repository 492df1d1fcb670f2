"""What vgjax costs, as ratios to what a user would do instead, and how exact it is.

    scripts/bench               the tables of speed and memory, about fifteen minutes
    scripts/bench --accuracy    worst errors beside their bounds, about ten minutes
    scripts/bench --errors      what `Spectrum.error` promises, on 556 networks and
                                chains, and its cost; exits with 1 where it fails
    scripts/bench --against C   this tree's calls as ratios to those of commit C
    scripts/bench --toy         speed, memory and errors at toy size, to see that they
                                run; with --against or --errors that table, smaller

Times are medians of several warm calls, after `block_until_ready`, in one process per
setting of OPENBLAS_NUM_THREADS; those of leading spectra are first calls. Only ratios
are meant to be compared.
"""

import argparse
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import bench_against
import bench_certified
import bench_errors
import bench_first_answers
import bench_through_time
from _measure import call, in_turn, peak_memory, start

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main():
    """Run the tables asked for, each in processes of its own."""
    # Or, in a pipe, headings would come after the lines of the processes under them.
    sys.stdout.reconfigure(line_buffering=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accuracy", action="store_true", help="errors, not times")
    parser.add_argument("--against", metavar="COMMIT", help="calls of two commits")
    parser.add_argument("--errors", action="store_true", help="Spectrum.error, held")
    parser.add_argument(
        "--truth", metavar="FOLDER", help="where --errors keeps what the oracle found"
    )
    parser.add_argument("--toy", action="store_true", help="small sizes; errors, too")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, *arguments = json.loads(options.part)
        PARTS[name](*arguments)
        return
    if options.against:
        bench_against.report(options.against, options.toy)
        return
    if options.errors:
        bench_errors.report(options.toy, options.truth)
        return
    if not options.accuracy:
        report_machine()
        report_ratios(options.toy)
        bench_first_answers.report(options.toy)
        report_memory(options.toy)
        bench_through_time.report(options.toy)
        bench_certified.report(options.toy)
    if options.accuracy or options.toy:
        call("accuracy", options.toy, threads="1")


def report_machine():
    import jax

    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, jax {jax.__version__}, "
        f"{jax.devices()[0].device_kind}, float64\n"
    )


# Speed ---------------------------------------------------------------------------


def report_ratios(toy):
    sizes = [8] if toy else [16, 32, 64, 128, 256]
    T = 20 if toy else 200
    for threads in ("1", None):
        print(f"OPENBLAS_NUM_THREADS={threads or 'default'}, tanh chain, T = {T}")
        print(
            "    N   multiply, SVD   ratios to it:   SVDs in      exact,     exact,   "
            "QR chain\n"
            "         us per step                  one batch  every step  every 10     "
            "alone"
        )
        for N in sizes:
            call("ratios", N, T, threads=threads)
        print("        aim for `exact, every step`: 1.5\n", flush=True)


def ratios(N, T):
    jax = start()
    import jax.numpy as jnp
    import systems

    import vgjax

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
    print(
        f"{N:5d} {base / T * 1e6:13.0f} {in_batch / base:24.2f} {every / base:11.2f} "
        f"{tenth / base_tenth:9.2f} {chain_only / base:10.2f}",
        flush=True,
    )


def report_memory(toy):
    N, lengths = (4, [20, 200]) if toy else (32, [1_000, 10_000, 100_000])
    print(f"Peak memory of the process, tanh cell, N = {N}, 10 records (aim: flat)")
    for T in lengths:
        print(
            f"    T = {T:7d} {call('memory', N, T, capture=True).strip()}", flush=True
        )
    print()


def memory(N, T):
    jax = start()
    import jax.numpy as jnp
    import systems

    import vgjax

    W = jnp.asarray(1.2 * systems.gaussian_chain(1, N, 1)[0])

    def cell(W, h, x):
        del x
        h = jnp.tanh(W @ h)
        return h, None

    step = vgjax.steps.from_function(cell, W)

    def run():
        return vgjax.jacobian_spectrum(step, jnp.ones(N), length=T, every=T // 10)

    jax.block_until_ready(run())
    print(f"{peak_memory():8.0f} MB")


# Accuracy ------------------------------------------------------------------------


def accuracy(toy):
    start()
    began = time.perf_counter()
    print("family                                              worst error      bound")
    missed = 0
    for name, bound, measure in families(toy):
        error = measure()
        missed += not error <= bound
        print(
            f"{name:50s} {error:12.1e} {bound:10.0e}  "
            f"{'' if error <= bound else 'MISSED'}",
            flush=True,
        )
    print(
        f"\n{missed} bounds missed; worst over all i and recorded times, nats or eps"
        f" ({time.perf_counter() - began:.0f} s)"
    )
    if missed:
        sys.exit(1)


def families(toy):
    """Name, bound and a function giving the worst error, in nats, of each family."""
    import systems

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
    import jax.numpy as jnp
    import numpy as np

    import vgjax

    found = vgjax.products.product_spectrum(jnp.asarray(chain, dtype), **options)
    return np.asarray(found.log_singular_values)


def worst(found, answer):
    """Largest error; the answer an array of all rows, or {t: row} of an oracle."""
    import numpy as np

    rows = answer.items() if isinstance(answer, dict) else enumerate(answer, start=1)
    return float(max(np.abs(found[t - 1] - row).max() for t, row in rows))


def oracle(chain, digits):
    import oracles

    T = len(chain)
    times = sorted({1, 2, 5, 10, T // 8, T // 4, T // 2, 3 * T // 4, T})
    return oracles.log_singular_values(chain, [t for t in times if t], digits)


def cat_map(T):
    import numpy as np

    chain = np.broadcast_to(np.array([[2.0, 1.0], [1.0, 1.0]]), (T, 2, 2))
    answer = 0.9624236501192069 * T * np.array([1, -1])
    return float(np.abs(spectrum(chain, every=T)[0] / answer - 1).max())


def shear():
    import numpy as np

    a, b, T = 0.9, 5.0, 200
    t = np.arange(1, T + 1)
    excess = np.arcsinh(t * b / a / 2)
    answer = (t * np.log(a))[:, None] + np.stack([excess, -excess], 1)
    return worst(spectrum(np.repeat([[[a, b], [0, a]]], T, 0)), answer)


def rank_one():
    import numpy as np

    u, v = np.array([1.0, -2, 3, 0]), np.array([2.0, 1, 1, 5])
    found = spectrum(np.repeat(np.outer(u, v)[None], 100, 0))
    if not np.isneginf(found[:, 1:]).all():
        return float("inf")
    norms = np.log(np.linalg.norm(u) * np.linalg.norm(v))
    answer = np.arange(100) * np.log(abs(u @ v)) + norms
    return worst(found[:, :1], answer[:, None])


def tanh_cell(N, gain, T):
    import systems

    chain = systems.tanh_chain(1, N, gain, T)
    return worst(spectrum(chain), oracle(chain, 2600 if gain == 3 else 1200))


def gated(kind, features, T):
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    import vgjax

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
    import numpy as np
    import systems

    rng = np.random.default_rng(3)
    chain = 0.99 * np.array([systems.orthogonal(rng, 16) for _ in range(1000)])
    answer = np.arange(1, 1001)[:, None] * np.log(0.99) * np.ones(16)
    return worst(spectrum(chain), answer)


def wide(N, T):
    import numpy as np
    import systems

    log_scales = np.broadcast_to(-8 * np.arange(N) / (N - 1), (T, N))
    chain, answer = systems.telescoping(4, log_scales)
    every = T // 50
    found = spectrum(chain, every=every)
    return worst(found, answer[every - 1 :: every])


def long_chain(T):
    import jax.numpy as jnp
    import numpy as np

    import vgjax

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
    import numpy as np

    values, right = np.linalg.eig(W)
    right = right[:, np.argsort(-np.abs(values))].real
    return np.linalg.inv(right), right


def volume_corrections(left, right):
    """Limit of log sigma_i(W^t) - t log|lambda_i|, from the volumes of eigenvectors."""
    import numpy as np

    def log_volume(vectors):
        return np.linalg.slogdet(vectors.T @ vectors)[1] / 2

    sums = [
        log_volume(right[:, :k]) + log_volume(left[:k].T) if k else 0.0
        for k in range(len(left) + 1)
    ]
    return np.diff(sums)


def shifted():
    import numpy as np
    import systems

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
    import numpy as np
    import systems

    chain = systems.tanh_chain(1, 8, gain, 40)
    if backwards:
        chain = np.swapaxes(chain[::-1], 1, 2)
    return worst(spectrum(chain), oracle(chain, int(150 * gain) + 800))


def single(dtype, T):
    import numpy as np
    import systems

    chain = systems.tanh_chain(1, 16, 1.2, T).astype(np.float32)
    return worst(spectrum(chain, dtype), oracle(chain, 1200))


def activations(toy):
    """Derivatives of the activations on the grids of their tests, in eps, not nats."""
    import test_activations

    for dtype in ("float32", "float64"):
        for function in ("tanh",) if toy else test_activations.REACH:
            for order, mark in ((1, "'"), (2, "''")):
                name = f"{function}{mark}, {dtype}, eps of its largest term"
                given = (function, dtype, order)
                yield name, 4, lambda given=given: max(test_activations.errors(*given))


PARTS = {f.__name__: f for f in (ratios, memory, accuracy)}
for module in (
    bench_certified,
    bench_errors,
    bench_first_answers,
    bench_through_time,
):
    PARTS |= {f.__name__: f for f in module.PARTS}

if __name__ == "__main__":
    main()
