import inspect

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vgjax import activations, theory

FORMULAS = {
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: (
        x
        * (
            1
            + mpmath.tanh(
                mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
            )
        )
        / 2
    ),
}


@pytest.mark.parametrize(("name", "start"), [("silu", 2.4), ("gelu", 1.4)])
def test_slope_bounds_of_bumps_are_their_highest_slopes(name, start):
    f = FORMULAS[name]
    with mpmath.workdps(30):
        x = mpmath.findroot(lambda x: mpmath.diff(f, x, 2), start, tol=1e-24)
        expected = float(mpmath.diff(f, x))
    np.testing.assert_allclose(theory.slope_bound(name), expected, rtol=1e-15)


NAMES = ["tanh", "sigmoid", "softplus", "silu", "gelu", "erf", "elu"]
NAMES += ["relu", "leaky_relu", "hard_tanh"]


@pytest.mark.parametrize("name", NAMES)
def test_no_slope_is_above_the_bound_and_one_comes_near(name, dtype, tolerance):
    x = jnp.linspace(-40, 40, 40001, dtype=dtype)
    slopes = jax.vmap(jax.grad(getattr(activations, name)))(x)
    largest = np.abs(slopes).max()
    gamma = theory.slope_bound(name)
    # A grid of step 2e-3 misses a maximum by half its square.
    assert gamma - 2e-5 < largest < gamma * (1 + tolerance(1e-15, 1e-6))
    assert theory.vanishing_gain(name) == 1 / gamma


def test_linear_units_have_slope_one():
    assert theory.slope_bound("linear") == theory.slope_bound("identity") == 1


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
@pytest.mark.parametrize("gain", [0.3, 1.0, 3.0])
def test_no_propagator_is_larger_than_the_bound(name, gain, dtype, tolerance):
    rng = np.random.default_rng(1)
    W = gain * rng.standard_normal((6, 6)) / np.sqrt(6)
    x, norms, product = rng.standard_normal(6), [], np.eye(6)
    for _ in range(20):
        if name == "tanh":
            value, slope = np.tanh(x), 1 - np.tanh(x) ** 2
        else:
            value = 1 / (1 + np.exp(-x))
            slope = value * (1 - value)
        product = W @ np.diag(slope) @ product
        x = W @ value + rng.standard_normal(6)
        norms.append(np.log(np.linalg.norm(product, 2)))
    gamma, steps = theory.slope_bound(name), np.arange(1, 21)
    found = theory.pascanu_bound(jnp.asarray(W, dtype), gamma, steps)
    assert found.dtype == dtype
    expected = steps * np.log(gamma * np.linalg.norm(W, 2))
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-12, 1e-4))
    assert (np.asarray(found) >= norms).all()


@pytest.mark.parametrize("size", [0.9, 1.1])
@pytest.mark.parametrize("gamma", [1.0, 0.25])
def test_what_must_vanish_cannot_explode(size, gamma, dtype):
    # sigma_max is size / gamma; the eigenvalues are all zero.
    W = jnp.eye(3, k=1, dtype=dtype) * (size / gamma)
    assert theory.must_vanish(W, gamma) == (size < 1)
    assert theory.can_explode(W, gamma) == (size > 1)


def test_bounds_are_in_logs_where_numbers_are_too_large_or_small(dtype):
    for power in (30, -30):
        W = jnp.eye(2, dtype=dtype) * 10.0**power
        found = theory.pascanu_bound(W, 1.0, [1, 10_000])
        expected = np.array([1, 10_000]) * power * np.log(10)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    tiny = theory.pascanu_bound(jnp.eye(2, dtype=dtype), 1e-50, [1])
    np.testing.assert_allclose(tiny, -50 * np.log(10), rtol=1e-6)
    assert theory.pascanu_bound(0 * W, 1.0, [3])[0] == -np.inf
    bad = W.at[0, 0].set(jnp.nan)
    assert np.isnan(theory.pascanu_bound(bad, 1.0, [3])).all()
    assert not theory.must_vanish(bad, 1.0)
    assert not theory.can_explode(bad, 1.0)


def test_bounds_run_under_jit_and_vmap(dtype):
    W = jnp.stack([0.5 * jnp.eye(2, dtype=dtype), 2 * jnp.eye(2, dtype=dtype)])

    @jax.jit
    def vanish(W, gamma):
        return jax.vmap(lambda W: theory.must_vanish(W, gamma))(W)

    np.testing.assert_array_equal(vanish(W, jnp.ones((), dtype)), [True, False])


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("slope_bound", ("swish",), ValueError, "`activation` must be one of .*'silu'"),
        ("vanishing_gain", (1,), ValueError, "`activation` must be one of"),
        ("pascanu_bound", (jnp.ones(2), 1.0, [1]), ValueError, r"`W` .* \(N, N\)"),
        ("must_vanish", (None, 1.0), TypeError, "`W` must be an array, .* is NoneType"),
        ("pascanu_bound", (jnp.eye(2), 0.0, [1]), ValueError, "`gamma` must be"),
        ("pascanu_bound", (jnp.eye(2), 1.0, [0]), ValueError, "`steps`"),
        ("must_vanish", (jnp.eye(2, dtype=int), 1.0), TypeError, "`W` must be real"),
        ("can_explode", (jnp.eye(2), -1.0), ValueError, "`gamma` must be"),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, arguments, error, match):
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(theory, name))(*arguments)
