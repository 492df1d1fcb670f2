"""Which arrays of a step are its parameters: what an optimiser would move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vgjax
from vgjax import cells, gradients, steps

T = 6


def squares(carry):
    leaves = [a for a in jax.tree.leaves(carry) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return sum(jnp.sum(jnp.real(leaf * jnp.conj(leaf))) for leaf in leaves)


def summed(trajectory):
    return squares(trajectory.carry)


def plain_gradient(cell, carry, inputs):
    """`jax.grad` by the Params alone, of a plain scan."""
    graph, params, rest = nnx.split(cell, nnx.Param, ...)

    def value(params):
        def step(carry, x):
            return nnx.merge(graph, params, rest)(carry, x)

        last, _ = jax.lax.scan(step, carry, inputs, length=T)
        return squares(last)

    with jax.default_matmul_precision("highest"):
        return jax.tree.leaves(jax.jit(jax.grad(value))(params))


def small(name, dtype):
    # The clockwork network has four periods.
    cell = cells.build(name, 2, 4, dtype=dtype, key=jax.random.key(1))
    inputs = cell.random_inputs(jax.random.key(2), T)
    carry = cell.initialize_carry()
    leaves, structure = jax.tree.flatten(carry)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    filled = [
        jax.random.normal(k, a.shape, a.dtype) / 2
        if jnp.issubdtype(a.dtype, jnp.inexact)
        else a
        for k, a in zip(keys, leaves, strict=True)
    ]
    return cell, jax.tree.unflatten(structure, filled), inputs


QUICK = ("tanh", "residual", "gru", "frozen_batch_norm_rnn", "lru")
ZOO = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in cells.names()
    if not cells.is_over_depth(name)
]


@pytest.mark.parametrize("name", ZOO)
def test_sum_of_all_lags_is_the_gradient_by_the_params(name, dtype, tolerance):
    cell, carry, inputs = small(name, dtype)
    given = (cell, carry, inputs)
    found = gradients.lag_contributions(*given, summed)
    wanted = plain_gradient(*given)
    assert len(found.gradient) == len(wanted)
    size = max(np.abs(leaf).max() for leaf in wanted)
    square = [np.sum(np.abs(a) ** 2) for a in found.gradient.values()]
    np.testing.assert_allclose(
        sorted(square),
        sorted(np.sum(np.abs(a) ** 2) for a in wanted),
        rtol=tolerance(1e-12, 1e-4),
        atol=tolerance(1e-12, 1e-4) * size**2,
    )
    np.testing.assert_allclose(found.fraction[-1], 1, atol=tolerance(1e-12, 1e-4))


def constant_and_param(dtype):
    class Cell(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.asarray(0.5, dtype))
            self.c = nnx.Variable(jnp.asarray(2.0, dtype))

        def __call__(self, h, x):
            return self.w * self.c * h + x, None

    return Cell()


def test_wrt_chooses_by_class_and_by_path(dtype):
    cell, x = constant_and_param(dtype), jnp.ones((3, 1), dtype)
    given = (cell, x[0], x, summed)
    (only,) = gradients.lag_contributions(*given).gradient
    assert ".w" in only or "'w'" in only
    both = gradients.lag_contributions(*given, wrt=nnx.Variable).gradient
    assert len(both) == 2
    (other,) = gradients.lag_contributions(
        *given, wrt=lambda path: "c" in path
    ).gradient
    assert other != only
    batch = (cell, jnp.stack([x[0]] * 2), jnp.stack([x, 2 * x]), summed)
    one = gradients.signal_to_noise(*batch)
    two = gradients.signal_to_noise(*batch, wrt=nnx.Variable)
    assert (two.log_signal > one.log_signal).all()


@pytest.mark.parametrize(
    ("wrt", "error", "sentence"),
    [
        (lambda _: False, ValueError, "`wrt` must choose some of"),
        ("w", TypeError, "`wrt` must be a class of nnx.Variable, .* but is 'w'"),
    ],
)
def test_a_choice_of_nothing_is_refused(wrt, error, sentence, dtype):
    cell, x = constant_and_param(dtype), jnp.ones((3, 1), dtype)
    with pytest.raises(error, match=sentence):
        gradients.lag_contributions(cell, x[0], x, summed, wrt=wrt)


def turn(params, z, x):
    return params * z + x, z


def turn_in_parts(params, h, x):
    (a, b), (u, v) = params, h
    return jnp.stack([a * u - b * v, a * v + b * u]) + x, h


def test_complex_parameters_count_as_their_two_parts(dtype, tolerance):
    w = jnp.asarray([0.6, -0.3], dtype)
    x = jax.random.normal(jax.random.key(1), (T, 2, 3), dtype)
    h = jnp.ones((2, 3), dtype)
    parts = gradients.lag_contributions(
        steps.from_function(turn_in_parts, w), h, x, of_outputs_in_parts
    )
    z = jax.lax.complex(x[:, 0], x[:, 1])
    one = jax.lax.complex(h[0], h[1])
    step = steps.from_function(turn, jax.lax.complex(w[0], w[1]))
    found = gradients.lag_contributions(step, one, z, of_outputs)
    tol = tolerance(1e-12, 1e-4)
    np.testing.assert_allclose(found.log_norm, parts.log_norm, atol=tol)
    real, imaginary = np.asarray(parts.gradient[".params"])
    wanted = real - 1j * imaginary
    np.testing.assert_allclose(found.gradient[".params"], wanted, rtol=tol)


def of_outputs(trajectory):
    y = trajectory.outputs
    return jnp.sum(jnp.real(y) ** 2 * 2 + jnp.imag(y))


def of_outputs_in_parts(trajectory):
    y = trajectory.outputs
    return jnp.sum(y[:, 0] ** 2 * 2 + y[:, 1])


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_cotangents_are_of_the_half_precision_of_the_carry(half):
    step = steps.from_function(
        lambda w, h, x: (w * h + x, None), jnp.asarray(0.5, half)
    )
    h, x = jnp.ones(2, half), jnp.zeros((4, 2), half)
    given = (step, h, x, lambda trajectory: jnp.sum(trajectory.carry))
    found = gradients.cotangents(*given)
    assert found.dtype == half
    np.testing.assert_array_equal(
        found[:, 0].astype(float), 0.5 ** np.arange(4, -1, -1)
    )
    parts = gradients.lag_contributions(*given)
    assert parts.log_norm.dtype == jnp.float32
    np.testing.assert_allclose(parts.log_norm, np.log(2 * 0.5**3), rtol=1e-6)
    assert gradients.gradient_flow(*given).dtype == jnp.float32


def test_gradient_of_log_norm_where_the_first_state_is_zero(dtype, tolerance):
    def scale(w, h, x):
        return w * h + x, None

    def last(trajectory):
        return jnp.sum(trajectory.carry)

    x = jnp.zeros((3, 1), dtype).at[0].set(1)

    def entry(w, k):
        step = steps.from_function(scale, w)
        return gradients.lag_contributions(step, x[0] * 0, x, last).log_norm[k]

    w = jnp.asarray(0.5, dtype)
    # States 0, 1, w; the parts by w are w, w, 0.
    assert np.isneginf(entry(w, 2))
    for k in (0, 1):
        found = jax.grad(entry)(w, k)
        np.testing.assert_allclose(found, 2, rtol=tolerance(1e-12, 1e-5))


def test_cases_of_parameters_that_nobody_trains(dtype):
    for name in ("residual", "frozen_batch_norm_rnn"):
        cell = vgjax.cells.build(name, 2, 3, key=jax.random.key(0), dtype=dtype)
        x = jnp.ones((3, 2), dtype)
        given = (cell, cell.initialize_carry(), x, summed)
        every = gradients.lag_contributions(*given, wrt=nnx.Variable).gradient
        assert len(gradients.lag_contributions(*given).gradient) < len(every)
