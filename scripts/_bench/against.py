"""The same calls of two commits in one run: this tree's, as ratios to another's.

For warm calls two processes stay, and are asked in turn, so that a busy moment of the
machine hits both; first calls take turns in fresh processes.
"""

import statistics
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from . import ROOT
from ._measure import median_for, process, start
from ._table import Bounded, Table
from .first_answers import first_answer

WARM = (
    *("rollout, GRU 32", "exact, stack 16", "exact, stack 64", "exact, tanh 32"),
    *("exact, GRU 64", "exponents, tanh 32", "exponents, tanh 128"),
    *("exponents, Lorenz", "cotangents, GRU 64", "lags, GRU 32", "leading, tanh 256"),
)
FIRST = ("stack", "tanh", "lstm", "exponents", "lags", "leading")
AIM = 1.05  # of warm calls


def report(commit, toy):
    """Print warm and first calls of this tree, as ratios to those of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(other), commit], check=True)
        try:
            _report_warm(other, commit, toy)
            _report_first(other, commit, toy)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)


def _report_warm(other, commit, toy):
    table = Table(
        f"Warm calls, float64, milliseconds, and ratios to {commit}:",
        "call 22s | there 8.2f | here 8.2f | ratio 6.2f",
    )
    with process(_look_in, other) as there, process(_look_in, ROOT) as here:

        def ask(name):
            # The first is a warm-up.
            times = [
                [worker.submit(warm, name, toy).result() for worker in (there, here)]
                for _ in range(2 if toy else 9)
            ]
            return map(statistics.median, zip(*times[1:], strict=True))

        for name in WARM:
            old, new = ask(name)
            table.row(name, 1e3 * old, 1e3 * new, Bounded(new / old, AIM))
    print()


def _report_first(other, commit, toy):
    table = Table(
        f"First calls in fresh processes, seconds, and ratios to {commit}:",
        "case 10s | there 8.2f | here 8.2f | ratio 6.2f",
    )
    for case in FIRST:
        times = [
            [_first(at, case, toy) for at in (other, ROOT)]
            for _ in range(1 if toy else 3)
        ]
        old, new = map(statistics.median, zip(*times, strict=True))
        table.row(case, old, new, new / old)
    print()


def _first(at, case, toy):
    with process(_look_in, at) as worker:
        return worker.submit(first, case, toy).result()


def _look_in(at):
    """Import vgjax from a checkout in this process."""
    sys.path.insert(0, str(at))
    import vgjax

    assert Path(vgjax.__file__).parents[1] == at


def first(case, toy):
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    return first_answer(case, "vgjax", toy)


def warm(name, toy):
    start()
    return median_for(0.3, _cases(toy)[name])


@cache
def _cases(toy):
    """Calls by name; `toy` ones are small."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    import vgjax

    rng = np.random.default_rng(0)

    def normal(T, *shape):
        return jnp.asarray(rng.standard_normal((4 if toy else T, *shape)))

    def tanh(N, T):
        W = jnp.asarray(1.2 * rng.standard_normal((N, N)) / N**0.5)
        step = lambda h, x: ((h := jnp.tanh(W @ h + x)), h)  # noqa: E731
        return step, jnp.zeros(N), normal(T, N)

    def gru(N, T):
        cell = nnx.GRUCell(N, N, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        return cell, jnp.zeros(N), normal(T, N)

    def lorenz(h, _, dt=0.01):
        def velocity(h):
            x, y, z = h
            return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

        a = velocity(h)
        b = velocity(h + dt / 2 * a)
        c = velocity(h + dt / 2 * b)
        d = velocity(h + dt * c)
        return h + dt / 6 * (a + 2 * b + 2 * c + d), None

    def last(trajectory):
        return trajectory.carry.sum()

    def measured(measure, given, *more, **options):
        return lambda: jax.tree.leaves(measure(*given, *more, **options))

    products, gradients = vgjax.products, vgjax.gradients
    # Older commits have it in another module.
    home = vgjax.spectra if hasattr(vgjax, "leading_spectrum") else vgjax.lyapunov
    leading = home.leading_spectrum
    spectrum, exponents = vgjax.jacobian_spectrum, vgjax.lyapunov_spectrum
    small, large = (16, 16) if toy else (64, 256)
    chains = [[normal(200, N, N) / N**0.5] for N in (16, small)]
    chaos = (lorenz, jnp.ones(3), None)
    return {
        "rollout, GRU 32": measured(vgjax.rollout, gru(32, 100)),
        "exact, stack 16": measured(products.product_spectrum, chains[0]),
        "exact, stack 64": measured(products.product_spectrum, chains[1]),
        "exact, tanh 32": measured(spectrum, tanh(32, 200)),
        "exact, GRU 64": measured(spectrum, gru(small, 100)),
        "exponents, tanh 32": measured(exponents, tanh(32, 1000)),
        "exponents, tanh 128": measured(exponents, tanh(2 * small, 200)),
        "exponents, Lorenz": measured(exponents, chaos, length=50 if toy else 4000),
        "cotangents, GRU 64": measured(gradients.cotangents, gru(small, 200), last),
        "lags, GRU 32": measured(gradients.lag_contributions, gru(32, 100), last),
        "leading, tanh 256": measured(leading, tanh(large, 50), k=4),
    }
