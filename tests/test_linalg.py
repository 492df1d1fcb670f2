"""Dense linear algebra: exact scaling, sums that do not forget, QR."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import systems

from vgjax import _linalg

SUBNORMAL = {np.float32: 1e-40, np.float64: 1e-310}


def test_exponent_is_that_of_the_largest_power_of_two_below(dtype):
    info = np.finfo(dtype)
    x = [1, 1.5, 2, 3.999, 0.5, 0.75, -5, 1e-30, info.tiny, info.max, -info.max]
    x = np.array([*x, np.nextafter(dtype(2), dtype(0))], dtype)
    found = np.asarray(jax.jit(_linalg.exponent)(x))
    np.testing.assert_array_equal(found, np.frexp(x)[1] - 1)
    assert found.dtype == np.int32


def test_exponent_of_what_is_no_normal_number_is_the_least_or_the_largest(dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, SUBNORMAL[dtype], np.inf, -np.inf, np.nan], dtype)
    least, largest = info.minexp - 1, info.maxexp
    expected = [least, least, least, largest, largest, largest]
    np.testing.assert_array_equal(_linalg.exponent(x), expected)


def test_power_of_two_is_exact_over_the_whole_range(dtype):
    info = np.finfo(dtype)
    e = np.arange(info.minexp, info.maxexp, dtype=np.int32)
    found = np.asarray(_linalg.power_of_two(jnp.asarray(e), dtype))
    np.testing.assert_array_equal(found, [math.ldexp(1.0, int(k)) for k in e])
    assert found.dtype == dtype


def test_power_of_two_is_zero_below_the_normal_range_and_finite_above(dtype):
    info = np.finfo(dtype)
    e = jnp.asarray([-(2**30), -5000, info.minexp - 1, info.maxexp, 2**30], jnp.int32)
    found = np.asarray(_linalg.power_of_two(e, dtype))
    np.testing.assert_array_equal(found[:3], 0)
    np.testing.assert_array_equal(found[3:], math.ldexp(1.0, info.maxexp - 1))


def test_exponent_and_power_of_two_take_each_other_back(dtype):
    x = np.random.default_rng(1).standard_normal(100).astype(dtype)
    x = np.ldexp(x, np.random.default_rng(2).integers(-80, 80, 100)).astype(dtype)
    scaled = np.asarray(x * _linalg.power_of_two(-_linalg.exponent(x), dtype))
    assert np.all((np.abs(scaled) >= 1) & (np.abs(scaled) < 2))
    np.testing.assert_array_equal(
        scaled * _linalg.power_of_two(_linalg.exponent(x), dtype), x
    )


def test_compensated_sum_keeps_what_a_plain_one_forgets(dtype):
    start, x = dtype(1e5), np.random.default_rng(1).standard_normal(5000).astype(dtype)
    exact = float(sum(fractions.Fraction(float(v)) for v in (start, *x)))

    def add(state, v):
        high, low, plain = state
        return (*_linalg.add_compensated(high, low, v), plain + v), None

    first = (jnp.asarray(start), jnp.zeros((), dtype), jnp.asarray(start))
    high, low, plain = jax.lax.scan(add, first, jnp.asarray(x))[0]
    eps = float(np.finfo(dtype).eps)
    assert abs(float(plain) - exact) > 5 * eps * abs(exact)
    assert abs(float(high) + float(low) - exact) <= eps * abs(exact)


@pytest.mark.parametrize("large_first", [True, False])
def test_compensated_sum_recovers_the_rounding_of_one_addition(dtype, large_first):
    large, small = dtype(3e10), dtype(1.25e-3)
    first, then = (large, small) if large_first else (small, large)
    high, low = _linalg.add_compensated(first, dtype(0), then)
    assert float(high) == float(large + small)
    total = fractions.Fraction(float(high)) + fractions.Fraction(float(low))
    assert total == fractions.Fraction(float(large)) + fractions.Fraction(float(small))


def test_compensated_sum_of_minus_infinity_is_minus_infinity_for_good(dtype):
    high, low = _linalg.add_compensated(dtype(1), dtype(0), dtype(-np.inf))
    high, low = _linalg.add_compensated(high, low, dtype(5))
    assert float(high + low) == -np.inf
    high, low = _linalg.add_compensated(high, low, dtype(np.nan))
    assert np.isnan(float(high + low))


def test_any_in_batch_speaks_for_all_members_and_stays_a_branch(dtype):
    def measure(x):
        flag = _linalg.any_in_batch(x > 1)
        return jax.lax.cond(flag, lambda x: 2 * x, lambda x: x, x)

    measure = jax.vmap(measure)
    few, many = jnp.asarray([0, 0.5], dtype), jnp.asarray([0.25, 3], dtype)
    np.testing.assert_array_equal(measure(few), few)
    np.testing.assert_array_equal(measure(many), 2 * many)
    program = str(jax.make_jaxpr(measure)(many))
    assert "cond[" in program
    assert "select_n" not in program
    assert bool(_linalg.any_in_batch(jnp.asarray(True)))
    nested = jax.vmap(jax.vmap(lambda x: _linalg.any_in_batch(x > 1)))
    assert np.asarray(nested(jnp.stack([few, many]))).all()


def test_descending_order_keeps_ties_as_they_come():
    key = jnp.asarray([1, 3, 2, 3, 1], jnp.int32)
    np.testing.assert_array_equal(_linalg.descending(key), [1, 3, 2, 0, 4])


def test_row_sorted_qr_factors_the_matrix_as_it_was_given(dtype, tolerance):
    A = np.random.default_rng(1).standard_normal((6, 6)).astype(dtype)
    Q, R, size = _linalg.row_sorted_qr(jnp.asarray(A))
    np.testing.assert_array_equal(size, -np.sort(-np.abs(A).max(1)))
    tol = tolerance(1e-14, 2e-6)
    np.testing.assert_allclose(Q @ R, A, atol=tol)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), atol=tol)
    np.testing.assert_array_equal(np.tril(R, -1), 0)


@pytest.mark.float64
def test_row_sorted_qr_keeps_the_digits_of_small_rows():
    rng = np.random.default_rng(2)
    scales = 10.0 ** np.array([-15, -12, -3, 0, -6, -9])
    A = rng.standard_normal((6, 6)) * scales[:, None]

    def worst_row(Q, R):
        error = np.abs(np.asarray(Q) @ np.asarray(R) - A).max(1)
        return (error / np.abs(A).max(1)).max()

    assert worst_row(*np.linalg.qr(A)) > 1e-3
    assert worst_row(*_linalg.row_sorted_qr(jnp.asarray(A))[:2]) < 1e-13


def pivoted(A, weight=(0,) * 6, noise=0.0):
    """All of these tests are of 6 x 6 matrices, so that one program serves them."""
    noise = jnp.full_like(A, noise)
    return compiled_pivoted_qr(jnp.asarray(A), jnp.asarray(weight, jnp.int32), noise)


compiled_pivoted_qr = jax.jit(_linalg.pivoted_qr)


def test_pivoted_qr_factors_the_permuted_matrix(dtype, tolerance):
    A = np.random.default_rng(3).standard_normal((6, 6)).astype(dtype)
    Q, R, columns = pivoted(A)
    tol = tolerance(1e-14, 2e-6)
    np.testing.assert_allclose(Q @ R, A[:, columns], atol=tol)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), atol=tol)
    np.testing.assert_array_equal(np.tril(R, -1), 0)
    assert sorted(np.asarray(columns)) == list(range(6))


def test_pivoted_qr_takes_the_columns_by_weight_and_size(dtype):
    # Orthogonal columns: no residual changes, so the order is that of the keys.
    A = np.diag(2.0 ** np.array([0, 3, 1, 5, -2, -1])).astype(dtype)
    for weight, columns in [
        ([0, 0, 0, 0, 0, 0], [3, 1, 2, 0, 5, 4]),
        ([9, 0, 0, 0, 0, 0], [0, 3, 1, 2, 5, 4]),
        ([0, 0, 20, -20, 0, 6], [2, 5, 1, 0, 4, 3]),
    ]:
        np.testing.assert_array_equal(pivoted(A, weight).columns, columns)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_pivoted_qr_finds_the_rank_and_leaves_exact_zeros_past_it(rank, dtype):
    rng = np.random.default_rng(4)
    A = rng.integers(-3, 4, (6, rank)) @ rng.integers(-3, 4, (rank, 6))
    assert np.linalg.matrix_rank(A) == rank
    A = A.astype(dtype)
    noise = _linalg.roundoff(6, dtype) * max(np.abs(A).max(), 1)
    Q, R, columns = pivoted(A, noise=noise)
    np.testing.assert_array_equal(np.any(np.asarray(R) != 0, 1), np.arange(6) < rank)
    np.testing.assert_allclose(Q @ R, A[:, columns], atol=noise)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), atol=noise)


@pytest.mark.float64
def test_pivoted_qr_keeps_small_rows_and_their_log_singular_values():
    A = systems.tanh_chain(1, 6, 8.0, 3)[2]
    Q, R, columns = (np.asarray(a) for a in pivoted(A))
    error = np.abs(Q @ R - A[:, columns]).max(1) / np.abs(A).max(1)
    assert np.abs(A).max(1).min() < 1e-5 * np.abs(A).max()
    assert error.max() < 1e-13
    answer = oracles.log_abs_det(A[None])[0]
    np.testing.assert_allclose(np.log(np.abs(np.diag(R))).sum(), answer, atol=1e-12)


def test_products_are_at_full_precision_whatever_the_default(dtype):
    A = jnp.ones((2, 2), dtype)
    with jax.default_matmul_precision("bfloat16"):
        program = str(jax.make_jaxpr(_linalg.matmul)(A, A))
    assert "HIGHEST" in program
    assert "DEFAULT" not in program


def test_varying_like_leaves_a_tree_alone_outside_of_shard_map(dtype):
    tree = (jnp.zeros(3, dtype), jnp.asarray(1), None)
    assert _linalg.varying_like(tree, jnp.ones(2, dtype)) is tree
