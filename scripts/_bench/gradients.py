"""What `cotangents` and `lag_contributions` take, beside `jax.grad`."""

import jax
import jax.numpy as jnp
from flax import nnx

from vgjax import gradients

from ._measure import alone, in_turn
from ._table import Bounded, Table

COST, GAIN = 1.5, 10  # at most, as a ratio to `jax.grad`; at least, to T of it


def report(toy):
    """Print one table; at toy size without verdicts."""
    N, T = (4, 12) if toy else (64, 200)
    table = Table(
        f"gradients, float32, state of {N} numbers, T = {T}",
        "loss 8s | cell 5s | cotangents / jax.grad 8.2f | "
        "lags: times faster than T jax.grad 8.0f",
    )
    for loss in ("last", "outputs"):
        for kind in ("tanh",) if toy else ("tanh", "gru"):
            cost, gain = alone(lags, loss, kind, N, T, threads="1")
            if not toy:
                cost, gain = Bounded(cost, COST), Bounded(gain, GAIN, least=True)
            table.row(loss, kind, cost, gain)
    print()


def lags(loss, kind, N, T):
    """Return two ratios of times: to one `jax.grad`, and of T of them to ours.

    These are, for each lag, `jax.grad` with the parameters alive at that lag alone.

    For a loss at every step the windows of k + 1 steps that end at each t are one
    batch, alive in their first step.
    """
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
    return ours / theirs, slow / fast
