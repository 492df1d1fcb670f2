"""Steps from linen, Equinox and plain functions; and that none is compiled twice."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from counting import compilations
from flax import linen, nnx

import vgjax
from vgjax import steps


class NnxTanh(nnx.Module):
    def __init__(self, W):
        self.W = nnx.Param(W)

    def __call__(self, h, x):
        h = jnp.tanh(self.W[...] @ h + x)
        return h, h


class LinenTanh(linen.Module):
    features: int

    @linen.compact
    def __call__(self, h, x):
        W = self.param("W", linen.initializers.zeros, (self.features,) * 2, h.dtype)
        h = jnp.tanh(W @ h + x)
        return h, h


class EquinoxTanh(equinox.Module):
    W: jax.Array

    def __call__(self, x, h):
        return jnp.tanh(self.W @ h + x)


def plain_tanh(params, h, x):
    h = jnp.tanh(params["W"] @ h + x)
    return h, h


MAKE = {
    "nnx": NnxTanh,
    # A new but equal module each time.
    "linen": lambda W: steps.from_linen(LinenTanh(len(W)), {"params": {"W": W}}),
    "equinox": lambda W: steps.from_equinox(EquinoxTanh(W)),
    "function": lambda W: steps.from_function(plain_tanh, {"W": W}),
}
MEASURE = {
    "rollout": vgjax.rollout,
    "state_jacobians": vgjax.state_jacobians,
    "propagator": vgjax.propagator,
    "jacobian_spectrum": vgjax.jacobian_spectrum,
}


def problem(seed, dtype):
    rng = np.random.default_rng(seed)
    W, h, x = rng.standard_normal((3, 3)), rng.standard_normal(3), np.ones((4, 3))
    return [jnp.asarray(a, dtype) for a in (W, h, x)]


def compared(result):
    """The last array of a result; of a spectrum the values: errors are always small."""
    if isinstance(result, vgjax.products.Spectrum):
        result = result.log_singular_values
    return np.asarray(jax.tree.leaves(result)[-1])


@pytest.mark.parametrize("kind", MAKE)
def test_new_weights_of_the_same_shape_are_not_compiled_again(kind, dtype, tolerance):
    for measure in MEASURE.values():
        W, h, x = problem(1, dtype)
        first = measure(MAKE[kind](W), h, x)
        W, h, x = problem(2, dtype)
        step = MAKE[kind](W)
        with compilations() as again:
            second = measure(step, h, x)
        assert again == []
        assert np.abs(compared(first) - compared(second)).max() > 0.01
    expected = jnp.tanh(W @ h + x[0])
    found = vgjax.rollout(MAKE[kind](W), h, x)
    tol = tolerance(1e-14, 1e-6)
    np.testing.assert_allclose(found.states[1], expected, atol=tol)
    np.testing.assert_allclose(found.outputs, found.states[1:], atol=tol)
    # The counter counts: a new length is a new program.
    with compilations() as anew:
        vgjax.rollout(
            MAKE[kind](W), h, jnp.ones((5 + list(MAKE).index(kind), 3), dtype)
        )
    assert anew


@pytest.mark.parametrize(
    "name", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell"]
)
def test_linen_cells_take_the_steps_that_apply_takes(name, dtype, tolerance):
    cell = getattr(linen, name)(features=3, dtype=dtype, param_dtype=dtype)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, 2)), dtype)
    carry = cell.initialize_carry(jax.random.key(0), (2,))
    variables = cell.init(jax.random.key(1), carry, x[0])
    found = vgjax.rollout(steps.from_linen(cell, variables), carry, x)
    for t in range(3):
        carry, y = cell.apply(variables, carry, x[t])
        np.testing.assert_allclose(found.outputs[t], y, rtol=tolerance(1e-13, 1e-5))
    state = np.concatenate([np.ravel(a) for a in jax.tree.leaves(carry)])
    np.testing.assert_allclose(found.states[-1], state, rtol=tolerance(1e-13, 1e-5))


def test_equinox_lstm_passes_on_h_above_c(dtype, tolerance):
    cell = equinox.nn.LSTMCell(2, 3, key=jax.random.key(1), dtype=dtype)
    rng = np.random.default_rng(2)
    h, c, x = rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal(2)
    carry = (jnp.asarray(h, dtype), jnp.asarray(c, dtype))
    step = steps.from_equinox(cell)
    found = vgjax.rollout(step, carry, jnp.asarray(x[None], dtype))
    J = vgjax.jacobians.state_jacobian(step, carry, jnp.asarray(x, dtype))

    gates = np.asarray(cell.weight_ih) @ x + np.asarray(cell.weight_hh) @ h + cell.bias
    i, f, g, o = np.split(gates, 4)
    i, f, g, o = oracles.sigmoid(i), oracles.sigmoid(f), np.tanh(g), oracles.sigmoid(o)
    c = f * c + i * g
    h = o * np.tanh(c)
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(found.states[1], np.concatenate([h, c]), rtol=tol)
    np.testing.assert_allclose(found.outputs[0], h, rtol=tol)
    np.testing.assert_allclose(J[3:, 3:], np.diag(f), rtol=tol, atol=tol)
    by_c = np.diag(o * (1 - np.tanh(c) ** 2) * f)
    np.testing.assert_allclose(J[:3, 3:], by_c, rtol=tol, atol=tol)


def test_equinox_gru_passes_on_its_only_state(dtype, tolerance):
    cell = equinox.nn.GRUCell(2, 3, key=jax.random.key(1), dtype=dtype)
    h, x = jnp.ones(3, dtype), jnp.ones((2, 2), dtype)
    found = vgjax.rollout(steps.from_equinox(cell), h, x)
    expected = cell(x[1], cell(x[0], h))
    np.testing.assert_allclose(found.states[2], expected, rtol=tolerance(1e-13, 1e-5))
    np.testing.assert_array_equal(found.outputs, found.states[1:])


@pytest.mark.parametrize("kind", ["linen", "equinox", "function"])
def test_leaves_of_a_step_are_its_weights(kind, dtype):
    W, _, _ = problem(1, dtype)
    (leaf,) = jax.tree.leaves(MAKE[kind](W))
    np.testing.assert_array_equal(leaf, W)
    twice = jax.tree.map(lambda w: 2 * w, MAKE[kind](W))
    h, x = jnp.ones(3, dtype), jnp.zeros((1, 3), dtype)
    found = vgjax.rollout(twice, h, x).states[1]
    np.testing.assert_allclose(found, jnp.tanh(2 * W @ h), rtol=1e-5)


@pytest.mark.parametrize(
    ("adapter", "arguments", "sentence"),
    [
        (steps.from_linen, (3, {}), "`module` must be a Flax linen .*but is int"),
        (
            steps.from_linen,
            (linen.GRUCell(3), None),
            "`variables` must be the mapping .*but is NoneType",
        ),
        (steps.from_equinox, ("cell",), "`cell` must be callable, but is str"),
        (steps.from_function, ({}, plain_tanh), "`fn` must be callable, but is dict"),
    ],
)
def test_what_is_no_cell_is_refused_by_name(adapter, arguments, sentence):
    with pytest.raises(TypeError, match=sentence):
        adapter(*arguments)
