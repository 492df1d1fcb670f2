import jax
import mpmath
import numpy as np
import pytest

from vgjax import theory
from vgjax.theory._overlaps import overlaps

NAMES = ["tanh", "erf", "relu", "hard_tanh"]
VALUE = {
    "tanh": mpmath.tanh,
    "erf": lambda x: mpmath.erf(mpmath.sqrt(mpmath.pi) * x / 2),
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "hard_tanh": lambda x: min(max(x, mpmath.mpf(-1)), mpmath.mpf(1)),
}
SLOPE = {
    "tanh": lambda x: mpmath.sech(x) ** 2,
    "erf": lambda x: mpmath.exp(-mpmath.pi * x**2 / 4),
    "relu": lambda x: mpmath.mpf(x > 0),
    "hard_tanh": lambda x: mpmath.mpf(abs(x) < 1),
}
# sigma_w^2, sigma_b^2, q*, chi_1 of tanh: the rows of Schoenholz et al. (2017).
SCHOENHOLZ = [
    (1.3, 0.05, 0.315316477485, 0.880163509883),
    (2.25, 0.0, 0.793354042607, 1.139323224985),
    (4.0, 0.0, 2.121473568203, 1.362673337522),
    (9.0, 0.0, 6.305391478779, 1.859855190809),
    (16.0, 0.0, 12.500601010096, 2.376801583779),
]


def mean(f, q):
    """E f(sqrt(q) z)^2 by quadrature that knows where f bends; f^2 even, or relu."""
    width = 1 / float(np.sqrt(q))
    bends = [0, 12] + [s * width for s in (0.3, 1, 2, 4, 8, 16, 32)]
    bends = sorted({b for b in bends if b <= 12})
    root = mpmath.sqrt(q)
    with mpmath.workdps(25):
        return sum(
            mpmath.quad(
                lambda z, sign=sign: f(sign * root * z) ** 2 * mpmath.npdf(z), bends
            )
            for sign in (1, -1)
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("q", [1e-6, 0.3, 4.0, 1e4])
def test_the_variance_of_the_next_layer_is_the_integral(name, q):
    found = theory.variance_map(q, name, weight_gain=1.5, bias_std=0.2)
    expected = 1.5**2 * float(mean(VALUE[name], q)) + 0.04
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("q", [1e-12, 1e-6, 0.3, 4.0, 1e4, 1e8])
def test_the_mean_squared_slope_is_the_integral(name, q):
    found = overlaps(name).slope_overlap(q, 0.0)
    np.testing.assert_allclose(found, float(mean(SLOPE[name], q)), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gap", [0.01, 0.3, 1.0])
def test_the_overlap_of_two_correlated_signals_is_the_integral(name, gap):
    # By a plain trapezoid in the plane: second order for those with a kink.
    q, c = 0.7, 1 - gap
    z, h = np.linspace(-9, 9, 2401, retstep=True)
    weight = np.exp(-(z**2) / 2) * h / np.sqrt(2 * np.pi)
    both = weight[:, None] * weight[None, :]
    u = np.sqrt(q) * z[:, None]
    v = np.sqrt(q) * (c * z[:, None] + np.sqrt(1 - c**2) * z[None, :])
    phi = {
        "tanh": np.tanh,
        "erf": np.vectorize(lambda x: float(VALUE["erf"](x))),
        "relu": lambda x: np.maximum(x, 0),
        "hard_tanh": lambda x: np.clip(x, -1, 1),
    }[name]
    if name == "erf":
        grid = np.linspace(-12, 12, 24001)
        table = phi(grid)
        phi = lambda x: np.interp(x, grid, table)  # noqa: E731
    kept = (both * phi(u) * phi(v)).sum()
    whole = (both * phi(u) ** 2 * np.ones_like(v)).sum()
    found = overlaps(name).lost(q, gap)
    np.testing.assert_allclose(found, whole - kept, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["tanh", "erf", "hard_tanh"])
@pytest.mark.parametrize("q", [0.1, 3.0, 300.0])
def test_nearly_equal_signals_lose_what_the_slope_says_and_no_digits(name, q):
    of = overlaps(name)
    for gap in (1e-14, 1e-11):
        lost = of.lost(q, gap) / (q * gap)
        # A kink makes corrections of the root of the gap, as large as q is.
        np.testing.assert_allclose(lost, of.slope_overlap(q, 0.0), rtol=2e-4)
    if name != "hard_tanh":
        np.testing.assert_allclose(lost, of.slope_overlap(q, 0.0), rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("q", [0.1, 3.0, 300.0])
def test_slopes_are_the_derivatives_of_the_maps(name, q):
    of = overlaps(name)
    for f, at, slope in (
        (of.second_moment, q, of.second_moment_slope(q)),
        (lambda gap: of.lost(q, gap) / q, 0.3, of.slope_overlap(q, 0.3)),
    ):
        h = 1e-4 * at
        central = (f(at - 2 * h) - 8 * f(at - h) + 8 * f(at + h) - f(at + 2 * h)) / 12
        # Fourth order: h^4 of the truncation, eps / h of the rounding.
        np.testing.assert_allclose(central / h, slope, rtol=1e-9)


@pytest.mark.parametrize(("w2", "b2", "q", "chi"), SCHOENHOLZ)
def test_fixed_points_are_those_of_the_reference(w2, b2, q, chi):
    gains = {"weight_gain": w2**0.5, "bias_std": b2**0.5}
    assert abs(theory.fixed_point("tanh", **gains) - q) < 1e-11
    assert abs(theory.chi("tanh", **gains) - chi) < 1e-11


def test_the_critical_line_is_that_of_the_reference():
    found = theory.critical_gain("tanh", bias_std=np.sqrt([0, 0.05, 0.3])) ** 2
    expected = [1, 1.7609546396, 2.5051271897]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    for b2, q in ((0.05, 0.5700478817), (0.3, 1.4611694469)):
        w = theory.critical_gain("tanh", bias_std=b2**0.5)
        found = theory.fixed_point("tanh", weight_gain=w, bias_std=b2**0.5)
        assert abs(found - q) < 1e-10


def test_exponents_of_a_wide_random_network_are_those_of_the_reference():
    found = theory.leading_exponent(np.array([1.5, 2, 3, 4, 10]))
    expected = [0.065217, 0.154724, 0.310249, 0.432878, 0.856435]
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)
    quiet = theory.leading_exponent(np.array([0, 0.5, 1]))
    np.testing.assert_array_equal(quiet, [-np.inf, np.log(0.5), 0])
    tiny = theory.leading_exponent(1e-200)
    np.testing.assert_allclose(tiny, -200 * np.log(10), rtol=1e-14)


@pytest.mark.parametrize("gain", [1.1, 2.0, 50.0])
def test_chi_of_erf_is_known_in_closed_form(gain):
    q = theory.fixed_point("erf", weight_gain=gain, bias_std=0.3)
    found = theory.chi("erf", weight_gain=gain, bias_std=0.3)
    np.testing.assert_allclose(found, gain**2 / np.sqrt(1 + np.pi * q), rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("gain", "bias"), [(0.5, 0.3), (1.2, 0.1), (1.4, 1e-3)])
def test_iterating_the_map_comes_to_the_fixed_point_at_rate_xi(name, gain, bias):
    gains = {"weight_gain": gain, "bias_std": bias}
    fixed = theory.fixed_point(name, **gains)
    scale = theory.depth_scales(name, **gains).variance
    q = [fixed * 1.01]
    for _ in range(1200):
        q.append(theory.variance_map(q[-1], name, **gains))
    # Over the layers where the distance is small, but not lost in rounding.
    distance = np.abs(np.array(q) / fixed - 1)
    late = np.flatnonzero((distance < 1e-5) & (distance > 1e-9))
    slope = np.polyfit(late, np.log(distance[late]), 1)[0]
    np.testing.assert_allclose(-1 / slope, scale, rtol=1e-4)
    assert distance[-1] < 1e-12 or scale > 40


@pytest.mark.parametrize("name", ["tanh", "erf", "hard_tanh"])
@pytest.mark.parametrize("gain", [1.0, 1.5, 3.0, 30.0])
def test_correlations_come_to_their_fixed_point_at_rate_xi(name, gain):
    gains = {"weight_gain": gain, "bias_std": 0.3}
    q, of = theory.fixed_point(name, **gains), overlaps(name)
    scale = theory.depth_scales(name, **gains).correlation
    gaps = [0.5]
    for _ in range(2000):
        gaps.append(float(gain**2 * of.lost(q, gaps[-1]) / q))
    fixed = gaps[-1] if gaps[-1] > 1e-6 else 0.0
    assert (fixed == 0) == (theory.chi(name, **gains) < 1)
    distance = np.abs(np.array(gaps) - fixed)
    # With a kink, corrections fall off only as the root of the distance.
    late = np.flatnonzero((distance < 1e-6) & (distance > 1e-11))
    slope = np.polyfit(late[:60], np.log(distance[late[:60]]), 1)[0]
    np.testing.assert_allclose(-1 / slope, scale, rtol=1e-3)


def test_without_bias_chaos_forgets_all_correlation():
    # c* = 0, where the slope is sigma_w^2 (E phi')^2.
    gain = 2.0
    q = theory.fixed_point("tanh", weight_gain=gain)
    assert abs(q - 2.121473568203) < 1e-11
    with mpmath.workdps(25):
        mean = mpmath.quad(
            lambda z: SLOPE["tanh"](mpmath.sqrt(q) * z) * mpmath.npdf(z), [-12, 0, 12]
        )
    slope = gain**2 * float(mean) ** 2
    found = theory.depth_scales("tanh", weight_gain=gain).correlation
    np.testing.assert_allclose(found, -1 / np.log(slope), rtol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "erf", "hard_tanh"])
def test_signals_die_out_up_to_gain_one_and_not_beyond(name):
    found = theory.fixed_point(name, weight_gain=np.array([0, 0.7, 1, 1 + 1e-6]))
    assert np.all(found[:3] == 0)
    assert found[3] > 0
    scales = theory.depth_scales(name, weight_gain=np.array([0.0, 0.5, 1.0]))
    expected = [0, -1 / np.log(0.25), np.inf]
    np.testing.assert_array_equal(scales.variance, expected)
    np.testing.assert_array_equal(scales.correlation, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [0.0, 1e-6, 0.2, 3.0])
def test_chi_is_one_at_the_critical_gain(name, bias):
    gain = theory.critical_gain(name, bias_std=bias)
    chi = theory.chi(name, weight_gain=gain, bias_std=bias)
    np.testing.assert_allclose(chi, 1, rtol=1e-9)
    more = theory.chi(name, weight_gain=1.01 * gain, bias_std=bias)
    assert more > 1.0001


def test_relu_is_known_in_closed_form():
    gains = {"weight_gain": np.array([1.0, 1.5]), "bias_std": 0.5}
    np.testing.assert_array_equal(theory.fixed_point("relu", **gains), [0.5, np.inf])
    np.testing.assert_array_equal(theory.chi("relu", **gains), [0.5, 1.125])
    scales = theory.depth_scales("relu", **gains)
    np.testing.assert_allclose(scales.variance, [1 / np.log(2), np.inf])
    np.testing.assert_allclose(scales.correlation, [1 / np.log(2), np.inf])
    assert theory.critical_gain("relu", bias_std=0.5) == 2**0.5


def test_numbers_come_back_as_floats_and_arrays_in_their_shape():
    assert type(theory.chi("tanh", weight_gain=1.5)) is float
    grid = theory.fixed_point(
        "tanh", weight_gain=np.array([[1.0], [2.0]]), bias_std=np.array([0.1, 0.2, 0.3])
    )
    assert grid.shape == (2, 3)
    one = theory.fixed_point("tanh", weight_gain=2.0, bias_std=0.2)
    assert grid[1, 1] == one


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.chi("gelu", weight_gain=1.0), "`activation` must be one of"),
        (lambda: theory.chi("tanh", weight_gain=-1.0), "`weight_gain` must be finite"),
        (
            lambda: theory.fixed_point("tanh", weight_gain=1.0, bias_std=np.nan),
            "`bias_std` must be finite",
        ),
        (lambda: theory.leading_exponent("2"), "`gain` must be finite"),
        (
            lambda: theory.chi("tanh", weight_gain=np.ones(2), bias_std=np.ones(3)),
            r"`weight_gain`, `bias_std` must have shapes that .* have \(2,\), \(3,",
        ),
        (
            lambda: theory.variance_map([1.0, -1.0], "tanh", weight_gain=1.0),
            "`q` must be finite and at least 0",
        ),
    ],
)
def test_wrong_numbers_are_refused_by_name(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_traced_numbers_are_refused_by_name():
    with pytest.raises(TypeError, match="`gain` must be concrete, .* but is traced"):
        jax.jit(theory.leading_exponent)(2.0)


# E phi'^2 of a wide u times its standard deviation: the integral of phi'^2, which is
# 4/3 for tanh, sqrt 2 for erf and 2 for hard tanh, over sqrt(2 pi).
SLOPE_BY_SIZE = {
    "tanh": 4 / 3 / np.sqrt(2 * np.pi),
    "erf": np.sqrt(2) / np.sqrt(2 * np.pi),
    "hard_tanh": 2 / np.sqrt(2 * np.pi),
}


@pytest.mark.parametrize("name", SLOPE_BY_SIZE)
@pytest.mark.parametrize(
    ("gain", "bias"), [(1e155, 0.0), (1.5, 1e200), (3e200, 4e200), (1e308, 1.7e308)]
)
def test_huge_gains_and_biases_make_signs_of_units(name, gain, bias):
    numbers = {"weight_gain": gain, "bias_std": bias}
    assert theory.fixed_point(name, **numbers) == np.inf
    size = mpmath.sqrt(mpmath.mpf(gain) ** 2 + mpmath.mpf(bias) ** 2)
    chi = mpmath.mpf(gain) ** 2 * SLOPE_BY_SIZE[name] / size
    np.testing.assert_allclose(theory.chi(name, **numbers), float(chi), rtol=1e-13)
    # Signs: C(c) = s (2 / pi) arcsin(c) + 1 - s with the share s of the weights.
    share = float((gain / size) ** 2)
    scales = theory.depth_scales(name, **numbers)
    if chi < 1:
        expected = -1 / float(mpmath.log(chi))
    elif share == 1:
        expected = -1 / np.log(2 / np.pi)
    else:
        angle = mpmath.findroot(
            lambda x: share * 2 / mpmath.pi * x - 1 + mpmath.cos(x), 4 * share / np.pi
        )
        slope = share * 2 / mpmath.pi / mpmath.sin(angle)
        expected = -1 / float(mpmath.log(slope))
    np.testing.assert_allclose(scales.correlation, expected, rtol=1e-12)
    # V(q) = gain^2 (1 - O(q^-1/2)): its slope is about gain^2 / size^3.
    assert abs(scales.variance * 3 * mpmath.log(size / gain ** (2 / 3)) - 1) < 0.01


@pytest.mark.parametrize("name", SLOPE_BY_SIZE)
def test_what_is_large_goes_over_into_signs_without_a_step(name):
    for ratio in (0.0, 3.0):
        below, above = (
            theory.depth_scales(name, weight_gain=w, bias_std=ratio * w)
            for w in (2e16, 4e17)
        )
        np.testing.assert_allclose(below.correlation, above.correlation, rtol=1e-12)
        np.testing.assert_allclose(below.variance, above.variance, rtol=0.2)


def test_the_chaotic_correlation_of_hard_tanh_is_that_of_its_maps_at_large_gains():
    # At size w the step is w^-1 away from a sign.
    for gain in (1e3, 1e5, 1e7, 1e12):
        found = theory.depth_scales("hard_tanh", weight_gain=gain).correlation
        expected = -1 / np.log(2 / np.pi)
        assert abs(found / expected - 1) < 10 / gain


@pytest.mark.parametrize("name", SLOPE_BY_SIZE)
@pytest.mark.parametrize("bias", [1e20, 1e80, 1e150, 1e200])
def test_the_critical_gain_grows_as_the_root_of_the_bias(name, bias):
    found = theory.critical_gain(name, bias_std=bias)
    expected = np.sqrt(bias / SLOPE_BY_SIZE[name])
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_relu_beyond_floats_reads_as_its_linear_maps_say():
    assert theory.fixed_point("relu", weight_gain=1.0, bias_std=1e200) == np.inf
    scales = theory.depth_scales("relu", weight_gain=1.0, bias_std=1e200)
    np.testing.assert_allclose(scales, 1 / np.log(2), rtol=1e-14)
    assert theory.chi("relu", weight_gain=1e155) == np.inf
    assert theory.depth_scales("relu", weight_gain=1e155) == (np.inf, np.inf)
    # -1 / log(gain^2 / 2), where the square underflows
    scales = theory.depth_scales("relu", weight_gain=1e-200)
    np.testing.assert_allclose(scales, 1 / (400 * np.log(10) + np.log(2)), rtol=1e-13)


def test_variances_that_overflow_are_infinite_and_those_that_need_not_do_not():
    assert theory.variance_map(1.0, "tanh", weight_gain=1e200) == np.inf
    found = theory.variance_map(1e-300, "tanh", weight_gain=1e200)
    np.testing.assert_allclose(found, 1e100, rtol=1e-13)
    np.testing.assert_allclose(
        theory.leading_exponent(1e200),
        np.log(1e200 * SLOPE_BY_SIZE["tanh"]) / 2,
        rtol=1e-14,
    )
