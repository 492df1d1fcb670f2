"""Exact singular values of products, against closed forms and high precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import systems

from vgjax import products

LEVELS = [
    -254.1101497294563,
    -499.8600315146998,
    -751.7711247075598,
    -1002.689648731226,
    -1249.054824340876,
    -1505.270032839329,
]


def spectrum(chain, dtype=jnp.float64, **options):
    found = products.product_spectrum(jnp.asarray(chain, dtype), **options)
    return np.asarray(found.log_singular_values)


def worst(found, answer):
    """Largest error over the times of an oracle's {t: values}."""
    return max(np.abs(found[t - 1] - values).max() for t, values in answer.items())


@pytest.mark.float64
def test_telescoping_product_gives_the_sorted_sums_of_its_scales():
    chain, answer = systems.telescoping(1, systems.cosines())
    found = spectrum(chain)
    np.testing.assert_allclose(found[-1], LEVELS, atol=1e-10, rtol=0)
    np.testing.assert_allclose(found, answer, atol=1e-10, rtol=0)
    assert np.abs(oracles.multiply_then_svd(chain)[-1] - LEVELS).max() > 1
    assert np.abs(oracles.sums_of_log_r(chain)[-1] - LEVELS).max() > 1


@pytest.mark.float64
@pytest.mark.parametrize("beta", [5, 10, 20, 40, 100])
def test_degenerate_pairs_of_a_ring_are_right_at_every_step(beta):
    chain, answer = systems.ring(16, 0.1, 10 * beta)
    np.testing.assert_allclose(spectrum(chain), answer, atol=1e-10, rtol=0)
    if beta == 40:
        assert np.abs(oracles.multiply_then_svd(chain) - answer).max() > 1


@pytest.mark.float64
@pytest.mark.parametrize(("n", "step"), [(16, 0.3), (16, 1.0), (12, 0.2)])
def test_degenerate_pairs_far_apart_do_not_mislead_the_svd(n, step):
    chain, answer = systems.ring(n, step, 200)
    np.testing.assert_allclose(spectrum(chain), answer, atol=1e-10, rtol=0)


@pytest.mark.float64
@pytest.mark.slow
def test_cat_map_holds_over_a_hundred_thousand_steps():
    T = 100_000
    chain = np.broadcast_to(np.array([[2.0, 1.0], [1.0, 1.0]]), (T, 2, 2))
    answer = 0.9624236501192069 * T * np.array([1, -1])
    np.testing.assert_allclose(spectrum(chain, every=T)[0], answer, rtol=1e-12)


@pytest.mark.float64
def test_power_of_an_orthogonal_matrix_is_isometric():
    Q = systems.orthogonal(np.random.default_rng(1), 6)
    found = spectrum(np.repeat(Q[None], 500, 0))
    np.testing.assert_allclose(found, 0, atol=1e-11 * 500)


@pytest.mark.float64
def test_power_of_a_normal_matrix_has_the_powers_of_its_eigenvalues():
    rng = np.random.default_rng(2)
    Q, moduli = systems.orthogonal(rng, 4), np.array([1.3, 1.3, 0.7, 0.2])
    turn = 1.3 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    D = np.diag(moduli)
    D[:2, :2] = turn
    found = spectrum(np.repeat((Q @ D @ Q.T)[None], 1000, 0))
    answer = np.arange(1, 1001)[:, None] * np.log(moduli)
    np.testing.assert_allclose(found, answer, atol=1e-11 * 1000, rtol=0)


@pytest.mark.float64
def test_shear_outgrows_its_radius_by_the_closed_form():
    a, b, T = 0.9, 5.0, 200
    found = spectrum(np.repeat([[[a, b], [0, a]]], T, 0))
    tau = np.arange(1, T + 1) * b / a
    excess = np.arcsinh(tau / 2)
    answer = np.arange(1, T + 1)[:, None] * np.log(a) + np.stack([excess, -excess], 1)
    np.testing.assert_allclose(found, answer, atol=1e-12, rtol=1e-12)
    assert round(np.exp(found[-1, 0] - T * np.log(a))) == 1111


@pytest.mark.float64
@pytest.mark.parametrize("gain", [0.9, 1.2, 3.0])
@pytest.mark.parametrize("N", [4, 8, 16])
def test_tanh_chains_agree_with_high_precision(N, gain):
    times = (1, 3, 10, 40, 120, 300)
    chain = systems.tanh_chain(1, N, gain, max(times))
    answer = oracles.log_singular_values(chain, times, 2400 if gain == 3 else 1100)
    found = spectrum(chain)
    assert worst(found, answer) < 1e-10
    assert worst(oracles.multiply_then_svd(chain), answer) > 1
    if N > 4:
        assert worst(oracles.sums_of_log_r(chain), answer) > 1
    backwards = spectrum(np.swapaxes(chain[::-1], 1, 2), reverse=True)
    np.testing.assert_allclose(backwards, found, atol=1e-10, rtol=0)


@pytest.mark.float64
def test_suffixes_agree_with_high_precision():
    chain = systems.tanh_chain(2, 5, 1.5, 60)
    answer = oracles.log_singular_values(np.swapaxes(chain[::-1], 1, 2), (1, 7, 60))
    assert worst(spectrum(chain, reverse=True), answer) < 1e-10


@pytest.mark.float64
def test_nearly_equal_singular_values_stay_apart():
    rng = np.random.default_rng(3)
    chain = 0.99 * np.array([systems.orthogonal(rng, 16) for _ in range(1000)])
    answer = np.arange(1, 1001)[:, None] * np.log(0.99) * np.ones(16)
    np.testing.assert_allclose(spectrum(chain), answer, atol=1e-10, rtol=0)


@pytest.mark.float64
@pytest.mark.parametrize("shift", [300.0, -300.0])
def test_scaling_one_factor_shifts_every_value(shift):
    chain = systems.tanh_chain(3, 6, 1.2, 50)
    before = spectrum(chain)
    chain[20] *= np.exp(shift)
    answer = before + np.where(np.arange(50) >= 20, shift, 0)[:, None]
    np.testing.assert_allclose(spectrum(chain), answer, atol=1e-9, rtol=0)


def test_the_largest_and_smallest_numbers_that_floats_hold_are_no_zeros(dtype):
    info = jnp.finfo(dtype)
    large, small = 1.5 * 2.0 ** (info.maxexp - 1), 2.0**info.minexp
    for pair in ([large, 1.0], [1.0, small]):
        found = spectrum(np.array([np.diag(pair)] * 3), dtype)
        answer = np.log(pair) * np.arange(1, 4)[:, None]
        np.testing.assert_allclose(found, answer, rtol=1e-6)


@pytest.mark.float64
@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_scales_beyond_those_of_a_product_are_nan_and_not_infinite(factor):
    found = products.product_spectrum(jnp.full((600_000, 1, 1), factor), every=100_000)
    expected = np.asarray(found.steps) * np.log(factor)
    # Beyond 2^29 bits, 3.72e8 nats: 6e5 factors have 4.1e8.
    within = np.abs(expected) < 2**29 * np.log(2)
    assert within.sum() == 5
    expected = np.where(within, expected, np.nan)
    values = found.log_singular_values[:, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-14)


@pytest.mark.float64
@pytest.mark.parametrize("gain", [8.0, 16.0])
@pytest.mark.parametrize("direction", ["prefixes", "suffixes"])
def test_rows_deep_in_saturation_keep_their_digits(gain, direction):
    times = (1, 2, 5, 12, 25)
    chain = systems.tanh_chain(1, 8, gain, max(times))
    if direction == "suffixes":
        chain = np.swapaxes(chain[::-1], 1, 2)
    along = 2 if direction == "prefixes" else 1
    assert np.abs(chain).max(axis=along).min() < 1e-13
    answer = oracles.log_singular_values(chain, times, 2000)
    assert worst(spectrum(chain), answer) < 1e-9


@pytest.mark.float64
def test_wide_spread_of_a_large_product_is_read_through_several_windows():
    rng = np.random.default_rng(4)
    log_scales = rng.uniform(-0.02, 0.02, (500, 64)) - 0.05 * np.arange(64)
    chain, answer = systems.telescoping(5, log_scales)
    assert np.ptp(answer[-1]) > 1300
    found = spectrum(chain, every=100)
    np.testing.assert_allclose(found, answer[99::100], atol=1e-9, rtol=0)


def masks(seed, T, N):
    keep = np.random.default_rng(seed).random((T, N)) > 0.15
    keep[:3] = True
    return keep.astype(float)


def repeated_column(seed, N, T):
    chain = systems.gaussian_chain(seed, N, T)
    chain[5, :, 3] = chain[5, :, 1]
    chain[20, :, 0] = chain[20, :, 1]
    return chain


def low_rank(seed, N, T, rank):
    """Small integers, so that the rank of the float product is exact."""
    rng = np.random.default_rng(seed)
    chain = systems.gaussian_chain(seed, N, T)
    left, right = rng.integers(-3, 4, (N, rank)), rng.integers(-3, 4, (rank, N))
    chain[7] = left @ right
    return chain


SINGULAR = {
    "units switched off": systems.gaussian_chain(1, 8, 40)
    * masks(1, 40, 8)[:, :, None],
    "same units of one W": systems.gaussian_chain(2, 8, 1)
    * masks(2, 40, 8)[:, :, None],
    "repeated columns": repeated_column(3, 8, 40),
    "rank 3": low_rank(4, 8, 40, 3),
    "rank 7": low_rank(5, 8, 40, 7),
    "one unit for good": np.repeat(np.diag([1.0, 1, 0, 2])[None], 40, 0),
    "zero": np.concatenate([systems.gaussian_chain(6, 4, 39), np.zeros((1, 4, 4))]),
    "nilpotent": np.repeat(np.triu(np.ones((6, 6)), 1)[None], 40, 0),
}


@pytest.mark.float64
@pytest.mark.parametrize("direction", ["prefixes", "suffixes"])
@pytest.mark.parametrize("name", SINGULAR)
def test_what_a_step_annihilates_reads_minus_infinity(name, direction):
    chain = SINGULAR[name]
    if direction == "suffixes" and name != "nilpotent":
        chain = np.swapaxes(chain[::-1], 1, 2)
    times = (1, 2, 5, 9, 22, 40)
    answer = oracles.log_singular_values(chain, times, 900)
    found = products.product_spectrum(jnp.asarray(chain))
    values = np.asarray(found.log_singular_values)
    for t, expected in answer.items():
        np.testing.assert_array_equal(np.isneginf(values[t - 1]), np.isneginf(expected))
        alive = np.isfinite(expected)
        np.testing.assert_allclose(values[t - 1][alive], expected[alive], atol=1e-9)


def test_rank_one_leaves_one_finite_value(dtype, tolerance):
    u, v = np.array([1.0, -2, 3, 0]), np.array([2.0, 1, 1, 5])
    found = spectrum(np.repeat(np.outer(u, v)[None], 100, 0), dtype)
    t = np.arange(1, 101)
    answer = (t - 1) * np.log(abs(u @ v)) + np.log(
        np.linalg.norm(u) * np.linalg.norm(v)
    )
    np.testing.assert_allclose(found[:, 0], answer, rtol=tolerance(1e-13, 1e-6))
    assert np.isneginf(found[:, 1:]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_with_nan_or_infinity_spoils_its_row_and_all_later_ones(bad, dtype):
    chain = systems.gaussian_chain(1, 4, 30)
    chain[12, 2, 1] = bad
    found = products.product_spectrum(jnp.asarray(chain, dtype))
    clean = products.product_spectrum(jnp.asarray(chain[:12], dtype))
    assert np.isnan(found.log_singular_values[12:]).all()
    assert np.isnan(found.log_abs_det[12:]).all()
    for got, expected in zip(found[1:], clean[1:], strict=True):
        np.testing.assert_allclose(got[:12], expected, rtol=1e-5)


def test_float32_holds_to_a_hundredth_and_float64_of_the_same_to_1e_9():
    chain = systems.tanh_chain(1, 16, 1.2, 300).astype(np.float32)
    times = (1, 10, 100, 300)
    answer = oracles.log_singular_values(chain, times, 1100)
    assert worst(spectrum(chain, jnp.float32), answer) < 1e-2
    if jax.config.jax_enable_x64:
        assert worst(spectrum(chain, jnp.float64), answer) < 1e-9


def test_every_tenth_record_is_the_tenth_of_every_record(dtype, tolerance):
    chain = systems.tanh_chain(2, 5, 1.2, 67)
    all_of_them = spectrum(chain, dtype)
    found = products.product_spectrum(jnp.asarray(chain, dtype), every=10)
    np.testing.assert_array_equal(found.steps, [10, 20, 30, 40, 50, 60])
    np.testing.assert_allclose(
        found.log_singular_values, all_of_them[9::10][:6], atol=tolerance(1e-11, 1e-3)
    )


def test_log_abs_det_of_rows_of_all_sizes_is_finite(dtype, tolerance):
    large = 1e250 if dtype == jnp.float64 else 1e30
    chain = systems.gaussian_chain(8, 3, 4)
    expected = np.cumsum(np.linalg.slogdet(chain)[1])
    chain *= np.array([large, 1, 1 / large])[:, None]
    found = products.product_spectrum(jnp.asarray(chain, dtype)).log_abs_det
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-12, 1e-4))


def test_log_abs_det_of_equal_rows_is_minus_infinity(dtype):
    chain = systems.gaussian_chain(8, 2, 3)
    chain[1] = 0.1
    found = products.product_spectrum(jnp.asarray(chain, dtype)).log_abs_det
    assert list(np.isneginf(found)) == [False, True, True]


def test_log_abs_det_is_the_sum_of_slogdets_and_of_log_singular_values(
    dtype, tolerance
):
    chain = systems.tanh_chain(5, 7, 1.5, 200).astype(np.float32)
    found = products.product_spectrum(jnp.asarray(chain, dtype))
    expected = oracles.log_abs_det(chain.astype(float))
    tol = tolerance(1e-10, 2e-2)
    np.testing.assert_allclose(found.log_abs_det, expected, atol=tol)
    np.testing.assert_allclose(found.log_singular_values.sum(1), expected, atol=tol)


def test_newest_factor_stands_on_the_left(dtype):
    chain = np.array([[[1.0, 5], [0, 1]], [[3, 0], [0, 1]], [[0, 1], [1, 0.5]]])
    product = chain[2] @ chain[1] @ chain[0]
    wrong = chain[0] @ chain[1] @ chain[2]
    values = np.log(np.linalg.svd(product, compute_uv=False))
    assert np.abs(values - np.log(np.linalg.svd(wrong, compute_uv=False))).max() > 0.1
    np.testing.assert_allclose(spectrum(chain, dtype)[-1], values, rtol=1e-5)
    last_two = np.log(np.linalg.svd(chain[2] @ chain[1], compute_uv=False))
    found = spectrum(chain, dtype, reverse=True)
    np.testing.assert_allclose(found[1], last_two, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_same_answer_under_jit_and_vmap(dtype, tolerance):
    chains = np.stack([systems.tanh_chain(s, 5, 8.0, 30) for s in (1, 2, 3)])
    chains[1, 10, :, 2] = chains[1, 10, :, 3]
    chains = jnp.asarray(chains, dtype)
    one_by_one = [products.product_spectrum(chain) for chain in chains]
    together = jax.jit(jax.vmap(products.product_spectrum))(chains)
    for b, alone in enumerate(one_by_one):
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(
                got[b], expected, atol=tolerance(1e-11, 2e-3), rtol=1e-6
            )


def test_new_matrices_of_the_same_shape_are_not_traced_again(dtype):
    @chex.assert_max_traces(1)
    def measure(chain):
        return products.product_spectrum(chain, every=2)

    measure = jax.jit(measure)
    for seed in (1, 2, 3):
        measure(jnp.asarray(systems.gaussian_chain(seed, 3, 4), dtype))


@pytest.mark.parametrize(
    ("matrices", "options", "error", "sentence"),
    [
        (
            np.ones((3, 3)),
            {},
            ValueError,
            r"`matrices` must have shape \(T, N, N\).*\(3, 3\)",
        ),
        (np.ones((2, 3, 4)), {}, ValueError, r"`matrices` must .*\(2, 3, 4\)"),
        (
            np.ones((0, 3, 3)),
            {},
            ValueError,
            r"`matrices` must .*no size zero.*\(0, 3, 3\)",
        ),
        (np.ones((2, 0, 0)), {}, ValueError, r"`matrices` must .*\(2, 0, 0\)"),
        (np.ones((2, 3, 3), int), {}, TypeError, "`matrices` must be real .* int"),
        (
            np.ones((2, 3, 3), complex),
            {},
            TypeError,
            "`matrices` must be real .* complex",
        ),
        (
            np.ones((2, 3, 3)),
            {"every": 0},
            ValueError,
            "`every` must be at least 1 .* is 0",
        ),
        (
            np.ones((2, 3, 3)),
            {"every": 3},
            ValueError,
            "`every` must be .*at most 2, but is 3",
        ),
        (
            np.ones((2, 3, 3)),
            {"every": 1.5},
            TypeError,
            "`every` must be a whole number",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(matrices, options, error, sentence):
    with pytest.raises(error, match=sentence):
        products.product_spectrum(matrices, **options)


def test_values_of_directions_that_do_not_couple_are_descending(dtype):
    # Both have the power of two 1.
    chain = jnp.stack([jnp.diag(jnp.asarray([2.38, 3.2], dtype))])
    found = products.product_spectrum(chain).log_singular_values
    np.testing.assert_allclose(found, np.log([[3.2, 2.38]]), rtol=1e-6)
