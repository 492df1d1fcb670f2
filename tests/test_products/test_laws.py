import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import log_singular_values, multiply_then_svd

from vgjax import products
from vgjax.products import Spectrum, product_spectrum

T, N = 60, 4


def chain(seed, T=T):
    return np.random.default_rng(seed).standard_normal((T, N, N)) / np.sqrt(N)


def spectrum(steps, values, dtype):
    values = jnp.asarray(values, dtype)
    steps = jnp.asarray(steps, jnp.int32)
    return Spectrum(steps, values, values.sum(1))


def true_spectrum(matrices, steps, dtype):
    found = log_singular_values(matrices, set(steps), digits=300)
    return spectrum(steps, [found[t] for t in steps], dtype)


def broken(laws, tolerance):
    found = products.violations(laws, tolerance)
    return {law for law, rows in found.items() if np.any(rows)}


@pytest.fixture
def slack(tolerance):
    # Nats: sums of 4 T logs, each right to the accuracy of a singular value.
    return tolerance(1e-9, 1e-1)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("every", [1, 7])
def test_a_true_spectrum_keeps_every_law(seed, every, dtype, slack):
    matrices = chain(seed)
    steps = range(every, T + 1, every)
    laws = products.check_laws(
        true_spectrum(matrices, steps, dtype), jnp.asarray(matrices, dtype)
    )
    assert broken(laws, slack) == set()
    np.testing.assert_allclose(laws.determinant, 0, atol=slack)
    np.testing.assert_allclose(laws.horn[:, -1], 0, atol=slack)
    # And not because it asks nothing: one step leaves no room, many leave some.
    if every == 1:
        np.testing.assert_allclose(laws.horn[0], 0, atol=slack)
    assert np.all(laws.horn[-1, :-1] > 1)


def test_slacks_are_those_of_the_definitions(dtype, slack):
    matrices = chain(3)
    true = true_spectrum(matrices, [5, 20], dtype)
    laws = products.check_laws(true, jnp.asarray(matrices, dtype))
    sigma = np.log(np.linalg.svd(matrices, compute_uv=False))
    allowed = np.stack([sigma[:t].sum(0).cumsum() for t in (5, 20)])
    values = np.asarray(true.log_singular_values)
    np.testing.assert_allclose(laws.horn, allowed - values.cumsum(1), atol=slack)
    order = np.append(values[:, :-1] - values[:, 1:], [[0], [0]], axis=1)
    np.testing.assert_allclose(laws.order, order, atol=slack)


@pytest.mark.parametrize("seed", [1, 2])
def test_powers_of_one_matrix_keep_weyls_law_too(seed, dtype, slack):
    W = chain(seed, 1)[0]
    steps = np.array([1, 10, T])
    true = true_spectrum(np.stack([W] * T), steps, dtype)
    logs = steps[:, None] * np.log(np.abs(np.linalg.eigvals(W)))
    laws = products.check_laws(
        true,
        jnp.asarray(np.stack([W] * T), dtype),
        log_abs_eigenvalues=jnp.asarray(logs, dtype),
    )
    assert broken(laws, slack) == set()
    sums = np.asarray(true.log_singular_values).cumsum(1)
    expected = sums - np.sort(logs, axis=1)[:, ::-1].cumsum(1)
    np.testing.assert_allclose(laws.weyl, expected, atol=slack)
    # Eigenvalues in place of singular values: what Weyl allows, Horn does at N too.
    other = spectrum(steps, np.sort(logs, axis=1)[:, ::-1] * 1.02, dtype)
    laws = products.check_laws(
        other,
        jnp.asarray(np.stack([W] * T), dtype),
        log_abs_eigenvalues=jnp.asarray(logs, dtype),
    )
    assert "weyl" in broken(laws, slack)


def test_reverse_spectra_are_held_to_the_last_factors(dtype, slack):
    matrices = chain(4)
    backwards = np.swapaxes(matrices[::-1], 1, 2)
    true = true_spectrum(backwards, [10, 30], dtype)
    matrices = jnp.asarray(matrices, dtype)
    assert broken(products.check_laws(true, matrices, reverse=True), slack) == set()
    found = broken(products.check_laws(true, matrices), slack)
    assert {"determinant", "horn"} <= found
    ours = product_spectrum(matrices, every=20, reverse=True)
    assert broken(products.check_laws(ours, matrices, reverse=True), slack) == set()


def test_a_spectrum_of_factors_in_the_wrong_order_of_time_is_caught(dtype, slack):
    matrices = chain(5)
    wrong = true_spectrum(matrices[::-1], [10, T], dtype)
    laws = products.check_laws(wrong, jnp.asarray(matrices, dtype))
    rows = products.violations(laws, slack)["determinant"]
    # Of all T, the laws cannot tell.
    np.testing.assert_array_equal(rows, [True, False])


def test_values_that_are_not_sorted_are_caught(dtype, slack):
    matrices = chain(6)
    true = true_spectrum(matrices, [30], dtype)
    swapped = true.log_singular_values[:, ::-1]
    laws = products.check_laws(
        true._replace(log_singular_values=swapped), jnp.asarray(matrices, dtype)
    )
    assert broken(laws, slack) == {"order"}


@pytest.mark.float64
def test_the_svd_of_a_multiplied_out_product_is_caught():
    matrices = chain(7)
    wrong = spectrum(range(1, T + 1), multiply_then_svd(matrices), jnp.float64)
    laws = products.check_laws(wrong, jnp.asarray(matrices))
    rows = products.violations(laws, 1e-6)
    assert rows["determinant"][-1]
    assert rows["horn"][-1]
    assert not rows["determinant"][:5].any()


def test_lost_values_are_caught_and_lost_rank_is_not(dtype, slack):
    matrices = chain(8)
    true = true_spectrum(matrices, [20], dtype)
    lost = true.log_singular_values.at[0, -1].set(-jnp.inf)
    laws = products.check_laws(
        true._replace(log_singular_values=lost), jnp.asarray(matrices, dtype)
    )
    assert laws.determinant[0] == -jnp.inf
    assert broken(laws, slack) == {"determinant", "horn"}

    matrices[3, :, 0] = 0
    singular = jnp.asarray(matrices, dtype)
    laws = products.check_laws(product_spectrum(singular, every=20), singular)
    assert broken(laws, slack) == set()
    np.testing.assert_array_equal(laws.determinant, 0)
    assert not np.isnan(laws.horn).any()
    assert not np.isnan(laws.order).any()

    kept = products.check_laws(true, singular)
    assert kept.determinant[0] == jnp.inf
    assert kept.horn[0, -1] == -jnp.inf
    assert {"determinant", "horn"} <= broken(kept, slack)


def test_nan_breaks_every_law_and_so_do_more_steps_than_factors(dtype):
    matrices = jnp.asarray(chain(9), dtype)
    values = np.zeros((2, N))
    values[0, 1] = np.nan
    # Under `jit` nobody can look at the steps.
    check = jax.jit(products.check_laws)
    laws = check(spectrum([1, T + 1], values, dtype), matrices)
    rows = products.violations(laws, 1e9)
    assert rows["determinant"].all()
    assert rows["horn"].all()
    assert rows["order"][0]
    # An index of -1 would be the last row.
    laws = check(spectrum([0, 1], np.zeros((2, N)), dtype), matrices)
    assert np.isnan(laws.determinant[0])
    assert np.isnan(laws.horn[0]).all()
    assert np.isfinite(laws.horn[1]).all()


def test_the_same_under_jit_and_vmap(dtype, slack):
    matrices = np.stack([chain(1), chain(2)])
    true = [true_spectrum(m, [20, T], dtype) for m in matrices]
    true = jax.tree.map(lambda *x: jnp.stack(x), *true)
    matrices = jnp.asarray(matrices, dtype)
    laws = jax.jit(jax.vmap(products.check_laws))(true, matrices)
    assert broken(jax.tree.map(lambda x: x[1], laws), slack) == set()


SINGLE = jnp.ones((3, N, N), jnp.float32)
GOOD = Spectrum(np.array([1, 2]), np.zeros((2, N), np.float32), np.zeros(2, np.float32))
INTEGERS = GOOD._replace(log_singular_values=np.zeros((2, N), np.int32))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((GOOD, jnp.ones((3, 2, 4))), {}, ValueError, r"`jacobians` .* \(T, N, N\)"),
        ((GOOD, jnp.ones((3, 5, 5))), {}, ValueError, r"`spectrum.* \(R, N=5\)"),
        (
            (GOOD._replace(steps=np.arange(3)), SINGLE),
            {},
            ValueError,
            r"`spectrum.steps` .* \(R=2,\)",
        ),
        (
            (GOOD, SINGLE),
            {"log_abs_eigenvalues": SINGLE[0, :1]},
            ValueError,
            "`log_abs_eigenvalues`",
        ),
        ((GOOD, jnp.ones((3, N, N), int)), {}, TypeError, "`jacobians` must be real"),
        (
            (GOOD._replace(steps=np.array([1.0, 2.0])), SINGLE),
            {},
            TypeError,
            "`spectrum.steps` must be whole numbers",
        ),
        (
            (GOOD, SINGLE),
            {"log_abs_eigenvalues": np.zeros((2, N), np.int32)},
            TypeError,
            "`log_abs_eigenvalues` must have dtype float32",
        ),
        (
            (GOOD._replace(steps=np.array([3, 6])), SINGLE),
            {},
            ValueError,
            "`spectrum.steps` must be from 1 to the 3 factors of `jacobians`, but",
        ),
        (
            (GOOD._replace(steps=np.array([0, 3])), SINGLE),
            {},
            ValueError,
            "`spectrum.steps` must be from 1 to the 3 factors of `jacobians`, but",
        ),
        (
            (INTEGERS, SINGLE),
            {},
            TypeError,
            "`spectrum.log_singular_values` must have dtype float32",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, options, error, match):
    with pytest.raises(error, match=match):
        inspect.unwrap(products.check_laws)(*arguments, **options)


def test_a_negative_tolerance_is_refused(dtype):
    laws = products.Laws(*[jnp.zeros((1, 1), dtype)] * 4)
    with pytest.raises(ValueError, match="`tolerance` must be"):
        products.violations(laws, -1.0)


def test_errors_of_a_spectrum_are_summed_up_and_allowed_for(dtype, slack):
    matrices = chain(9)
    true = true_spectrum(matrices, [10, 30], dtype)
    wrong = true.log_singular_values.at[:, 1].add(3.0).at[:, 3].add(-1.0)
    wrong = true._replace(log_singular_values=wrong)
    matrices = jnp.asarray(matrices, dtype)
    assert {"determinant", "horn"} <= broken(
        products.check_laws(wrong, matrices), slack
    )
    for first, breaks in ((0.9, {"determinant"}), (3.1, set())):
        error = jnp.asarray([[0.0, first, 0.0, 0.0]] * 2, dtype)
        laws = products.check_laws(wrong._replace(error=error), matrices)
        np.testing.assert_allclose(laws.error, [[0, first, first, first]] * 2)
        found = broken(laws, slack) - {"horn", "order"}
        assert found == breaks


def test_the_order_of_values_is_no_matter_of_their_errors(dtype, slack):
    matrices = chain(6)
    true = true_spectrum(matrices, [30], dtype)
    swapped = true._replace(
        log_singular_values=true.log_singular_values[:, ::-1],
        error=jnp.full((1, N), jnp.inf, dtype),
    )
    laws = products.check_laws(swapped, jnp.asarray(matrices, dtype))
    assert broken(laws, slack) == {"order"}


def test_undecided_values_break_nothing_and_nan_does(dtype, slack):
    matrices = chain(10)
    true = true_spectrum(matrices, [20, 30, 40], dtype)
    values = true.log_singular_values.at[:, 2].add(2.0).at[1, 3].set(-jnp.inf)
    error = jnp.zeros((3, N), dtype).at[:, 2:].set(jnp.inf)
    logs = jnp.zeros((3, N), dtype) + true.log_abs_det[:, None] / N
    laws = products.check_laws(
        true._replace(log_singular_values=values.at[2, 3].set(jnp.nan), error=error),
        jnp.asarray(matrices, dtype),
        log_abs_eigenvalues=logs,
    )
    rows = products.violations(laws, slack)
    for law in ("determinant", "horn", "weyl"):
        np.testing.assert_array_equal(rows[law], [False, False, True])
    # What is decided is held to the laws.
    values = values.at[:, 0].add(100.0)
    laws = products.check_laws(
        true._replace(log_singular_values=values, error=error),
        jnp.asarray(matrices, dtype),
    )
    assert products.violations(laws, slack)["horn"].all()


def test_laws_without_errors_are_judged_by_the_tolerance(dtype, slack):
    matrices = chain(1)
    true = true_spectrum(matrices, [20], dtype)
    laws = products.check_laws(true, jnp.asarray(matrices, dtype))
    np.testing.assert_array_equal(laws.error, np.zeros((1, N)))
    by_hand = products.laws.Laws(laws.determinant, laws.horn, None, laws.order)
    assert broken(by_hand, slack) == set()


def test_errors_of_another_shape_are_refused(dtype):
    matrices = chain(1)
    true = true_spectrum(matrices, [20], dtype)._replace(error=jnp.ones(N, dtype))
    sentence = r"`spectrum.error` must have shape \(R=1, N=4\)"
    with pytest.raises(ValueError, match=sentence):
        products.check_laws(true, jnp.asarray(matrices, dtype))
    negative = true._replace(error=-jnp.ones((1, N), dtype))
    with pytest.raises(ValueError, match="`spectrum.error` must be at least 0.* -1"):
        products.check_laws(negative, jnp.asarray(matrices, dtype))
