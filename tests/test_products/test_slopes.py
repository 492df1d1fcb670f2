"""Derivatives beside directions that were annihilated, against products in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vgjax
from vgjax.products import product_spectrum

pytestmark = pytest.mark.float64


def slopes(matrices, i):
    """By each matrix, of the i-th log singular value of the product: u' dP v / s."""
    T, N, _ = matrices.shape
    before = [np.eye(N)]
    for matrix in matrices:
        before.append(matrix @ before[-1])
    U, sizes, V = np.linalg.svd(before[-1])
    row, found = U[:, i] / sizes[i], []
    for t in reversed(range(T)):
        found.append(np.outer(row, before[t] @ V[i]))
        row = row @ matrices[t]
    return np.stack(found[::-1])


def with_a_zero_row(T, N, at, seed=0):
    matrices = np.random.default_rng(seed).standard_normal((T, N, N))
    matrices[at, 1] = 0
    return matrices


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("mode", [jax.jacrev, jax.jacfwd])
def test_zero_row_anywhere_leaves_the_other_slopes_right(at, mode):
    matrices = with_a_zero_row(4, 3, at)
    found = mode(lambda a: product_spectrum(a).log_singular_values[:, :2])(matrices)
    for r in range(4):
        for i in range(2):
            expected = np.zeros_like(matrices)
            expected[: r + 1] = slopes(matrices[: r + 1], i)
            np.testing.assert_allclose(found[r, i], expected, rtol=1e-10, atol=1e-11)


def test_zero_row_in_records_of_many_steps_and_in_reverse():
    matrices = with_a_zero_row(20, 3, 7)

    def last(matrices, **how):
        return product_spectrum(matrices, **how).log_singular_values[-1, 0]

    found = jax.grad(lambda a: last(a, every=10))(matrices)
    np.testing.assert_allclose(found, slopes(matrices, 0), rtol=1e-9, atol=1e-10)
    found = jax.grad(lambda a: last(a, reverse=True))(matrices)
    np.testing.assert_allclose(found, slopes(matrices, 0), rtol=1e-9, atol=1e-10)


def test_float32_under_jit():
    matrices = with_a_zero_row(6, 3, 2)

    def largest(matrices):
        return product_spectrum(matrices, every=6).log_singular_values[0, 0]

    found = jax.jit(jax.grad(largest))(jnp.asarray(matrices, jnp.float32))
    np.testing.assert_allclose(found, slopes(matrices, 0), rtol=1e-3, atol=1e-4)


def test_slopes_are_nan_once_a_factor_is():
    matrices = with_a_zero_row(4, 3, 1)
    matrices[3, 0, 0] = np.nan

    def largest(matrices, r):
        return product_spectrum(matrices).log_singular_values[r, 0]

    assert np.isnan(jax.grad(largest)(matrices, 3)[:3]).all()
    values = product_spectrum(matrices).log_singular_values
    assert np.isnan(values[3]).all()
    assert not np.isnan(values[:3]).any()


def test_members_of_a_batch_keep_their_own_slopes():
    batch = np.stack([with_a_zero_row(4, 3, 1), with_a_zero_row(4, 3, 1, seed=1)])
    batch[1, 1, 1] = [0.3, -0.2, 0.5]  # nothing is annihilated here

    def largest(matrices):
        return product_spectrum(matrices, every=4).log_singular_values[0, 0]

    found = jax.vmap(jax.grad(largest))(batch)
    for member, slope in zip(batch, found, strict=True):
        np.testing.assert_allclose(slope, slopes(member, 0), rtol=1e-10, atol=1e-11)


def relu_network(N=6, T=25):
    rng = np.random.default_rng(3)
    W = 1.5 * rng.standard_normal((N, N)) / N**0.5
    return W, rng.standard_normal((T, N))


def test_slope_of_a_relu_network_by_its_weights():
    W, inputs = relu_network()
    h, factors = np.zeros(len(W)), []
    for x in inputs:
        z = W @ h + x
        h = np.maximum(z, 0)
        factors.append((z > 0)[:, None] * W)
    factors = np.stack(factors)
    gates = (factors != 0).any(2)
    assert not gates[:-1].all()
    expected = np.einsum("tn,tnm->nm", gates, slopes(factors, 0))

    def largest(W):
        def step(h, x):
            h = jax.nn.relu(W @ h + x)
            return h, None

        found = vgjax.jacobian_spectrum(step, jnp.zeros(len(W)), inputs, every=25)
        return found.log_singular_values[0, 0]

    np.testing.assert_allclose(jax.grad(largest)(W), expected, rtol=1e-8, atol=1e-9)


def test_slope_of_a_small_value_is_not_finite_and_spoils_no_other():
    factor = np.diag([1.0, 1e-3, 0.0])
    factor[0, 1] = factor[1, 2] = 0.1
    matrices = np.stack([factor] * 5)

    def value(matrices, i):
        return product_spectrum(matrices, every=5).log_singular_values[0, i]

    largest = jax.grad(value)(matrices, 0)
    np.testing.assert_allclose(largest, slopes(matrices, 0), rtol=1e-10, atol=1e-11)
    assert not np.isfinite(jax.grad(value)(matrices, 1)).all()
    np.testing.assert_array_equal(jax.grad(value)(matrices, 2), 0)


def test_slope_of_a_leading_value_of_a_relu_network():
    W, inputs = relu_network(N=6, T=10)

    def step_of(W):
        return lambda h, x: (jax.nn.relu(W @ h + x), None)

    def kept(W):
        zeros = jnp.zeros(len(W))
        found = vgjax.spectra.leading_spectrum(step_of(W), zeros, inputs, k=1)
        return found.log_singular_values[0]

    def exact(W):
        zeros = jnp.zeros(len(W))
        found = vgjax.jacobian_spectrum(step_of(W), zeros, inputs, every=10)
        return found.log_singular_values[0, 0]

    expected = jax.grad(exact)(W)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(jax.jacfwd(kept)(W), expected, rtol=1e-9, atol=1e-10)
