"""The whole Lyapunov spectrum of wide networks, against products in NumPy."""

import jax
import numpy as np
import pytest

from vgjax import theory

pytestmark = pytest.mark.once


def test_exponents_are_those_of_the_circular_law_where_tanh_is_linear():
    share = np.array([0, 1e-9, 0.25, 0.5, 0.9, 0.999])
    for gain in (0.8, 1.0, 1e-3):
        found = theory.lyapunov_density(share, gain)
        expected = np.log(gain) + np.log1p(-share) / 2
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_spectrum_begins_with_the_largest_exponent_of_mean_field():
    for gain in (1.2, 2.0, 3.0, 50.0):
        found = theory.lyapunov_density([0, 1e-12], gain)
        expected = theory.leading_exponent(gain)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gain", [1.5, 2.0, 10.0])
def test_exponents_sum_to_the_mean_log_determinant(gain):
    # log|det J|/N is log g - 1/2; E log tanh' by Gauss-Hermite.
    share = (np.arange(2000) + 0.5) / 2000
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    q = theory.fixed_point("tanh", weight_gain=gain)
    # log cosh without overflow; it has a kink where q is large, hence the tolerance.
    h = np.sqrt(q) * np.abs(z)
    log_cosh = h + np.log1p(np.exp(-2 * h)) - np.log(2)
    slope = weight @ (-2 * log_cosh) / weight.sum()
    found = theory.lyapunov_density(share, gain).mean()
    assert found == pytest.approx(np.log(gain) - 0.5 + slope, abs=5e-3)
    assert abs(theory.leading_exponent(gain) - found) > 0.5  # not one value for all


@pytest.mark.parametrize("gain", [0.9, 2.0, 4.0])
def test_exponents_are_those_of_independent_random_layers(gain):
    N, steps = 100, 150
    rng = np.random.default_rng(1)
    q = theory.fixed_point("tanh", weight_gain=gain)
    Q, total = np.eye(N), np.zeros(N)
    for t in range(steps):
        d = np.cosh(np.sqrt(q) * rng.standard_normal(N)) ** -2
        J = gain / np.sqrt(N) * rng.standard_normal((N, N))
        Q, R = np.linalg.qr(J @ (d[:, None] * Q))
        if t >= 50:
            total += np.log(np.abs(np.diag(R)))
    measured = np.sort(total / (steps - 50))[::-1]
    share = (np.arange(N) + 0.5) / N

    def off(predicted):
        return np.sqrt(np.mean((measured - predicted)[share < 0.9] ** 2))

    # A finite network is below the prediction by about 3/N at g = 4.
    assert off(theory.lyapunov_density(share, gain)) < 0.1
    assert off(theory.lyapunov_density(share, gain + 1)) > 0.1
    if gain > 1:  # what tanh' = 1 would give
        assert off(np.log(gain) + np.log1p(-share) / 2) > 0.5


def test_exponents_fall_with_the_share_from_a_number_to_minus_infinity():
    share = np.linspace(0, 1, 51).reshape(3, 17)
    found = theory.lyapunov_density(share, 2.5)
    assert found.shape == (3, 17)
    assert np.all(np.diff(found.ravel()) < 0)
    assert found[-1, -1] == -np.inf
    assert isinstance(theory.lyapunov_density(0.5, 2.0), float)


@pytest.mark.parametrize(
    ("share", "gain", "match"),
    [
        (1.1, 2.0, "`share` must be from 0 to 1, but is 1.1"),
        (np.nan, 2.0, "`share` must be from 0 to 1"),
        (0.5, 0.0, "`gain` must be positive, but is 0"),
        (0.5, -1.0, "`gain` must be finite and at least 0"),
        (0.5, [1.0, 2.0], "`gain` must have shape"),
    ],
)
def test_what_is_no_share_or_no_gain_is_refused(share, gain, match):
    with pytest.raises(ValueError, match=match):
        theory.lyapunov_density(share, gain)


def test_traced_shares_are_refused():
    with pytest.raises(TypeError, match="`share` must be concrete"):
        jax.jit(lambda x: theory.lyapunov_density(x, 2.0))(0.5)
