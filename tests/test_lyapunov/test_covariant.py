"""Covariant vectors: eigenvectors where the step is linear, mapped onto one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

import vgjax
from vgjax import lyapunov, steps

CAT = np.array([[2.0, 1.0], [1.0, 1.0]])


def linear(A, dtype=float):
    step = steps.from_function(lambda A, h, x: (A @ h, x), jnp.asarray(A, dtype))
    measure = lyapunov.covariant_vectors
    return functools.partial(measure, step, jnp.zeros(len(A), dtype))


def tanh_cell(W, h, x):
    return jnp.tanh(W @ h + x), None


def network(N=5, T=240):
    rng = np.random.default_rng(1)
    W = jnp.asarray(1.8 * rng.standard_normal((N, N)) / N**0.5)
    x = jnp.asarray(0.4 * rng.standard_normal((T, N)))
    return steps.from_function(tanh_cell, W), jnp.zeros(N), x


def cosines(a, b):
    return np.abs(np.sum(np.asarray(a) * np.asarray(b), axis=-2))


def test_those_of_the_cat_map_are_its_eigenvectors(dtype, tolerance):
    found = linear(CAT, dtype)(length=60, burn_in=20, burn_out=20)
    stable, unstable = np.linalg.eigh(CAT)[1].T
    assert found.vectors.shape == (21, 2, 2)
    expected = np.stack([unstable, stable], axis=1)[None]
    np.testing.assert_allclose(
        cosines(found.vectors, expected), 1, atol=tolerance(1e-12, 1e-5)
    )
    rate = 0.9624236501192069 * np.array([1, -1])
    np.testing.assert_allclose(
        found.log_growth,
        np.broadcast_to(rate, (20, 2)),
        atol=tolerance(1e-12, 1e-5),
    )


@pytest.mark.float64
def test_they_are_right_eigenvectors_and_not_orthogonal():
    Q = systems.orthogonal(np.random.default_rng(2), 3)
    V = Q @ np.array([[1.0, 0.9, 0.3], [0, 0.5, 0.6], [0, 0, 0.4]])
    V = V / np.linalg.norm(V, axis=0)
    W = V @ np.diag([1.1, 0.6, 0.2]) @ np.linalg.inv(V)
    found = linear(W)(length=160, burn_in=70, burn_out=70)
    np.testing.assert_allclose(cosines(found.vectors, V[None]), 1, atol=1e-10)
    left = np.linalg.inv(V).T
    left = left / np.linalg.norm(left, axis=0)
    assert cosines(found.vectors[0], left).min() < 0.9


@pytest.mark.float64
@pytest.mark.parametrize("k", [5, 3])
def test_each_jacobian_maps_them_onto_the_next(k):
    step, h, x = network()
    found = lyapunov.covariant_vectors(step, h, x, k=k, burn_in=90, burn_out=100)
    assert found.vectors.shape == (51, 5, k)
    assert found.log_growth.shape == (50, k)
    J = np.asarray(vgjax.state_jacobians(step, h, x))[90:140]
    mapped = J @ np.asarray(found.vectors[:-1])
    expected = np.asarray(found.vectors[1:] * np.exp(found.log_growth)[:, None, :])
    np.testing.assert_allclose(mapped, expected, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-12)


@pytest.mark.float64
def test_they_do_not_depend_on_where_the_burns_begin():
    step, h, x = network()
    found = lyapunov.covariant_vectors(step, h, x, burn_in=100, burn_out=100)
    other = lyapunov.covariant_vectors(step, h, x, burn_in=110, burn_out=80)
    overlap = cosines(found.vectors[10:41], other.vectors[:31])
    np.testing.assert_allclose(overlap, 1, atol=1e-6)
    few = lyapunov.covariant_vectors(step, h, x, k=2, burn_in=100, burn_out=100)
    overlap = cosines(found.vectors[..., :2], few.vectors)
    np.testing.assert_allclose(overlap, 1, atol=1e-6)


@pytest.mark.float64
def test_they_grow_at_the_exponents():
    step, h, x = network()
    found = lyapunov.covariant_vectors(step, h, x, burn_in=20)
    exponents = lyapunov.lyapunov_spectrum(step, h, x, burn_in=20).exponents
    # Angles between the vectors come and go: boundary terms of 1/T.
    mean = found.log_growth.mean(0)
    np.testing.assert_allclose(mean, exponents, atol=10 / 220)


def test_from_an_annihilated_direction_on_they_are_nan(dtype):
    found = linear(np.diag([2.0, 0.0, 1.0]), dtype)(length=12)
    assert np.isnan(found.vectors).all(axis=(0, 1)).tolist() == [False, False, True]
    assert np.isfinite(found.vectors[..., :2]).all()
    assert np.isnan(found.log_growth).all(axis=0).tolist() == [False, False, True]


@pytest.mark.float64
def test_what_comes_after_an_annihilated_direction_is_nan_too():
    W, once = np.diag([4.0, 1.0, 0.25]), np.diag([4.0, 0.0, 0.25])
    once[0, 1] = 1
    A = np.stack([W] * 40 + [once] + [W] * 9)
    found = lyapunov.covariant_vectors(
        lambda h, A: (A @ h, None), jnp.zeros(3), jnp.asarray(A), burn_in=35
    )
    # The third still has a part of its own, but nobody knows which.
    assert np.isnan(found.vectors).all(axis=(0, 1)).tolist() == [False, True, True]


@pytest.mark.float64
def test_growths_may_be_further_apart_than_floats_reach():
    found = linear(np.diag([1e160, 1.0, 1e-160]))(length=30, burn_in=10, burn_out=10)
    wanted = np.log(10) * np.array([160, 0, -160])
    np.testing.assert_allclose(found.log_growth, np.tile(wanted, (10, 1)), atol=1e-9)


@pytest.mark.float64
@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e200])
def test_scales_at_the_ends_of_the_range_are_only_a_shift(scale):
    A = np.random.default_rng(3).standard_normal((30, 3, 3))

    def measure(A):
        step = lambda h, A: (A @ h, None)  # noqa: E731
        options = {"burn_in": 5, "burn_out": 5}
        return lyapunov.covariant_vectors(step, jnp.zeros(3), jnp.asarray(A), **options)

    plain, found = measure(A), measure(scale * A)
    np.testing.assert_allclose(cosines(found.vectors, plain.vectors), 1, rtol=1e-9)
    shift = plain.log_growth + np.log(scale)
    np.testing.assert_allclose(found.log_growth, shift, atol=1e-9)


@pytest.mark.float64
def test_what_only_round_off_is_left_of_is_nan_too():
    W = np.outer([1.0, -2.0, 3.0], [2.0, 1.0, 1.0])
    found = linear(W)(length=12)
    assert np.isnan(found.vectors).all(axis=(0, 1)).tolist() == [False, True, True]


@pytest.mark.float64
def test_same_vectors_under_jit_and_vmap():
    step, h, x = network(T=40)
    inputs = jnp.stack([x, -2 * x])
    measure = functools.partial(lyapunov.covariant_vectors, step, h, burn_in=10)
    together = jax.jit(jax.vmap(measure))(inputs)
    for b in range(2):
        for got, wanted in zip(together, measure(inputs[b]), strict=True):
            np.testing.assert_allclose(got[b], wanted, atol=1e-10)


BAD = [
    ({"k": 3}, ValueError, "`k` must be at least 1 and at most 2, but is 3"),
    ({"burn_in": 10}, ValueError, "`burn_in` must be at least 0 and at most 9"),
    ({"burn_in": 4, "burn_out": 6}, ValueError, "`burn_out` must be .* at most 5"),
    ({"burn_out": 1.5}, TypeError, "`burn_out` must be a whole number, but is 1.5"),
]


@pytest.mark.parametrize(("options", "error", "match"), BAD)
def test_wrong_options_are_refused_by_name(options, error, match):
    with pytest.raises(error, match=match):
        linear(CAT)(length=10, **options)
