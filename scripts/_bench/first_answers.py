"""How long a user waits for the first answer, and what a warm call adds to a scan.

Every first answer is that of a fresh process without a compilation cache, timed from
the first call on, beside what a user would write instead.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile

from ._measure import alone, in_turn, timed
from ._table import Bounded, Table

# Aims, as ratios to the plain program. Of the last three: half, or less, of what they
# were at commit e759d2c, SciPy's import counted (3.5, 6.9 and 12.5).
AIMS = {"lstm": 3, "tanh": 3, "stack": 3, "exponents": 1.7, "lags": 3.2, "leading": 6.2}


def report(toy):
    """Print imports, first answers and the overhead of a warm call."""
    added = Bounded(alone(import_time, 1 if toy else 5), 0.3)
    print(f"import vgjax adds {added.value:.2f} s to JAX ({added})\n")
    report_first_answers(toy)
    T = 10 if toy else 100
    more = Bounded(alone(overhead, T, 3 if toy else 51), 10)
    print(
        f"A warm rollout of a GRU of 32 features, {T} steps, takes {more.value:.1f} ms "
        f"more than jax.jit(lax.scan) ({more})\n"
    )


def import_time(repeats):
    """Seconds that importing vgjax takes after JAX."""

    def seconds(line):
        run = [sys.executable, "-c", line]
        times = [
            timed(lambda: subprocess.run(run, check=True))[0] for _ in range(repeats)
        ]
        return statistics.median(times)

    return seconds("import jax, vgjax") - seconds("import jax")


def report_first_answers(toy):
    table = Table(
        "First answers in fresh processes, seconds, StableHLO lines of the largest\n"
        "program, and the ratio of the seconds to the plain program:",
        "case 10s | plain 6.2f | plain\nlines 6d | vgjax 6.2f | vgjax\nlines 6d | "
        "ratio 6.1f",
    )
    for case, aim in AIMS.items():
        if toy and case not in ("stack", "leading"):
            continue  # each is two processes that start JAX and compile
        plain, few = _seconds_and_lines(case, "plain", toy)
        ours, many = _seconds_and_lines(case, "vgjax", toy)
        table.row(case, plain, few, ours, many, Bounded(ours / plain, aim))
    print()


def _seconds_and_lines(case, kind, toy):
    """Seconds of a first call in a fresh process, and lines of its largest program."""

    def first(**variables):
        # A cache would answer instead of the compiler.
        variables["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return alone(first_answer, case, kind, toy, threads="1", **variables)

    with tempfile.TemporaryDirectory() as folder:
        seconds = first(JAX_DUMP_IR_TO=folder)
        programs = pathlib.Path(folder).rglob("*.mlir")
        lines = max((path.read_text().count("\n") for path in programs), default=0)
    if not toy:  # writing programs out takes time
        seconds = statistics.median(first() for _ in range(3))
    return seconds, lines


def first_answer(case, kind, toy):
    return timed(CASES[case](toy)[kind])[0]


def _lstm(toy):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import vgjax

    features, T = (4, 10) if toy else (64, 100)
    cell = nnx.LSTMCell(1, features, rngs=nnx.Rngs(0))
    carry = cell.initialize_carry((1,), nnx.Rngs(1))
    inputs = jnp.cos(jnp.arange(T, dtype=jnp.float32))[:, None]
    jax.block_until_ready(jax.tree.leaves(cell))

    def step(state, x):
        c, h = jnp.split(state, 2)
        return jnp.concatenate(cell((c, h), x)[0])

    return _spectra(step, jnp.concatenate(carry), inputs) | {
        "vgjax": lambda: vgjax.jacobian_spectrum(cell, carry, inputs)
    }


def _tanh(toy):
    import vgjax

    step, h, inputs = _tanh_network(toy)
    return _spectra(step, h, inputs) | {
        "vgjax": lambda: vgjax.jacobian_spectrum(_as_pair(step), h, inputs)
    }


def _stack(toy):
    import jax
    import jax.numpy as jnp

    import vgjax

    T, N = (10, 4) if toy else (200, 64)
    chain = jax.random.normal(jax.random.key(0), (T, N, N)) / N**0.5

    @jax.jit
    def plain(chain):
        def multiply(product, J):
            product = J @ product
            return product, jnp.log(jnp.linalg.svd(product, compute_uv=False))

        return jax.lax.scan(multiply, jnp.eye(N), chain)[1]

    return {
        "plain": lambda: plain(chain),
        "vgjax": lambda: vgjax.products.product_spectrum(chain),
    }


def _exponents(toy):
    import jax
    import jax.numpy as jnp

    import vgjax

    step, h, inputs = _tanh_network(toy)

    @jax.jit
    def plain(h, inputs):
        def push(state, x):
            h, Q = state
            Q, R = jnp.linalg.qr(jax.jacrev(step)(h, x) @ Q)
            return (step(h, x), Q), jnp.log(jnp.abs(jnp.diagonal(R)))

        return jax.lax.scan(push, (h, jnp.eye(len(h))), inputs)[1].mean(0)

    return {
        "plain": lambda: plain(h, inputs),
        "vgjax": lambda: vgjax.lyapunov_spectrum(_as_pair(step), h, inputs).exponents,
    }


def _lags(toy):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import vgjax

    features, T = (4, 10) if toy else (32, 100)
    cell = nnx.GRUCell(1, features, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(cell)
    h, inputs = jnp.ones(features), jnp.cos(jnp.arange(T, dtype=jnp.float32))[:, None]

    @jax.jit
    def plain(weights):
        def loss(weights):
            step = nnx.merge(graph, weights)
            return jax.lax.scan(step, h, inputs)[0].sum()

        return jax.grad(loss)(weights)

    def last(trajectory):
        return trajectory.carry.sum()

    measure = vgjax.gradients.lag_contributions
    return {
        "plain": lambda: plain(weights),
        "vgjax": lambda: measure(cell, h, inputs, last).log_norm,
    }


def _leading(toy):
    import vgjax

    step, h, inputs = _tanh_network(toy)
    measure = vgjax.spectra.leading_spectrum
    return _spectra(step, h, inputs) | {
        "vgjax": lambda: measure(_as_pair(step), h, inputs, k=2).log_singular_values
    }


def _tanh_network(toy):
    import jax
    import jax.numpy as jnp

    N, T = (16, 10) if toy else (32, 200)
    W = 1.2 * jax.random.normal(jax.random.key(0), (N, N)) / N**0.5
    inputs = jax.random.normal(jax.random.key(1), (T, N))
    return (lambda h, x: jnp.tanh(W @ h + x)), jnp.zeros(N), inputs


def _as_pair(step):
    def pair(h, x):
        h = step(h, x)
        return h, h

    return pair


def _spectra(step, h, inputs):
    """What a user would write: `jax.jacrev`, a product, an SVD at every step."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def plain(h, inputs):
        def multiply(state, x):
            h, product = state
            product = jax.jacrev(step)(h, x) @ product
            values = jnp.linalg.svd(product, compute_uv=False)
            return (step(h, x), product), jnp.log(values)

        return jax.lax.scan(multiply, (h, jnp.eye(len(h))), inputs)[1]

    return {"plain": lambda: plain(h, inputs)}


CASES = {
    "lstm": _lstm,
    "tanh": _tanh,
    "stack": _stack,
    "exponents": _exponents,
    "lags": _lags,
    "leading": _leading,
}


def overhead(T, repeats):
    """Milliseconds that a warm `rollout` takes beyond the jitted scan of its cell."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import vgjax

    cell = nnx.GRUCell(32, 32, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(cell)
    h, inputs = jnp.zeros(32), jnp.ones((T, 32))
    scan = jax.jit(lambda w: jax.lax.scan(nnx.merge(graph, w), h, inputs))
    ours, plain = in_turn(
        [lambda: vgjax.rollout(cell, h, inputs), lambda: scan(weights)], repeats
    )
    return 1e3 * (ours - plain)
