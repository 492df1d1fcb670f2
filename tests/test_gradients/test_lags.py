"""The gradient split by lag, and these parts over a batch."""

import math

import gradient_systems as systems
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gradient_cases import case, fixed_point, last_one
from jax.flatten_util import ravel_pytree
from jax.tree_util import keystr, tree_leaves_with_path

from vgjax import gradients, steps


@pytest.mark.parametrize("kind", ["last", "outputs", "mixed", "given"])
def test_parts_are_those_carried_back_by_hand(kind, dtype, tolerance):
    arguments, hand = case(kind, dtype)
    found = gradients.lag_contributions(*arguments)
    parts, _, _ = systems.paths(*hand)
    T = len(parts["b"])
    np.testing.assert_array_equal(found.lags, np.arange(T))
    tol = tolerance(1e-12, 1e-4)
    for name, part in parts.items():
        path = f".params['{name}']"
        with np.errstate(divide="ignore"):
            norms = np.log(np.linalg.norm(part.reshape(T, -1), axis=1))
        np.testing.assert_allclose(found.log_norms[path], norms, atol=tol)
        size = np.abs(part.sum(0)).max()
        np.testing.assert_allclose(
            found.gradient[path], part.sum(0), atol=tolerance(1e-12, 1e-5) * size
        )
    flat = systems.flat_parts(parts)
    norms = np.log(np.linalg.norm(flat, axis=1))
    np.testing.assert_allclose(found.log_norm, norms, atol=tol)
    whole = flat.sum(0)
    fraction = np.cumsum(flat @ whole) / (whole @ whole)
    np.testing.assert_allclose(found.fraction, fraction, atol=tol)
    np.testing.assert_allclose(found.fraction[-1], 1, atol=tol)
    assert found.log_norm.dtype == found.fraction.dtype == dtype


T = 6


def gated(Cell, dtype):
    cell = Cell(2, 3, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(3))
    graph, weights = nnx.split(cell)
    flat, unravel = ravel_pytree(weights)
    flat = np.random.default_rng(3).standard_normal(flat.size)
    cell = nnx.merge(graph, unravel(jnp.asarray(flat, dtype)))
    h = jnp.linspace(-1, 1, 3, dtype=dtype)
    carry = (h[::-1], h) if Cell is nnx.LSTMCell else h
    return cell, carry, jax.random.normal(jax.random.key(2), (T, 2), dtype)


def of_the_carry(trajectory):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(trajectory.carry))


@jax.jit
def isolated(cell, carry, inputs, k):
    """`jax.grad` of the last carry, the parameters alive in step T - k alone."""

    @jax.grad
    def part(cell):
        def step(h, x_and_t):
            x, t = x_and_t
            alive = jax.tree.map(
                lambda w: jnp.where(t == T - 1 - k, w, jax.lax.stop_gradient(w)), cell
            )
            return alive(h, x)

        last, _ = jax.lax.scan(step, carry, (inputs, jnp.arange(T)))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(last))

    return part(cell)


def test_parts_are_those_that_stop_gradient_leaves(dtype, tolerance):
    cell, carry, inputs = gated(nnx.GRUCell, dtype)
    found = gradients.lag_contributions(cell, carry, inputs, of_the_carry)
    sums = {path: 0 for path in found.gradient}
    for k in range(T):
        part = isolated(cell, carry, inputs, k)
        named = {
            keystr(p): np.asarray(a, float) for p, a in tree_leaves_with_path(part)
        }
        assert named.keys() == found.log_norms.keys()
        for path, leaf in named.items():
            norm = math.log(np.linalg.norm(leaf))
            tol = tolerance(1e-11, 1e-3)
            np.testing.assert_allclose(found.log_norms[path][k], norm, atol=tol)
            sums[path] = sums[path] + leaf
    for path, total in sums.items():
        tol = tolerance(1e-12, 1e-5) * np.abs(total).max()
        np.testing.assert_allclose(found.gradient[path], total, atol=tol)


def test_parts_of_a_loss_at_every_step_sum_to_its_gradient(dtype, tolerance):
    cell, carry, inputs = gated(nnx.LSTMCell, dtype)

    def loss(trajectory):
        return jnp.sum(trajectory.outputs**2)

    found = gradients.lag_contributions(cell, carry, inputs, loss)

    def plain(cell):
        return jnp.sum(jax.lax.scan(cell, carry, inputs)[1] ** 2)

    for path, leaf in tree_leaves_with_path(jax.jit(jax.grad(plain))(cell)):
        tol = tolerance(1e-12, 1e-5) * np.abs(leaf).max()
        np.testing.assert_allclose(found.gradient[keystr(path)], leaf, atol=tol)
    # The parts are summed apart from the gradient: this holds only if they add up.
    np.testing.assert_allclose(found.fraction[-1], 1, atol=tolerance(1e-12, 1e-5))


@pytest.mark.parametrize("w", [0.5, 3.0])
def test_lag_5000_of_the_last_step_is_known_in_closed_form(w, dtype, tolerance):
    T, k = 5001, np.arange(5001)
    step, h, x = fixed_point(w, T, dtype)
    found = gradients.lag_contributions(step, h, x, last_one)
    rtol = tolerance(1e-12, 1e-5)
    slope, at_rest = k * math.log(w), math.log(abs(1 / (1 - w)))
    norms = found.log_norms
    np.testing.assert_allclose(norms[".params['u']"], slope, rtol=rtol, atol=rtol)
    wanted = slope + at_rest
    np.testing.assert_allclose(norms[".params['w']"], wanted, rtol=rtol, atol=rtol)
    both = slope + 0.5 * math.log(1 + math.exp(2 * at_rest))
    np.testing.assert_allclose(found.log_norm, both, rtol=rtol, atol=rtol)
    assert abs(slope[-1]) > 3000
    # All parts have one direction.
    at = [0, 1, 10, 4990, 5000]
    w = np.longdouble(w)
    wanted = (1 - w ** (k[at] + 1)) / (1 - w**T)
    atol = tolerance(1e-12, 1e-5)
    np.testing.assert_allclose(found.fraction[np.array(at)], wanted, atol=atol)
    gradient = found.gradient[".params['u']"]
    assert np.isinf(gradient) if w > 1 else abs(gradient - 2) < 1e-6


@pytest.mark.parametrize("w", [0.5, 3.0])
def test_lag_2000_of_every_step_is_known_in_closed_form(w, dtype, tolerance):
    T, k = 2001, np.arange(2001)
    step, h, x = fixed_point(w, T, dtype)
    given = jnp.ones((T + 1, 1), dtype)
    found = gradients.lag_contributions(step, h, x, given)
    rtol = tolerance(1e-12, 1e-5)
    wanted = k * math.log(w) + np.log(T - k)
    norms = found.log_norms[".params['u']"]
    np.testing.assert_allclose(norms, wanted, rtol=rtol, atol=10 * rtol)
    np.testing.assert_allclose(found.fraction[-1], 1, rtol=tolerance(1e-12, 1e-5))


def test_a_loss_of_the_last_two_states_is_no_loss_of_the_last(dtype, tolerance):
    step, h, x = fixed_point(0.5, 4, dtype)
    given = jnp.zeros((5, 1), dtype).at[3:].set(1)
    found = gradients.lag_contributions(step, h, x, given)
    # Of u: 0.5^k from the last state, and as much from the one before while it lasts.
    wanted = np.log([2, 1, 0.5, 0.125])
    norms = found.log_norms[".params['u']"]
    np.testing.assert_allclose(norms, wanted, atol=tolerance(1e-12, 1e-5))
    np.testing.assert_allclose(found.fraction[-1], 1, rtol=tolerance(1e-12, 1e-5))


def annihilates(w, h, x):
    return jax.nn.relu(w @ h + x), None


def test_what_a_step_annihilates_reads_minus_infinity(dtype):
    w = jnp.eye(2, dtype=dtype)
    x = jnp.zeros((5, 2), dtype).at[2].set(-9)
    step, h = steps.from_function(annihilates, w), jnp.ones(2, dtype)
    given = jnp.zeros((6, 2), dtype).at[-1].set(1).at[2].set(1)
    found = gradients.lag_contributions(step, h, x, given)
    # Lags 0 and 1 of state 2; the last state learns of nothing, being zero.
    np.testing.assert_array_equal(np.isneginf(found.log_norm), [0, 0, 1, 1, 1])
    last = given.at[2].set(0)
    found = gradients.lag_contributions(step, h, x, last)
    assert np.isneginf(found.log_norm).all()
    assert np.isnan(found.fraction).all()
    assert found.gradient[".params"].shape == (2, 2)
    assert not np.any(found.gradient[".params"])


def test_a_step_without_parameters_is_refused_and_told_where_they_go(dtype):
    x = jnp.ones((3, 2), dtype)
    sentence = "`step` must have floating arrays .*vgjax.steps.from_function"
    for measure, batch in [
        (gradients.lag_contributions, lambda a: a),
        (gradients.signal_to_noise, lambda a: jnp.stack([a, a])),
    ]:
        with pytest.raises(ValueError, match=sentence):
            measure(systems.network_free, batch(x[0]), batch(x), last_one)


def test_empty_and_whole_leaves_of_a_step_are_no_parameters(dtype):
    def scale_by(params, h, x):
        return params[0] * h + x, None

    params = (jnp.asarray(0.5, dtype), jnp.zeros((0,), dtype), jnp.arange(2))
    step = steps.from_function(scale_by, params)
    x = jnp.ones((3, 1), dtype)
    found = gradients.lag_contributions(step, x[0], x, last_one)
    assert list(found.gradient) == [".params[0]"]
    both = gradients.signal_to_noise(
        step, jnp.stack([x[0], x[0]]), jnp.stack([x, 2 * x]), last_one
    )
    assert np.isfinite(both.log_signal).all()
