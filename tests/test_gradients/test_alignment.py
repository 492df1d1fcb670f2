"""The directions that a gradient turns to: closed forms, and the same by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from gradient_cases import case
from jax.tree_util import Partial

import vgjax
from vgjax import gradients, steps


def linear(W, h, x):
    return W @ h + x, h


def reading(weights, trajectory):
    of_state, of_output = weights
    return of_state * trajectory.carry.sum() + of_output * trajectory.outputs.sum()


def measure(W, dtype, T=24, weights=(1, 0), **options):
    W = jnp.asarray(W, dtype)
    h, x = jnp.ones(len(W), dtype), jnp.zeros((T, len(W)), dtype)
    step = steps.from_function(linear, W)
    loss = Partial(reading, jnp.asarray(weights, dtype))
    return gradients.alignment(step, h, x, loss, **options)


def rotated(values, angle=0.3):
    c, s = np.cos(angle), np.sin(angle)
    Q = np.array([[c, -s], [s, c]])
    return Q @ np.diag(values) @ Q.T, Q


def test_angle_falls_as_the_power_method_says(dtype, tolerance):
    T, ratio = 24, 1 / 3
    W, Q = rotated([0.9, 0.3])
    along, across = Q.T @ np.ones(2)
    found = measure(W, dtype)
    slope = across / along * ratio ** np.arange(1, T + 1)
    for angle in (found.eigen, found.right_singular):
        # Down to round-off, which an arc cosine is not.
        np.testing.assert_allclose(angle, np.arctan(slope), atol=tolerance(2e-15, 1e-6))
    at_start = np.arctan(across / along)
    np.testing.assert_allclose(
        found.left_singular, at_start, atol=tolerance(1e-14, 1e-6)
    )
    np.testing.assert_array_equal(found.lags, np.arange(1, T + 1))


def angle(x, basis):
    return scipy.linalg.subspace_angles(x[:, None], basis.reshape(len(x), -1))[0]


def test_angles_are_those_of_numpy_for_a_driven_network(dtype, tolerance):
    (step, h, x, loss), _ = case("last", dtype)
    found = gradients.alignment(step, h, x, loss)
    J = np.asarray(vgjax.state_jacobians(step, h, x), float)
    delta = np.asarray(gradients.cotangents(step, h, x, loss), float)
    T, product = len(x), np.eye(3)
    pairs = 0
    for k in range(1, T + 1):
        product = product @ J[T - k]
        U, _, Vt = np.linalg.svd(product)
        tol = tolerance(1e-11, 1e-3)
        left, right = angle(delta[T], U[:, 0]), angle(delta[T - k], Vt[0])
        np.testing.assert_allclose(found.left_singular[k - 1], left, atol=tol)
        np.testing.assert_allclose(found.right_singular[k - 1], right, atol=tol)
        values, vectors = scipy.linalg.eig(J[T - k], left=True, right=False)
        leading = np.argmax(np.abs(values))
        z = vectors[:, leading]
        pair = values[leading].imag != 0
        plane = np.stack([z.real, z.imag], 1) if pair else z.real
        eigen = angle(delta[T - k], plane)
        np.testing.assert_allclose(found.eigen[k - 1], eigen, atol=tol)
        pairs += pair
    assert 0 < pairs < T


@pytest.mark.slow
def test_gradient_turns_to_the_plane_of_a_complex_pair(dtype, tolerance):
    W = np.array([[0.0, -0.9, 0.5], [0.9, 0.0, 2.0], [0.0, 0.0, 0.5]])
    tangent = np.tan(np.asarray(measure(W, dtype, 70).eigen, float))
    # Four quarter turns of the plane change its part by 0.9^4 alone.
    np.testing.assert_allclose(tangent[12] / tangent[8], (5 / 9) ** 4, rtol=0.02)
    assert tangent[-1] < tolerance(1e-14, 1e-6)


def test_every_seventh_record_is_the_seventh_of_every_record(dtype, tolerance):
    W, _ = rotated([0.9, 0.6])
    found, every = measure(W, dtype, every=7), measure(W, dtype)
    np.testing.assert_array_equal(found.lags, [7, 14, 21])
    for got, wanted in zip(found[1:], every[1:], strict=True):
        np.testing.assert_allclose(got, wanted[6::7], atol=tolerance(1e-13, 1e-5))


def test_no_gradient_has_no_direction(dtype):
    W, _ = rotated([0.9, 0.3])
    for angles in measure(W, dtype, weights=(0, 1))[1:]:
        assert np.isnan(angles).all()
    nilpotent = np.array([[0.0, 1.0], [0.0, 0.0]])
    found = measure(nilpotent, dtype)
    for angles in found[1:3]:
        np.testing.assert_array_equal(np.isnan(angles), np.arange(24) > 0)
    assert np.isnan(found.eigen).all()  # there is no eigenvalue but 0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_angles_are_those_of_a_product_near_one_whatever_its_size(
    size, dtype, tolerance
):
    W, _ = rotated([0.9, 0.3])
    near_one, found = measure(W, dtype), measure(size * W, dtype)
    for got, wanted in zip(found[1:], near_one[1:], strict=True):
        np.testing.assert_allclose(got, wanted, atol=tolerance(1e-12, 1e-4))


@pytest.mark.parametrize(
    ("every", "error", "sentence"),
    [
        (0, ValueError, "`every` must be at least 1 and at most 4, but is 0"),
        (5, ValueError, "`every` must be at least 1 and at most 4, but is 5"),
        (1.0, TypeError, r"`every` must be a whole number, but is 1\.0"),
    ],
)
def test_every_out_of_range_is_refused(every, error, sentence, dtype):
    with pytest.raises(error, match=sentence):
        measure(np.eye(2), dtype, T=4, every=every)
