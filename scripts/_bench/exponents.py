"""How fast Lyapunov exponents are, beside loops with a QR at every step."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

import vgjax
from vgjax._frames import random_basis

from ._measure import alone, in_turn, start
from ._table import Bounded, Table

# (N, T) and how many times faster than a loop in PyTorch is aimed at.
SIZES = {(32, 1000): 15, (128, 500): 3, (256, 200): 3}
TOY = {(8, 60): 0}
PRECISE = 1e-6  # nats per step, from a QR factorisation at every step


def report(toy):
    """All exponents of a tanh network, beside three loops with a QR at every step."""
    for threads in ("1", None):
        table = Table(
            "lyapunov_spectrum, tanh network, gain 2, all N exponents, "
            f"OPENBLAS_NUM_THREADS={threads or 'default'};\n"
            "times faster than a loop with QR at every step in JAX, NumPy, PyTorch; "
            "worst difference, nats per step",
            "N 5d | T 5d | ms 7.1f | plain JAX 7.1f | NumPy 7.1f | "
            "PyTorch 7.1f | difference 8.0e",
        )
        for (N, T), aim in (TOY if toy else SIZES).items():
            *measured, torch, error = alone(exponents, N, T, threads=threads)
            torch = torch and Bounded(torch, aim, least=True)
            table.row(N, T, *measured, torch, Bounded(error, PRECISE))
        if importlib.util.find_spec("torch") is None:
            print("PyTorch is not installed: VGJAX_EXTRAS=bench scripts/bench does it.")
        print()


def exponents(N, T):
    """Milliseconds, how many times faster than three loops, and the difference."""
    start()
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
    if importlib.util.find_spec("torch") is not None:
        loops.append(in_torch(W, h, basis, T))
    ours, *theirs = in_turn(loops, 5)

    found = loops[0]()
    # Beside JAX: the trajectory is chaotic, and only that one is the same to the end.
    logs = np.asarray(loops[1]())[-int(found.steps[-1]) :]
    expected = np.sort(logs.mean(0))[::-1]
    error = np.abs(np.asarray(found.exponents) - expected).max()
    faster = [seconds / ours for seconds in theirs]
    plain, numpy, torch = faster if len(faster) == 3 else (*faster, None)
    return ours * 1e3, plain, numpy, torch, float(error)


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
