"""How many rows of a Jacobian plain autodiff loses, counted by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgjax import activations
from vgjax.jacobians import saturation
from vgjax.steps import from_function

# Pre-activations where 1 - tanh^2 is right, off by some 0.4 %, off by more than 1 %,
# and zero, and where the derivative itself is no normal number.
FATES = {
    "float32": {"right": 1.0, "near": 5.7, "wrong": 7.3, "lost": 10.0, "gone": 50.0},
    "float64": {"right": 1.0, "near": 15.8, "wrong": 17.6, "lost": 25.0, "gone": 400.0},
}


@pytest.fixture
def fates(dtype):
    return FATES[np.dtype(dtype).name]


def diagonal(fn, s, a):
    """Stay where s is, with the Jacobian ``diag(fn'(a s) a)``."""
    moved = fn(a * s)
    return jax.lax.stop_gradient(s - moved) + moved, None


def pre_activations(fates, *rows):
    return np.array([[fates[name] for name in row.split()] for row in rows])


ROWS = [
    "right right right right",
    "lost right right right",
    "wrong right lost gone",
    "lost lost wrong lost",
    "gone gone gone gone",
    "near right near near",
]
LOST = [0, 0.25, 0.25, 0.75, 0, 0]
WRONG = [0, 0.25, 0.5, 1, 0, 0]


def test_the_pre_activations_have_the_fates_they_are_named_for(fates, dtype):
    for name, a in fates.items():
        a = jnp.asarray(a, dtype)
        found = np.float64(jax.grad(jnp.tanh)(a))
        e = np.exp(-2 * np.float64(a))
        true = 4 * e / (1 + e) ** 2
        if name == "right":
            assert abs(found / true - 1) < 1e-5
        if name == "near":
            assert 0.002 < abs(found / true - 1) < 0.008
        if name == "wrong":
            assert found > 0
            assert abs(found / true - 1) > 0.011
        assert (found == 0) == (name in ("lost", "gone"))
        assert (true < np.finfo(dtype).tiny) == (name == "gone")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("fn", [jnp.tanh, activations.tanh, jax.jit(jnp.tanh)])
def test_rows_are_counted(fn, sign, fates, dtype):
    step = partial(diagonal, fn)
    inputs = sign * jnp.asarray(pre_activations(fates, *ROWS), dtype)
    found = saturation(step, jnp.ones(4, dtype), inputs)
    assert found.lost.dtype == found.wrong.dtype == dtype
    np.testing.assert_array_equal(found.lost, LOST)
    np.testing.assert_array_equal(found.wrong, WRONG)


def tanh_network(W, h, x):
    h = jnp.tanh(W @ h + x)
    return h, h


def test_a_network_of_low_gain_loses_nothing_and_one_of_high_gain_much(dtype):
    rng = np.random.default_rng(1)
    W = jnp.asarray(rng.standard_normal((8, 8)) / np.sqrt(8), dtype)
    h, x = jnp.ones(8, dtype), jnp.asarray(rng.standard_normal((20, 8)), dtype)
    low = saturation(from_function(tanh_network, 0.5 * W), h, x)
    np.testing.assert_array_equal(low.lost, 0)
    np.testing.assert_array_equal(low.wrong, 0)
    high = saturation(from_function(tanh_network, 100 * W), h, x)
    assert high.lost.shape == high.wrong.shape == (20,)
    assert np.mean(high.lost) > 0.2
    assert np.all(high.wrong >= high.lost)
    assert np.all(high.wrong <= 1)


def test_rows_are_compared_by_their_own_size_however_small(fates, dtype):
    tiny = jnp.asarray(1e-25 if dtype == jnp.float32 else 1e-250, dtype)
    inputs = jnp.asarray(pre_activations(fates, "right lost", "wrong right"), dtype)
    step = partial(diagonal, lambda a: tiny * jnp.tanh(a))
    found = saturation(step, jnp.ones(2, dtype), inputs)
    np.testing.assert_array_equal(found.lost, [0.5, 0])
    np.testing.assert_array_equal(found.wrong, [0.5, 0.5])


def test_whole_numbers_in_the_carry_and_no_inputs_are_fine(fates, dtype):
    a = jnp.asarray(fates["lost"], dtype)

    def step(carry, x):
        del x
        s, clock = carry
        now = jnp.where(clock % 2 == 1, a, 1)
        return (diagonal(jnp.tanh, s, now)[0], clock + 1), None

    found = saturation(step, (jnp.ones(1, dtype), jnp.zeros((), int)), length=4)
    np.testing.assert_array_equal(found.lost, [0, 1, 0, 1])


def test_truly_zero_rows_count_as_neither_and_nan_reads_nan(dtype):
    x = jnp.asarray([[1.0], [np.nan]], dtype)
    found = saturation(lambda s, x: (0 * s + jax.lax.stop_gradient(x), None), x[0], x)
    np.testing.assert_array_equal(found.lost, [0, 0])
    found = saturation(lambda s, x: (jnp.tanh(x * s), None), x[0], x)
    np.testing.assert_array_equal(found.lost, [0, np.nan])
    np.testing.assert_array_equal(found.wrong, [0, np.nan])


def test_bad_arguments_are_refused_by_name(dtype):
    h = jnp.ones(2, dtype)
    with pytest.raises(TypeError, match="`step` must be callable"):
        saturation(3, h, length=2)
    with pytest.raises(ValueError, match="`length` must be given"):
        saturation(lambda s, x: (s, x), h)
    with pytest.raises(TypeError, match="`length` must be a whole number"):
        saturation(lambda s, x: (s, x), h, length=2.0)
