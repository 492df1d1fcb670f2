import inspect

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vgjax import theory

# Normal, with rates that differ: rotations and scalars in an orthogonal basis.
RADII, ANGLE = np.array([1.1, 0.8, 0.8, 0.5]), 0.7


def basis(seed, N=4):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))[0]


def normal(seed):
    B = np.diag(RADII)
    turn = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]
    B[1:3, 1:3] = 0.8 * np.array(turn)
    return basis(seed) @ B @ basis(seed).T


def nonnormal(seed, N=4):
    return np.random.default_rng(seed).standard_normal((N, N)) / np.sqrt(N)


def log_singular_values_of_power(W, t):
    with mpmath.workdps(120):
        power = mpmath.matrix(W.tolist()) ** t
        return np.array(
            [float(mpmath.log(s)) for s in mpmath.svd_r(power, False, False)]
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rates_are_logs_of_the_magnitudes_of_eigenvalues(seed, dtype, tolerance):
    W = nonnormal(seed, 6)
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
    found = theory.eigenvalue_rates(jnp.asarray(W, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(1e-12, 1e-4))


def test_eigenvalues_come_largest_first_and_each_is_there(dtype, tolerance):
    W = normal(1)
    found = np.asarray(theory.eigenvalues(jnp.asarray(W, dtype)))
    pair = 0.8 * np.exp(1j * ANGLE * np.array([1, -1]))
    expected = [1.1, *pair, 0.5]
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-14, 1e-5))


def test_eigenvalues_of_a_matrix_of_rank_one_are_zero_but_one(dtype, tolerance):
    u, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.7])
    W = jnp.asarray(np.outer(u, v), dtype)
    rates = theory.eigenvalue_rates(W)
    atol = tolerance(1e-14, 1e-5)
    np.testing.assert_allclose(rates[0], np.log(abs(u @ v)), atol=atol)
    np.testing.assert_array_equal(rates[1:], [-np.inf, -np.inf])
    amplitudes = theory.mode_amplitudes(W, jnp.ones(3, dtype), [2])
    np.testing.assert_array_equal(amplitudes[0, 1:], [-np.inf, -np.inf])


def test_small_eigenvalues_are_no_zeros(dtype, tolerance):
    tiny = jnp.asarray(np.diag([1.0, 1e-20, 1e-30]), dtype)
    expected = np.log([1.0, 1e-20, 1e-30])
    found = theory.eigenvalue_rates(tiny)
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-13, 1e-4))
    # Trace 1 + 2e-20, determinant 1e-20; the small column is no round-off.
    graded = jnp.array([[1.0, 1e-20], [1.0, 2e-20]], dtype)
    found = theory.eigenvalue_rates(graded)
    np.testing.assert_allclose(found, np.log([1.0, 1e-20]), atol=tolerance(1e-13, 1e-4))


def far_from_one(dtype):
    """Powers of ten, near the ends of the range, that leave a matrix of them normal."""
    return (1e200, 1e-200, 1e300) if dtype == np.float64 else (1e30, 1e-30, 1e37)


def test_rates_of_a_matrix_of_any_size_are_those_of_it_near_one(dtype, tolerance):
    W = 0.4 * np.random.default_rng(0).standard_normal((3, 3))
    # By NumPy, near one, in float64.
    rates = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
    assert abs(rates[0] - -0.485) < 1e-3
    for size in far_from_one(dtype):
        expected = rates + np.log(size)
        found = theory.eigenvalue_rates(jnp.asarray(W * size, dtype))
        np.testing.assert_allclose(found, expected, rtol=tolerance(1e-14, 1e-6))
        largest = np.abs(theory.eigenvalues(jnp.asarray(W * size, dtype))[0])
        np.testing.assert_allclose(
            float(largest) / size, np.exp(rates[0]), rtol=tolerance(1e-13, 1e-5)
        )
        amplitudes = theory.mode_amplitudes(
            jnp.asarray(W * size, dtype), jnp.ones(3, dtype), [1, 3]
        )
        np.testing.assert_allclose(
            amplitudes[1] - amplitudes[0], 2 * expected, rtol=tolerance(1e-13, 1e-5)
        )


def test_entries_far_apart_have_the_eigenvalues_of_their_balance(dtype, tolerance):
    size = 1e200 if dtype == np.float64 else 1e20
    # Of [[0, a], [b, 0]] they are +-sqrt(a b).
    W = jnp.array([[0.0, size], [4 / size, 0.0]], dtype)
    expected = np.full(2, np.log(2))
    found = theory.eigenvalue_rates(W)
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-14, 1e-6))


def test_the_gradient_of_a_rate_is_that_of_the_matrix_near_one(dtype, tolerance):
    size = far_from_one(dtype)[0]
    triangle = jnp.array([[2.0, 1.0], [0.0, 0.5]], dtype)
    found = jax.grad(lambda W: theory.eigenvalue_rates(W)[0])(
        triangle * jnp.asarray(size, dtype)
    )
    # d lambda = w^T dW v / w^T v with v = e_1 and w = (1, 2/3), over lambda = 2.
    expected = np.array([[1 / 2, 0], [1 / 3, 0]])
    np.testing.assert_allclose(
        np.asarray(found, float) * size, expected, atol=tolerance(1e-14, 1e-6)
    )


@pytest.mark.float64
def test_powers_of_a_shear_are_known_in_closed_form():
    a, b, t = 0.9, 5.0, np.array([1, 7, 200])
    tau = t * b / a
    # log(sqrt(1 + tau^2/4) +- tau/2) without cancellation
    growth = np.arcsinh(tau / 2)[:, None] * np.array([1, -1])
    found = theory.power_spectrum(jnp.array([[a, b], [0.0, a]]), t)
    expected = t[:, None] * np.log(a) + growth
    np.testing.assert_array_equal(found.steps, t)
    np.testing.assert_allclose(found.log_singular_values, expected, rtol=1e-12)
    np.testing.assert_allclose(found.log_abs_det, 2 * t * np.log(a), rtol=1e-12)
    largest = found.log_singular_values[-1, 0]
    assert round(float(np.exp(largest - 200 * np.log(a)))) == 1111


@pytest.mark.parametrize("seed", [1, 2])
def test_powers_of_a_normal_matrix_follow_its_eigenvalues(seed, dtype, tolerance):
    # Rounding W moves each log |lambda| by eps or so, and t steps by t times that.
    t = np.array([1, 2, 50, 5000])
    found = theory.power_spectrum(jnp.asarray(normal(seed), dtype), t)
    expected = t[:, None] * np.log(RADII)
    values = found.log_singular_values
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance(1e-10, 1e-2))


@pytest.mark.float64
def test_powers_of_a_matrix_not_normal_agree_with_exact_arithmetic():
    W, t = nonnormal(1), [1, 5, 40]
    found = theory.power_spectrum(jnp.asarray(W), t).log_singular_values
    expected = [log_singular_values_of_power(W, n) for n in t]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    # and eigenvalues alone would not do
    rates = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
    assert np.abs(40 * rates - expected[-1]).max() > 0.1


def test_powers_of_a_singular_matrix_read_minus_infinity(dtype, tolerance):
    # A shift: one direction more is annihilated at every step.
    W = jnp.asarray(0.5 * np.eye(3, k=1), dtype)
    found = theory.power_spectrum(W, [1, 2, 3])
    dead = -np.inf
    one, two = np.log([0.5, 0.25])
    expected = [[one, one, dead], [two, dead, dead], [dead, dead, dead]]
    atol = tolerance(1e-14, 1e-6)
    np.testing.assert_allclose(found.log_singular_values, expected, atol=atol)
    np.testing.assert_array_equal(found.log_abs_det, [dead, dead, dead])


@pytest.mark.float64
def test_modes_add_up_to_the_power_acting_on_the_vector():
    W, x, t = nonnormal(2), np.array([1.0, -2.0, 0.5, 3.0]), 3
    found = np.asarray(theory.mode_amplitudes(jnp.asarray(W), jnp.asarray(x), [t]))[0]
    # Magnitudes from ours; phases and eigenvectors, of norm 1, from NumPy.
    values, V = np.linalg.eig(W)
    order = np.argsort(-np.abs(values), kind="stable")
    values, V = values[order], V[:, order]
    phases = np.exp(1j * np.angle(np.linalg.solve(V, x.astype(complex)) * values**t))
    rebuilt = V @ (np.exp(found) * phases)
    np.testing.assert_allclose(rebuilt, np.linalg.matrix_power(W, t) @ x, atol=1e-12)


def test_modes_are_known_long_after_floats_have_underflowed(dtype, tolerance):
    a, b, t = 0.25, 0.5, np.array([1, 100_000])
    W = jnp.array([[a, 1.0], [0.0, b]], dtype)
    # Eigenvectors e_1 (a) and (4, 1) / sqrt(17) (b); x = e_1 + (4, 1).
    found = theory.mode_amplitudes(W, jnp.array([5.0, 1.0], dtype), t)
    expected = np.log([np.sqrt(17), 1]) + t[:, None] * np.log([b, a])
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-13, 1e-5))


def test_a_mode_that_is_not_in_the_vector_reads_minus_infinity(dtype):
    W = jnp.asarray(np.diag([2.0, 0.5]), dtype)
    found = theory.mode_amplitudes(W, jnp.array([0.0, 1.0], dtype), [1])
    np.testing.assert_allclose(found, [[-np.inf, np.log(0.5)]], rtol=1e-6)


def test_a_matrix_with_nan_or_infinity_reads_nan(dtype):
    for bad in (np.nan, np.inf):
        W = jnp.asarray(normal(1), dtype).at[1, 2].set(bad)
        assert np.isnan(theory.eigenvalue_rates(W)).all()
        assert np.isnan(theory.mode_amplitudes(W, jnp.ones(4, dtype), [1])).all()
        found = theory.power_spectrum(W, [1, 2, 50, 5000])
        assert np.isnan(found.log_singular_values).all()
        assert np.isnan(found.log_abs_det).all()


@pytest.mark.slow
def test_the_answers_are_the_same_under_jit_and_vmap_and_traced_once(dtype, tolerance):
    W = jnp.asarray(np.stack([normal(1), nonnormal(2)]), dtype)
    atol = tolerance(1e-12, 1e-4)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def both(W):
        return theory.eigenvalue_rates(W), theory.power_spectrum(W, [1, 2, 50])

    for found, one in ((both(w), w) for w in W):
        plain = theory.eigenvalue_rates(one), theory.power_spectrum(one, [1, 2, 50])
        chex.assert_trees_all_close(found, plain, rtol=0, atol=atol)
    found = jax.vmap(lambda w: theory.power_spectrum(w, [1, 2, 50]))(W)
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a[1], found), plain[1], atol=atol
    )


def test_powers_lower_for_every_device_and_eigenvalues_for_cpu_and_cuda(dtype):
    W = jnp.asarray(normal(1), dtype)
    powers = jax.jit(lambda W: theory.power_spectrum(W, [1, 2])).trace(W)
    for platform in ("cpu", "cuda", "tpu"):
        powers.lower(lowering_platforms=(platform,))
    for platform in ("cpu", "cuda"):
        jax.jit(theory.eigenvalue_rates).trace(W).lower(lowering_platforms=(platform,))


EYE = jnp.eye(2)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "match"),
    [
        (
            "eigenvalues",
            (jnp.ones((2, 3)),),
            ValueError,
            r"`W` must have shape \(N, N\)",
        ),
        (
            "eigenvalue_rates",
            (jnp.ones(2),),
            ValueError,
            r"`W` must have shape \(N, N\)",
        ),
        ("eigenvalue_rates", (EYE.astype(int),), TypeError, "`W` must be real .* int"),
        ("power_spectrum", (EYE, []), ValueError, r"`steps` must have shape \(R,\)"),
        (
            "power_spectrum",
            (EYE, 3),
            ValueError,
            r"`steps` must have shape \(R,\), such as \[3\], but is the scalar 3",
        ),
        (
            "power_spectrum",
            (EYE, [2**31 - 1]),
            ValueError,
            "`steps` must be at most 10000000 here, .* is up to 2147483647",
        ),
        ("power_spectrum", (EYE, [1.0]), TypeError, "`steps` must be whole numbers"),
        ("power_spectrum", (EYE, [0, 1]), ValueError, "from at least 1 .* is .0 1"),
        ("power_spectrum", (EYE, [2, 2]), ValueError, "strictly increasing"),
        ("power_spectrum", (EYE, [1, 2**31]), ValueError, r"at most 2\^31 - 1"),
        (
            "mode_amplitudes",
            (EYE, jnp.ones(3), [1]),
            ValueError,
            r"`vector` .* \(N=2,\)",
        ),
        (
            "mode_amplitudes",
            (EYE, jnp.ones(2, int), [1]),
            TypeError,
            "`vector` must have",
        ),
        (
            "mode_amplitudes",
            (EYE, jnp.ones(2), [2, 1]),
            ValueError,
            "strictly increasing",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(function, arguments, error, match):
    # Unwrapped, for where a type checker is hooked in and would speak first.
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(theory, function))(*arguments)
