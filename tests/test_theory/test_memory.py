"""Fisher memory against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
import systems

from vgjax import theory


@pytest.mark.float64
@pytest.mark.parametrize(
    ("alpha", "total"),
    [(0.95, 3.032702074831045), (1.0, 5.187377517639621), (1.05, 12.087272121224805)],
)
def test_memory_of_a_delay_line_is_known_in_closed_form(alpha, total):
    W = jnp.asarray(alpha * np.eye(100, k=-1))
    found = theory.fisher_memory(W, jnp.zeros(100).at[0].set(1), 100)
    np.testing.assert_allclose(found.sum(), total, rtol=1e-8)
    k = np.arange(100)
    # Of alpha^2k over the sum of alpha^2j for j up to k.
    wanted = [alpha ** (2 * i) / np.sum(alpha ** (2.0 * k[: i + 1])) for i in k]
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.float64
def test_memory_of_a_normal_network_is_one_in_all():
    Q = systems.orthogonal(np.random.default_rng(1), 5)
    W = Q @ np.diag([0.9, -0.7, 0.5, 0.2, 0.0]) @ Q.T
    v = np.random.default_rng(2).standard_normal(5)
    found = theory.fisher_memory(W, v / np.linalg.norm(v), 400)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-10)
    W = W + 0.5 * np.triu(np.ones((5, 5)), 1)
    assert np.isnan(theory.fisher_memory(3 * W, v, 4)).all()


@pytest.mark.float64
def test_memory_is_never_negative_and_nan_where_it_cannot_be_told():
    rng = np.random.default_rng(4)
    v = np.eye(28)[0]
    for _ in range(40):
        W = np.triu(rng.standard_normal((28, 28)), 1)
        found = theory.fisher_memory(W, rng.standard_normal(28), 20)
        assert np.isnan(found).all() or (found >= 0).all()
    shift = np.eye(28, k=-1)
    assert np.isnan(theory.fisher_memory(1e12 * shift, v, 28)).all()  # C overflows
    # Here and there alone C is not positive definite to rounding.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        U = systems.orthogonal(rng, 30)
        W = U @ np.triu(2 * rng.standard_normal((30, 30)), 1) @ U.T
        found = theory.fisher_memory(W, U[0], 2)
        assert np.isnan(found).all() or (found >= 0).all()
    # With its units apart a network keeps what mixing them would lose.
    assert np.isfinite(theory.fisher_memory(9 * shift, v, 28)).all()
    assert np.isnan(theory.fisher_memory(np.eye(28), v, 2)).all()
    assert np.isnan(theory.fisher_memory(np.nan * np.eye(28), v, 2)).all()


@pytest.mark.float64
def test_state_and_not_its_transpose_is_what_remembers():
    W = np.array([[0.0, 0.0], [2.0, 0.5]])
    C = sum(
        np.linalg.matrix_power(W, j) @ np.linalg.matrix_power(W, j).T
        for j in range(200)
    )
    v = np.array([1.0, 0.0])
    found = theory.fisher_memory(W, v, 3)
    steps = [np.linalg.matrix_power(W, k) @ v for k in range(3)]
    wanted = [s @ np.linalg.inv(C) @ s for s in steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("vector", "lags", "error", "match"),
    [
        (np.ones(3), 2, ValueError, r"`vector` must have shape \(N=2,\)"),
        (np.array([1, 2]), 2, TypeError, "`vector` must be real with dtype float32"),
        (np.ones(2), 0, ValueError, "`lags` must be at least 1, but is 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(vector, lags, error, match):
    vector = vector.astype(np.float32) if vector.dtype == float else vector
    with pytest.raises(error, match=match):
        theory.fisher_memory(np.eye(2, dtype=np.float32), vector, lags)
