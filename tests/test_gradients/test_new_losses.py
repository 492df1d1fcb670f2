"""Losses and steps made anew: right numbers, and nothing compiled again."""

import functools

import chex
import gradient_systems as systems
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from gradient_cases import case

from vgjax import gradients, steps

MEASURES = [
    gradients.cotangents,
    gradients.lag_contributions,
    gradients.gradient_flow,
    gradients.alignment,
]


@pytest.fixture
def compiled():
    """A list that grows by one with each program that is compiled."""
    with compilations() as found:
        yield found


class Readout:
    def __init__(self, labels):
        self.labels = labels

    def loss(self, trajectory):
        return systems.labels_loss(self.labels, trajectory)


def new_lambda(labels):
    return lambda trajectory: systems.labels_loss(labels, trajectory)


def new_partial(labels):
    return functools.partial(systems.labels_loss, labels)


def of_a_dict(labels):
    data = {"labels": labels}
    return lambda trajectory: systems.labels_loss(data["labels"], trajectory)


LOSSES = [new_lambda, new_partial, of_a_dict, lambda labels: Readout(labels).loss]


@pytest.mark.parametrize("measure", MEASURES[:2])
@pytest.mark.parametrize("make", LOSSES)
def test_new_steps_and_losses_compile_nothing_new(measure, make, compiled, dtype):
    (step, h, x, _), _ = case("outputs", dtype)
    labels = jnp.zeros((len(x), systems.M), dtype)
    params = [jax.tree.map(lambda a, s=s: s * a, step.params) for s in (1.0, 0.5)]
    scaled = [labels + s for s in (1.0, 0.5)]
    jax.block_until_ready((params, scaled))
    for k in (0, 1):
        before = len(compiled)
        fresh = functools.partial(systems.network, params[k])
        found = measure(fresh, h, x, make(scaled[k]))
        count = len(compiled) - before
        plain = steps.from_function(systems.network, params[k])
        wanted = measure(plain, h, x, new_lambda(scaled[k]))
        chex.assert_trees_all_close(
            jax.tree.leaves(found), jax.tree.leaves(wanted), rtol=1e-6
        )
    assert count == 0


def test_a_loss_whose_arrays_changed_reads_the_new_ones(dtype):
    (step, h, x, _), _ = case("last", dtype)
    data = {"target": jnp.zeros(3, dtype)}

    def loss(trajectory):
        return systems.target_loss(data["target"], trajectory)

    before = gradients.cotangents(step, h, x, loss)[-1]
    data["target"] = data["target"] + 1
    after = gradients.cotangents(step, h, x, loss)[-1]
    np.testing.assert_allclose(before - after, 1, rtol=1e-5)


def newton(params, h, x):
    """Solve z + z^3 / 3 = w h + x, which has a forward rule only."""
    b = params * h + x

    def body(carry):
        z, k = carry
        return z - (z + z**3 / 3 - b) / (1 + z**2), k + 1

    z, _ = jax.lax.while_loop(lambda c: c[1] < 30, body, (b / 2, 0))
    return z, 2 * z


def unrolled_newton(params, h, x):
    b = params * h + x
    z = b / 2
    for _ in range(30):
        z = z - (z + z**3 / 3 - b) / (1 + z**2)
    return z, 2 * z


def diagonal(like):
    return jnp.arange(1, 4).astype(like.dtype)


def solved(params, h, x):
    """Solve (diag(1, 2, 3) + w w^T) z = h + x by GMRES inside of `custom_root`."""
    b = h + x

    def residual(z):
        return diagonal(z) * z + params * jnp.sum(params * z) - b

    def solve(*_):
        matrix = jnp.diag(diagonal(b)) + jnp.outer(params, params)
        return jnp.linalg.solve(matrix, b)

    def tangent(g, y):
        return jax.scipy.sparse.linalg.gmres(g, y, tol=1e-14, atol=0.0)[0]

    z = jax.lax.custom_root(residual, b, solve, tangent)
    return z, z


def solved_plainly(params, h, x):
    matrix = jnp.diag(diagonal(h)) + jnp.outer(params, params)
    z = jnp.linalg.solve(matrix, h + x)
    return z, z


def fourier(params, h, x):
    z = jnp.fft.fft(params * h + x, norm="ortho")
    return jnp.real(z) + jnp.imag(z), h


def fourier_by_matrix(params, h, x):
    k = jnp.arange(3.0).astype(h.dtype)
    turns = 2 * jnp.pi * jnp.outer(k, k) / 3
    F = (jnp.cos(turns) - jnp.sin(turns)) / jnp.sqrt(jnp.asarray(3, h.dtype))
    return F @ (params * h + x), h


def both(trajectory):
    return jnp.sum(trajectory.outputs**2) + jnp.sum(trajectory.carry)


RULES = [
    (newton, unrolled_newton),
    (solved, solved_plainly),
    (fourier, fourier_by_matrix),
]


@pytest.mark.float64
@pytest.mark.parametrize("measure", [*MEASURES, gradients.signal_to_noise])
@pytest.mark.parametrize(("step", "plain"), RULES)
def test_steps_with_a_forward_rule_only_are_measured(measure, step, plain):
    params, h = jnp.asarray([0.9, -0.7, 0.5]), jnp.asarray([0.3, 0.2, -0.4])
    x = jax.random.normal(jax.random.key(0), (4, 3)) / 2
    if measure is gradients.signal_to_noise:
        h, x = jnp.stack([h, -h]), jnp.stack([x, 2 * x])
    found, wanted = (
        measure(steps.from_function(fn, params), h, x, both) for fn in (step, plain)
    )
    chex.assert_trees_all_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("h", "x"),
    [((3,), (4, 5, 2)), ((3,), (3, 5, 2)), ((3,), (2, 5, 2))],
)
def test_one_carry_for_a_batch_of_inputs_is_refused(h, x, dtype):
    (step, _, _, _), _ = case("last", dtype)
    with pytest.raises(
        ValueError, match="`carry` must have the batch along .*broadcast"
    ):
        gradients.signal_to_noise(step, np.ones(h, dtype), np.ones(x, dtype), both)
