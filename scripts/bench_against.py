"""The same calls of two commits in one run: this tree's, as ratios to another's.

For warm calls two processes stay, and are asked in turn, so that a busy moment of the
machine hits both; first calls take turns in fresh processes.
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import verdict

ROOT = Path(__file__).resolve().parents[1]
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
    print(f"Warm calls, float64, milliseconds, and ratios to {commit} (aim {AIM}):")
    print("    call                     there     here   ratio")
    with contextlib.ExitStack() as stack:
        there, here = (stack.enter_context(_worker(at, toy)) for at in (other, ROOT))
        for name in WARM:
            seconds = [[], []]
            for _ in range(2 if toy else 9):
                for worker, seen in zip((there, here), seconds, strict=True):
                    seen.append(_ask(worker, name))
            # The first is a warm-up.
            old, new = (statistics.median(seen[1:]) for seen in seconds)
            print(
                f"    {name:22s} {1e3 * old:8.2f} {1e3 * new:8.2f}  "
                f"{new / old:6.2f}  {verdict(new / old, AIM)}",
                flush=True,
            )
    print()


def _report_first(other, commit, toy):
    print(f"First calls in fresh processes, seconds, and ratios to {commit}:")
    print("    case         there     here   ratio")
    for case in FIRST:
        seconds = [[], []]
        for _ in range(1 if toy else 3):
            for at, seen in zip((other, ROOT), seconds, strict=True):
                seen.append(_first(at, case, toy))
        old, new = map(statistics.median, seconds)
        print(f"    {case:10s} {old:8.2f} {new:8.2f}  {new / old:6.2f}", flush=True)
    print()


def _python(at, *arguments):
    program = (
        f"import sys; sys.path[:0] = [{str(at)!r}, {str(ROOT / 'scripts')!r}]\n"
        "import bench_against as b; b.work(*sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *arguments]


def _first(at, case, toy):
    run = _python(at, "first", case, "toy" if toy else "")
    done = subprocess.run(run, check=True, text=True, stdout=subprocess.PIPE)
    return float(done.stdout)


@contextlib.contextmanager
def _worker(at, toy):
    run = _python(at, "warm", "", "toy" if toy else "")
    pipe = subprocess.PIPE
    with subprocess.Popen(run, text=True, stdin=pipe, stdout=pipe) as worker:
        yield worker
        worker.stdin.close()


def _ask(worker, name):
    worker.stdin.write(name + "\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def work(kind, case, toy):
    """Measure in this process: one first call, or warm ones as they are asked for."""
    import jax

    import vgjax

    assert Path(vgjax.__file__).parents[1] == Path(sys.path[0])
    if kind == "first":
        import bench_first_answers

        jax.config.update("jax_enable_compilation_cache", False)
        bench_first_answers.first_answer(case, "vgjax", bool(toy))
        return
    jax.config.update("jax_enable_x64", True)
    cases = _cases(bool(toy))
    for line in sys.stdin:
        print(_seconds(cases[line.strip()]), flush=True)


def _seconds(run):
    import jax

    jax.block_until_ready(run())
    times = []
    # Calls of less than a millisecond are timed more often.
    until = time.perf_counter() + 0.3
    while not times or time.perf_counter() < until:
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


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

    products, lyapunov, gradients = vgjax.products, vgjax.lyapunov, vgjax.gradients
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
        "leading, tanh 256": measured(lyapunov.leading_spectrum, tanh(large, 50), k=4),
    }
