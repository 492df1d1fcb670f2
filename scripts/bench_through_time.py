"""The part of `scripts/bench` on exponents, leading spectra and gradients by lag."""

import importlib.util
import time

from _measure import call, in_turn, peak_memory, start, verdict

# (N, T) and how many times faster than a loop in PyTorch is aimed at.
SIZES = {(32, 1000): 15, (128, 500): 3, (256, 200): 3}
TOY = {(8, 60): 0}
PRECISE = 1e-6  # nats per step, from a QR factorisation at every step
MEMORY = 4_000  # MB


def report(toy):
    """Print the three tables."""
    report_exponents(toy)
    report_leading(toy)
    report_gradients(toy)


# Lyapunov exponents ----------------------------------------------------------------


def report_exponents(toy):
    """All exponents of a tanh network, beside three loops with a QR at every step."""
    for threads in ("1", None):
        print(
            f"lyapunov_spectrum, tanh network, gain 2, all N exponents, "
            f"OPENBLAS_NUM_THREADS={threads or 'default'}\n"
            "                  times faster than a loop with QR at every step in\n"
            "    N     T      ms   plain JAX   NumPy  PyTorch (at least)  worst "
            f"difference, nats per step (at most {PRECISE:.0e})"
        )
        for (N, T), aim in (TOY if toy else SIZES).items():
            call("exponents", N, T, aim, threads=threads)
        if importlib.util.find_spec("torch") is None:
            print("PyTorch is not installed: VGJAX_EXTRAS=bench scripts/bench does it.")
        print()


def exponents(N, T, aim):
    """One row: a user's loops, and ours."""
    jax = start()
    import jax.numpy as jnp
    import numpy as np
    from vgjax.lyapunov._growth import random_basis

    import vgjax

    W = 2 * np.random.default_rng(1).standard_normal((N, N)) / N**0.5
    h = np.random.default_rng(2).standard_normal(N)
    # The frame that vgjax begins with, so that nothing but the groups can differ.
    basis = np.asarray(random_basis(N, N, jnp.dtype(float)))
    step = vgjax.steps.from_function(lambda W, h, x: (jnp.tanh(W @ h), x), W)

    @jax.jit
    def in_jax(W, h, basis):
        def advance(state, _):
            h, Q = state
            J = jax.jacrev(lambda h: jnp.tanh(W @ h))(h)
            Q, R = jnp.linalg.qr(J @ Q)
            return (jnp.tanh(W @ h), Q), jnp.log(jnp.abs(jnp.diagonal(R)))

        return jax.lax.scan(advance, (h, basis), length=T)[1]

    def in_numpy():
        state, Q, logs = h, basis, []
        for _ in range(T):
            state = np.tanh(W @ state)
            Q, R = np.linalg.qr((1 - state**2)[:, None] * W @ Q)
            logs.append(np.log(np.abs(np.diag(R))))
        return np.array(logs)

    given = [jnp.asarray(a) for a in (W, h, basis)]
    loops = [
        lambda: vgjax.lyapunov_spectrum(step, given[1], length=T),
        lambda: in_jax(*given),
        in_numpy,
    ]
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch:
        loops.append(in_torch(W, h, basis, T))
    ours, plain, numpy, *torch = in_turn(loops, 5)

    found = loops[0]()
    # Beside JAX: the trajectory is chaotic, and only that one is the same to the end.
    logs = np.asarray(loops[1]())[-int(found.steps[-1]) :]
    expected = np.sort(logs.mean(0))[::-1]
    error = np.abs(np.asarray(found.exponents) - expected).max()
    torch, said = (
        (f"{torch[0] / ours:.1f}", verdict(torch[0] / ours, aim, least=True))
        if has_torch
        else ("-", "-")
    )
    print(
        f"{N:5d} {T:5d} {ours * 1e3:7.1f} {plain / ours:11.1f} {numpy / ours:7.1f} "
        f"{torch:>8s} {aim:5d}  {said:6s} {error:9.0e}  {verdict(error, PRECISE)}",
        flush=True,
    )


def in_torch(W, h, basis, T):
    """Make a loop in PyTorch, with its Jacobian by reverse mode and its own QR."""
    import torch

    W, h, basis = (torch.tensor(a) for a in (W, h, basis))
    jacobian = torch.func.jacrev(lambda h: torch.tanh(W @ h))

    def loop():
        state, Q, logs = h, basis, []
        for _ in range(T):
            J = jacobian(state)
            state = torch.tanh(W @ state)
            Q, R = torch.linalg.qr(J @ Q)
            logs.append(torch.log(torch.abs(torch.diagonal(R))))
        return torch.stack(logs).numpy()

    return loop


# Leading spectra --------------------------------------------------------------------


def report_leading(toy):
    """Eight singular values of products too large for a Jacobian."""
    print(
        "leading_spectrum, k = 8, T = 100, float64, OPENBLAS_NUM_THREADS=default; "
        f"peak memory of the process, bound {MEMORY} MB\n"
        "    (s: first call, compiled in it; its own estimate of the error, and the "
        "error: nats; -: no answer known)\n"
        "                           s  sweeps  converged     estimate  error     MB"
    )
    sizes = {"lru": 64, "tanh": 32} if toy else {"lru": 65_536, "tanh": 4_096}
    for kind, N in sizes.items():
        call("leading", kind, N, 10 if toy else 250)
    print()


def leading(kind, N, max_sweeps):
    """One row, the first call; the error is against |lambda|^T for the LRU."""
    jax = start()
    import warnings

    import jax.numpy as jnp
    import numpy as np

    import vgjax

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
    began = time.perf_counter()
    found = jax.block_until_ready(
        vgjax.lyapunov.leading_spectrum(cell, carry, inputs, **options)
    )
    seconds = time.perf_counter() - began
    error = "-"
    if answer is not None:
        error = f"{np.abs(found.log_singular_values - answer).max():.0e}"
    memory = peak_memory()
    print(
        f"{kind:5s} state of {N:6d} {seconds:11.1f} {found.sweeps:7d} "
        f"{found.converged.sum():7d}/{k} {found.error.max():12.0e} {error:>6s} "
        f"{memory:6.0f}  {verdict(memory, MEMORY)}",
        flush=True,
    )


# Gradients --------------------------------------------------------------------------


def report_gradients(toy):
    """`cotangents` and `lag_contributions`, beside what `jax.grad` would take."""
    N, T = (4, 12) if toy else (64, 200)
    print(
        f"gradients, float32, state of {N} numbers, T = {T}\n"
        "    loss          cell   cotangents / jax.grad  (at most)   "
        "lags: times faster than T jax.grad  (at least)"
    )
    for loss in ("last", "outputs"):
        for kind in ("tanh",) if toy else ("tanh", "gru"):
            call("lags", loss, kind, N, T, 0 if toy else 10, threads="1")
    print()


def lags(loss, kind, N, T, aim):
    """One row, at toy size (aim 0) without a verdict.

    For each lag, `jax.grad` with the parameters alive at that lag alone.

    For a loss at every step the windows of k + 1 steps that end at each t are one
    batch, alive in their first step.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from vgjax import gradients

    cells = {"tanh": nnx.SimpleCell, "gru": nnx.GRUCell}
    cell = cells[kind](4, N, rngs=nnx.Rngs(0))
    h = jnp.linspace(-0.5, 0.5, N)
    x = jax.random.normal(jax.random.key(1), (T, 4))
    times = jnp.arange(T)

    def of_last(trajectory):
        return jnp.sum(trajectory.carry**2)

    def of_outputs(trajectory):
        return jnp.sum(trajectory.outputs**2)

    @jax.jit
    @jax.grad
    def plain(cell):
        last, outputs = jax.lax.scan(cell, h, x)
        return jnp.sum((last if loss == "last" else outputs) ** 2)

    def alive_if(alive, cell):
        dead = jax.lax.stop_gradient
        return jax.tree.map(lambda w: jnp.where(alive, w, dead(w)), cell)

    @jax.jit
    @jax.grad
    def part_of_last(cell, k):
        def step(h, x_and_t):
            x, t = x_and_t
            return alive_if(t == T - 1 - k, cell)(h, x)

        return jnp.sum(jax.lax.scan(step, h, (x, times))[0] ** 2)

    @jax.jit
    @jax.grad
    def part_of_outputs(cell, k):
        _, starts = jax.lax.scan(lambda h, x: (cell(h, x)[0], h), h, x)

        def windows(h, i):
            at = x[jnp.minimum(times + i, T - 1)]
            return jax.vmap(alive_if(i == 0, cell))(h, at)

        # Steps after the k-th are not taken: one program for all k, k steps long.
        def step(h, i):
            return jax.lax.cond(i < k, lambda h: windows(h, i)[0], lambda h: h, h), None

        ends = jax.lax.scan(step, starts, times)[0]
        read = jnp.where((times + k < T)[:, None], windows(ends, k)[1], 0)
        return jnp.sum(read**2)

    @jax.jit
    def norm(part):
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(part)))

    part = part_of_last if loss == "last" else part_of_outputs
    read = of_last if loss == "last" else of_outputs
    ours, theirs = in_turn(
        [lambda: gradients.cotangents(cell, h, x, read), lambda: plain(cell)], 31
    )
    fast, slow = in_turn(
        [
            lambda: gradients.lag_contributions(cell, h, x, read),
            lambda: [norm(part(cell, k)) for k in range(T)],
        ],
        3,
    )
    print(
        f"    {loss:12s} {kind:>5s} {ours / theirs:18.2f} "
        f"{1.5:11.1f}  {verdict(ours / theirs, 1.5) if aim else '-':6s} "
        f"{slow / fast:20.0f} {aim:11d}  "
        f"{verdict(slow / fast, aim, least=True) if aim else '-'}",
        flush=True,
    )


PARTS = (exponents, leading, lags)
