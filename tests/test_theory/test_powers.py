import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgjax import theory


def basis(seed, N=5):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))[0]


def symmetric(seed):
    Q = basis(seed)
    return Q @ np.diag([1.2, -0.9, 0.5, 0.3, 0.1]) @ Q.T


def normal_with_a_pair(seed):
    B, angle = np.diag([0.0, 0.0, 0.8, -0.5, 0.2]), 0.7
    c, s = np.cos(angle), np.sin(angle)
    B[:2, :2] = 1.1 * np.array([[c, -s], [s, c]])
    return basis(seed) @ B @ basis(seed).T


def nonnormal(seed):
    V = np.random.default_rng(seed).standard_normal((5, 5))
    return V @ np.diag([1.3, 0.9, -0.6, 0.3, 0.1]) @ np.linalg.inv(V)


RATES = {
    symmetric: np.log(0.9 / 1.2),
    normal_with_a_pair: np.log(0.8 / 1.1),
    nonnormal: np.log(0.9 / 1.3),
}


@pytest.mark.parametrize("make", RATES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_rate_is_the_log_ratio_of_the_moduli(make, seed, dtype, tolerance):
    found = theory.power_method_rate(jnp.asarray(make(seed), dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, RATES[make], atol=tolerance(1e-12, 1e-4))


@pytest.mark.float64
@pytest.mark.parametrize("make", RATES)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_measured_angle_falls_at_the_predicted_rate(make, seed):
    W, x = jnp.asarray(make(seed)), jnp.arange(1.0, 6)
    steps = np.arange(30, 61)
    log_angle = np.log(theory.power_method_angles(W, x, steps))
    slope = np.polyfit(steps, log_angle, 1)[0]
    # The third mode, at most (0.3/0.9)^30 of the second (0.6/0.9 in one: 5e-6).
    np.testing.assert_allclose(slope, theory.power_method_rate(W), rtol=1e-4)


@pytest.mark.float64
def test_angles_are_with_the_left_eigenvector_not_the_right_one():
    # Left eigenvectors are rows: (1, 3) / sqrt(10) of 1, e_2 of a half.
    W, x = jnp.array([[1.0, 1.5], [0.0, 0.5]]), jnp.array([2.0, 0.0])
    steps = np.array([1, 2, 10, 40])
    expected = []
    for t in steps:
        row = np.array([2.0, 0.0]) @ np.linalg.matrix_power(np.asarray(W), t)
        cross = abs(row[0] * 3 - row[1]) / np.sqrt(10)
        expected.append(np.arcsin(cross / np.linalg.norm(row)))
    found = theory.power_method_angles(W, x, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-16)
    np.testing.assert_allclose(found[0], np.arctan(3) - np.arctan(1.5), rtol=1e-13)


@pytest.mark.float64
def test_small_angles_have_all_their_digits():
    W, x = jnp.diag(jnp.array([1.0, 0.5])), jnp.array([1.0, 1.0])
    steps = np.array([1, 20, 50, 300])
    found = theory.power_method_angles(W, x, steps)
    np.testing.assert_allclose(found, np.arctan(0.5**steps), rtol=1e-12)


def test_long_powers_neither_overflow_nor_underflow(dtype, tolerance):
    for size in (1e-20, 1e20):
        W = jnp.asarray(size * normal_with_a_pair(1), dtype)
        found = theory.power_method_angles(W, jnp.ones(5, dtype), [1, 5000])
        assert np.isfinite(found).all()
        assert found[1] < tolerance(1e-14, 1e-5)


def test_a_matrix_of_any_size_has_the_spaces_and_angles_of_it_near_one(
    dtype, tolerance
):
    W = np.random.default_rng(0).standard_normal((3, 3))
    values, left = np.linalg.eig(W.T)
    order = np.argsort(-np.abs(values))
    values, left = values[order], left[:, order]
    assert np.isreal(values[0])
    rate = np.log(np.abs(values[1] / values[0]))
    direction = np.real(left[:, 0])
    condition = np.linalg.cond(np.linalg.eig(W)[1])
    angle = np.arccos(abs((W[0] / np.linalg.norm(W[0])) @ direction))
    rtol = tolerance(1e-12, 1e-4)
    sizes = (1e200, 1e-200, 1e307) if dtype == np.float64 else (1e30, 1e-30, 1e38)
    for size in sizes:
        scaled = jnp.asarray(W * size, dtype)
        found = theory.power_method_rate(scaled)
        np.testing.assert_allclose(found, rate, rtol=rtol)
        found = theory.principal_left_space(scaled)[:, 0]
        np.testing.assert_allclose(abs(found @ direction), 1, rtol=rtol)
        found = theory.eigenvector_condition(scaled)
        np.testing.assert_allclose(found, condition, rtol=rtol)
        found = theory.power_method_angles(scaled, jnp.eye(3, dtype=dtype)[0], [1])
        np.testing.assert_allclose(found, [angle], rtol=rtol)
        # Repeated eigenvalues, of which LAPACK's eigenvectors are anything.
        normal = jnp.asarray(np.diag([1, 1, -1]) * size, dtype)
        assert theory.eigenvector_condition(normal) == 1
        found = theory.henrici_departure(jnp.asarray(np.eye(3, k=1) * size, dtype))
        np.testing.assert_allclose(np.asarray(found, float) / size, 2**0.5, rtol=rtol)


def test_opposite_eigenvalues_lead_together(dtype, tolerance):
    W = jnp.asarray(np.diag([1.0, -1.0, 0.5]), dtype)
    rate = theory.power_method_rate(W)
    np.testing.assert_allclose(rate, np.log(0.5), rtol=1e-6)
    found = theory.power_method_angles(W, jnp.ones(3, dtype), [1, 2])
    expected = np.arctan2(0.5 ** np.array([1, 2]), np.sqrt(2))
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-14, 1e-6))


def test_degenerate_matrices_read_as_documented(dtype):
    ones = jnp.ones(2, dtype)
    alone = jnp.asarray(np.outer([1.0, 2.0], [1.0, 1.0]), dtype)
    assert theory.power_method_rate(alone) == -np.inf
    assert theory.power_method_rate(jnp.eye(2, dtype=dtype)) == -np.inf
    zero = jnp.zeros((2, 2), dtype)
    assert np.isnan(theory.power_method_rate(zero))
    assert np.isnan(theory.power_method_angles(zero, ones, [1, 2])).all()
    assert theory.gelfand_rates(zero, [1, 10, 1000])[0] == -np.inf
    nilpotent = jnp.eye(3, k=1, dtype=dtype)
    found = theory.power_method_angles(nilpotent, jnp.ones(3, dtype), [1, 2, 3])
    assert np.isnan(found).all()
    bad = alone.at[0, 1].set(jnp.nan)
    assert np.isnan(theory.power_method_rate(bad))
    assert np.isnan(theory.eigenvector_condition(bad))
    assert np.isnan(theory.gelfand_rates(bad, [1, 10, 1000])).all()
    assert np.isnan(theory.power_method_angles(bad, ones, [1, 2])).all()
    # Annihilated by the only step.
    down = jnp.asarray(np.diag([1.0, 0.0]), dtype)
    gone = theory.power_method_angles(down, jnp.asarray([0.0, 1.0], dtype), [1, 2])
    assert np.isnan(gone).all()


def test_condition_is_one_for_normal_matrices_even_with_repeated_eigenvalues(dtype):
    Q = basis(3)
    for values in ([1.2, -0.9, 0.5, 0.3, 0.1], [1.0, 1.0, 1.0, 0.5, 0.5]):
        W = jnp.asarray(Q @ np.diag(values) @ Q.T, dtype)
        assert theory.eigenvector_condition(W) == 1


def test_condition_of_a_triangle_is_known_in_closed_form(dtype, tolerance):
    # Unit eigenvectors at an angle alpha: cot(alpha / 2), tan alpha = (a - d) / b.
    a, b, d = 1.0, 3.0, 0.5
    W = jnp.asarray([[a, b], [0.0, d]], dtype)
    expected = 1 / np.tan(np.arctan((a - d) / b) / 2)
    found = theory.eigenvector_condition(W)
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-12, 1e-5))
    shear = jnp.asarray([[a, b], [0.0, a]], dtype)
    assert theory.eigenvector_condition(shear) > tolerance(1e7, 1e3)


def test_gelfand_rates_of_a_shear_are_known_in_closed_form(dtype, tolerance):
    a, b, t = 0.9, 5.0, np.array([1, 10, 1000])
    W = jnp.asarray([[a, b], [0.0, a]], dtype)
    expected = np.log(a) + np.arcsinh(t * b / a / 2) / t
    found = theory.gelfand_rates(W, t)
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-12, 1e-5))


def test_gelfand_rates_keep_between_the_radius_and_the_condition(dtype, tolerance):
    W, t = jnp.asarray(nonnormal(1), dtype), np.array([1, 3, 10, 100, 1000])
    excess = t * (np.asarray(theory.gelfand_rates(W, t)) - np.log(1.3))
    slack = tolerance(1e-9, 1e-2)
    bound = np.log(theory.eigenvector_condition(W))
    assert (excess > -slack).all()
    assert (excess < bound + slack).all()


def test_the_same_under_jit_and_vmap_and_traced_once(dtype, tolerance):
    W = jnp.asarray(np.stack([symmetric(1), nonnormal(2)]), dtype)
    x = jnp.ones(5, dtype)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def all_of(W):
        return (
            theory.power_method_rate(W),
            theory.power_method_angles(W, x, [1, 5, 9]),
            theory.eigenvector_condition(W),
        )

    plain = [all_of(w) for w in W]
    found = jax.vmap(lambda w: theory.power_method_angles(w, x, [1, 5, 9]))(W)
    eager = theory.power_method_angles(W[1], x, [1, 5, 9])
    rtol = tolerance(1e-9, 1e-3)
    np.testing.assert_allclose(found[1], plain[1][1], rtol=rtol)
    np.testing.assert_allclose(eager, plain[1][1], rtol=rtol)
    condition = jax.vmap(theory.eigenvector_condition)(W)
    np.testing.assert_allclose(condition, [p[2] for p in plain], rtol=rtol)


EYE = jnp.eye(2)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("power_method_rate", (jnp.ones((2, 3)),), ValueError, r"`W` .* \(N, N\)"),
        ("eigenvector_condition", (jnp.ones(2),), ValueError, r"`W` .* \(N, N\)"),
        ("gelfand_rates", (EYE, [0]), ValueError, "from at least 1"),
        ("power_method_angles", (EYE, jnp.ones(3), [1]), ValueError, r"`vector`"),
        ("power_method_angles", (EYE, jnp.ones(2, int), [1]), TypeError, "`vector`"),
        ("power_method_angles", (EYE, jnp.ones(2), [2, 1]), ValueError, "`steps`"),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, arguments, error, match):
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(theory, name))(*arguments)


def test_as_many_steps_as_would_take_hours_are_refused_where_each_is_taken():
    far = [1, 10**7 + 1]
    for function, arguments in [
        (theory.power_method_angles, (jnp.eye(2), jnp.ones(2), far)),
        (theory.gelfand_rates, (jnp.eye(2), far)),
    ]:
        with pytest.raises(ValueError, match="`steps` must be at most 10000000"):
            inspect.unwrap(function)(*arguments)
    # and allowed where they cost nothing
    found = theory.mode_amplitudes(2 * jnp.eye(2), jnp.ones(2), [2**31 - 1])
    np.testing.assert_allclose(
        found, np.full((1, 2), (2**31 - 1) * np.log(2)), rtol=1e-6
    )
