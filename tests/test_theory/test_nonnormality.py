import inspect
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import optimize

from vgjax import theory

SHIFT = np.eye(6, k=1)


def random(seed, N=6, radius=0.9):
    W = np.random.default_rng(seed).standard_normal((N, N))
    return radius * W / np.abs(np.linalg.eigvals(W)).max()


def sheared(seed, N, radius):
    """A row that the others are fed into, far from normal."""
    W = np.random.default_rng(seed).standard_normal((N, N)) / N**0.5
    W[1:, 0], W[0, 1:] = 0, 4
    return radius * W / np.abs(np.linalg.eigvals(W)).max()


def normal(seed, values=(1.0, -0.5, 0.3)):
    N = len(values)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))[0]
    return Q @ np.diag(values) @ Q.T


def rotation(seed, N=5):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))[0]


def norm_of_power(W, t):
    return np.linalg.norm(np.linalg.matrix_power(W, t), 2)


@pytest.mark.parametrize("N", [1, 2, 5, 8])
def test_departure_of_a_shift_is_that_of_the_reference(N, dtype, tolerance):
    W = jnp.eye(N, k=1, dtype=dtype)
    found = theory.henrici_departure(W)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.sqrt(N - 1), atol=tolerance(1e-14, 1e-5))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_departure_is_what_the_norm_has_beyond_the_eigenvalues(seed, dtype, tolerance):
    W = random(seed)
    with mpmath.workdps(40):
        values = mpmath.eig(mpmath.matrix(W.tolist()), left=False, right=False)
        if isinstance(values, tuple):
            values = values[0]
        beyond = mpmath.fsum(mpmath.mpf(x) ** 2 for x in W.ravel())
        beyond -= mpmath.fsum(abs(v) ** 2 for v in values)
        expected = float(mpmath.sqrt(beyond))
    found = theory.henrici_departure(jnp.asarray(W, dtype))
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-13, 1e-5))


@pytest.mark.parametrize("make", [normal, rotation])
def test_departure_of_a_normal_matrix_is_round_off_not_its_root(make, dtype, tolerance):
    found = theory.henrici_departure(jnp.asarray(make(1), dtype))
    assert found < tolerance(1e-14, 1e-5)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_departure_is_proportional_where_squares_leave_the_range(
    size, dtype, tolerance
):
    W = size * jnp.eye(5, k=1, dtype=dtype)
    found = theory.henrici_departure(W)
    np.testing.assert_allclose(found, 2 * size, rtol=tolerance(1e-14, 1e-6))
    sheared = size * jnp.asarray([[1.0, 3.0], [0.0, 0.5]], dtype)
    condition = theory.eigenvector_condition(sheared)
    np.testing.assert_allclose(condition, 12.0828, rtol=1e-4)


def test_departure_runs_under_jit_and_vmap(dtype, tolerance):
    W = jnp.asarray(np.stack([SHIFT, 2 * SHIFT]), dtype)
    found = jax.jit(jax.vmap(theory.henrici_departure))(W)
    np.testing.assert_allclose(found, [5**0.5, 2 * 5**0.5], rtol=tolerance(1e-14, 1e-6))


@pytest.mark.parametrize("N", [1, 2, 3, 6, 9])
def test_numerical_radius_of_a_shift_is_that_of_the_reference(N):
    found = theory.numerical_radius(np.eye(N, k=1))
    assert abs(found - (np.cos(np.pi / (N + 1)) if N > 1 else 0)) < 1e-12


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_numerical_radius_is_the_maximum_over_a_fine_grid(seed):
    W = random(seed, N=5)

    def height(angle):
        turned = np.exp(1j * angle) * W
        return np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1]

    grid = np.linspace(0, np.pi, 2001)
    heights = [height(a) for a in grid]
    at, h = grid[np.argmax(heights)], grid[1]
    peak = optimize.minimize_scalar(
        lambda a: -height(a), bounds=(at - h, at + h), options={"xatol": 1e-9}
    )
    best = max(-peak.fun, max(heights))
    np.testing.assert_allclose(theory.numerical_radius(W), best, rtol=1e-10)


def test_numerical_radius_finds_the_highest_of_many_narrow_peaks():
    # The hull of points: a corner at each, and the farthest one hidden among them.
    angles = np.array([0.1, 0.5, 0.9, 1.3, 1.7, 2.1, 2.5, 2.9])
    radii = np.full(8, 1.0)
    radii[5] += 1e-7
    blocks = [
        r * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        for r, a in zip(radii, angles, strict=True)
    ]
    W = np.zeros((16, 16))
    for k, block in enumerate(blocks):
        W[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    assert abs(theory.numerical_radius(W) - (1 + 1e-7)) < 1e-10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_numerical_radius_bounds_norms_of_powers(seed):
    W = random(seed)
    w, norm = theory.numerical_radius(W), np.linalg.norm(W, 2)
    assert w <= norm * (1 + 1e-12) <= 2 * w * (1 + 1e-12)
    for t in (1, 2, 5, 20):
        assert norm_of_power(W, t) <= 2 * w**t * (1 + 1e-12)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 3.0])
@pytest.mark.parametrize("make", [normal, rotation])
def test_pseudospectral_radius_of_a_normal_matrix_is_its_radius_and_epsilon(
    make, epsilon
):
    found = theory.pseudospectral_radius(make(2), epsilon)
    np.testing.assert_allclose(found, 1 + epsilon, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 3.0])
def test_pseudospectral_radius_of_a_shear_is_known_in_closed_form(epsilon):
    # sigma_min of [[x, -b], [0, x]] is sqrt(x^2 + b^2/4) - b/2 at real x = z - a.
    a, b = 0.9, 5.0
    expected = a + np.sqrt(epsilon**2 + epsilon * b)
    found = theory.pseudospectral_radius(np.array([[a, b], [0, a]]), epsilon)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pseudospectral_radius_is_the_farthest_point_of_a_search(seed):
    W, epsilon = random(seed, N=4), 0.05

    def reach(angle):
        direction = np.exp(1j * angle)
        distance = lambda r: (  # noqa: E731
            np.linalg.svd(r * direction * np.eye(4) - W, compute_uv=False)[-1] - epsilon
        )
        # From far outside inwards to the first crossing.
        radii = np.linspace(4, 0, 200)
        inside = [r for r in radii if distance(r) < 0]
        if not inside:
            return 0.0
        return optimize.brentq(distance, inside[0], inside[0] + radii[0] - radii[1])

    grid = np.linspace(0, np.pi, 80)
    at = grid[np.argmax([reach(a) for a in grid])]
    peak = optimize.minimize_scalar(
        lambda a: -reach(a), bounds=(at - 0.04, at + 0.04), options={"xatol": 1e-8}
    )
    found = theory.pseudospectral_radius(W, epsilon)
    np.testing.assert_allclose(found, max(-peak.fun, reach(0.0)), rtol=1e-9)


@pytest.mark.parametrize("b", [2.5, 3.0, 100.0])
def test_kreiss_constant_of_a_nilpotent_matrix_is_known_on_paper(b):
    # ||(z - W)^-1|| = x (b x / 2 + sqrt(1 + b^2 x^2 / 4)) with x = 1 / |z|.
    with mpmath.workdps(40):

        def height(x):
            return (1 - x) * (b * x / 2 + mpmath.sqrt(1 + b**2 * x**2 / 4))

        start = max((k / 1000 for k in range(1, 1000)), key=height)
        x = mpmath.findroot(lambda x: mpmath.diff(height, x), start)
        expected = float(height(x))
    if b == 3:
        assert abs(expected - 13 / 12) < 1e-15
    found = theory.kreiss_constant(np.array([[0, b], [0, 0]]))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_kreiss_constant_of_a_shear_is_known_on_paper():
    # With x = r - a: (x + a - 1) / (sqrt(x^2 + b^2/4) - b/2); a = 0.9, b = 5: 12.52.
    with mpmath.workdps(40):
        a, b = mpmath.mpf(9) / 10, 5

        def height(x):
            return (x + a - 1) / (mpmath.sqrt(x**2 + mpmath.mpf(b) ** 2 / 4) - b / 2.0)

        x = mpmath.findroot(lambda x: mpmath.diff(height, x), 0.2)
        expected = float(height(x))
    assert abs(expected - 12.52) < 1e-9
    found = theory.kreiss_constant(np.array([[0.9, 5.0], [0, 0.9]]))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kreiss_constant_is_the_largest_excess_of_pseudospectra(seed):
    W = sheared(seed, 4, 0.95)

    def excess(log_epsilon):
        epsilon = math.exp(log_epsilon)
        return (theory.pseudospectral_radius(W, epsilon) - 1) / epsilon

    grid = np.linspace(-6, 4, 60)
    at = grid[np.argmax([excess(x) for x in grid])]
    peak = optimize.minimize_scalar(
        lambda x: -excess(x), bounds=(at - 0.2, at + 0.2), options={"xatol": 1e-7}
    )
    np.testing.assert_allclose(theory.kreiss_constant(W), -peak.fun, rtol=1e-8)


@pytest.mark.parametrize(("gap", "rtol"), [(1e-2, 1e-9), (1e-6, 1e-8)])
def test_kreiss_constant_of_a_shear_near_the_circle_is_known_on_paper(gap, rtol):
    b = 3.0
    with mpmath.workdps(60):
        # The height above, with d = 1 - a: largest at x = b^2 d / 2 / (b^2 / 4 - d^2).
        d, c = 1 - mpmath.mpf(1 - gap), mpmath.mpf(b) / 2
        x = 2 * c**2 * d / (c**2 - d**2)
        expected = float((x - d) / (mpmath.sqrt(x**2 + c**2) - c))
    found = theory.kreiss_constant(np.array([[1 - gap, b], [0, 1 - gap]]))
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_kreiss_constant_of_a_double_unit_eigenvalue_is_that_of_both():
    # Projector [[1, Y], [0, 0]] on two dimensions: its norm is sqrt(1 + |Y|^2).
    W = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.6], [0.0, 0.0, 0.25]])
    Y = np.array([0.9, 0.6]) / 0.75
    found = theory.kreiss_constant(W)
    np.testing.assert_allclose(found, np.sqrt(1 + Y @ Y), rtol=1e-9)


def test_kreiss_constant_at_the_circle_is_the_norm_of_the_projector():
    # The projector on (1, 0) along (6, -1): cosecant of the angle between the two.
    W = np.array([[1.0, 3.0], [0.0, 0.5]])
    found = theory.kreiss_constant(W)
    np.testing.assert_allclose(found, np.sqrt(37), rtol=1e-9)


@pytest.mark.parametrize(
    "W", [normal(1), rotation(1), np.eye(3), np.array([[0, 2.0], [0, 0]]), 0 * SHIFT]
)
def test_kreiss_constant_is_one_if_the_numerical_radius_is(W):
    assert theory.kreiss_constant(W) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("radius", [0.6, 0.99])
def test_kreiss_constant_holds_transient_growth_from_both_sides(seed, radius):
    W = sheared(seed, 5, radius)
    K = theory.kreiss_constant(W)
    peak = math.exp(theory.transient_growth(W).log_peak)
    assert 1 < K <= peak * (1 + 1e-9)
    assert peak <= math.e * 5 * K


@pytest.mark.parametrize(("a", "b"), [(0.9, 5.0), (0.999, 0.1), (0.5, 0.1)])
def test_transient_growth_of_a_shear_is_known_in_closed_form(a, b):
    t = np.arange(20_000)
    logs = t * np.log(a) + np.arcsinh(t * b / a / 2)
    found = theory.transient_growth(np.array([[a, b], [0, a]]))
    assert found.step == np.argmax(logs)
    assert abs(found.log_peak - logs.max()) < 1e-10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_transient_growth_is_the_largest_norm_of_very_many_powers(seed):
    W = sheared(seed, 5, 0.995)
    norms = [norm_of_power(W, t) for t in range(2000)]
    found = theory.transient_growth(W)
    np.testing.assert_allclose(math.exp(found.log_peak), max(norms), rtol=1e-9)
    assert found.step == np.argmax(norms)


def test_a_late_peak_is_not_missed_behind_an_early_fall():
    # Falls from 2 to 1.0002 in one step, and rises to 37 a hundred steps later.
    early = np.array([[0.0, 2.0], [0.0, 0.0]])
    late = np.array([[0.99, 1.0], [0.0, 0.99]])
    W = np.block([[early, np.zeros((2, 2))], [np.zeros((2, 2)), late]])
    t = np.arange(1000)
    logs = t * np.log(0.99) + np.arcsinh(t / 0.99 / 2)
    found = theory.transient_growth(W)
    assert found.step == np.argmax(logs)
    assert abs(found.log_peak - logs.max()) < 1e-10


def test_growth_that_is_only_approached_is_found_to_rounding():
    W = np.array([[1.0, 3.0], [0.0, 0.5]])
    found = theory.transient_growth(W)
    # W^t tends to the projector.
    assert abs(found.log_peak - np.log(37) / 2) < 1e-11


@pytest.mark.parametrize("W", [normal(1), rotation(2), np.eye(2), 0 * SHIFT])
def test_contractions_peak_at_the_start(W):
    assert theory.transient_growth(W) == (0.0, 0)


def test_degenerate_matrices_read_as_documented():
    unbounded = [1.01 * np.eye(2), np.array([[1.0, 1.0], [0.0, 1.0]])]
    for W in unbounded:
        assert theory.kreiss_constant(W) == np.inf
        assert theory.transient_growth(W) == (np.inf, -1)
    for bad in (np.nan, np.inf):
        W = np.array([[1.0, bad], [0.0, 1.0]])
        assert np.isnan(theory.henrici_departure(jnp.asarray(W)))
        assert np.isnan(theory.numerical_radius(W))
        assert np.isnan(theory.pseudospectral_radius(W, 0.1))
        assert np.isnan(theory.kreiss_constant(W))
        assert np.isnan(theory.transient_growth(W).log_peak)
    undecided = theory.transient_growth(np.array([[0.99, 9.0], [0.0, 0.99]]), limit=5)
    assert np.isnan(undecided.log_peak)
    assert undecided.step == -1
    # A unit eigenvalue beside a defective one inside the circle.
    W = np.array([[1.0, 0, 0], [0, 0.5, 1], [0, 0, 0.5]])
    assert np.isfinite(theory.kreiss_constant(W))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("henrici_departure", (jnp.ones((2, 3)),), ValueError, r"`W` .* \(N, N\)"),
        ("numerical_radius", (np.ones(2),), ValueError, r"`W` .* \(N, N\)"),
        ("kreiss_constant", (np.eye(2, dtype=int),), TypeError, "`W` must be real"),
        ("pseudospectral_radius", (np.eye(2), 0.0), ValueError, "`epsilon` must be"),
        ("transient_growth", (np.ones((1, 2)),), ValueError, r"`W` .* \(N, N\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, arguments, error, match):
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(theory, name))(*arguments)


def test_a_traced_matrix_is_refused_by_name():
    with pytest.raises(TypeError, match="`W` must be concrete, outside of `jit`"):
        jax.jit(theory.numerical_radius)(np.eye(2, dtype=np.float32))


@pytest.mark.parametrize("size", [1e300, 1e200, 1e-200, 1e-300])
def test_radii_of_a_matrix_of_any_size_are_those_of_it_near_one(size):
    W = np.random.default_rng(3).standard_normal((4, 4))
    for epsilon in (0.1, 1e-3):
        expected = theory.pseudospectral_radius(W, epsilon)
        found = theory.pseudospectral_radius(W * size, epsilon * size)
        np.testing.assert_allclose(found / size, expected, rtol=1e-9)
    found = theory.numerical_radius(W * size) / size
    np.testing.assert_allclose(found, theory.numerical_radius(W), rtol=1e-9)


def test_the_pseudospectrum_of_the_largest_or_the_zero_matrix_is_known():
    top = 1.7e308
    # Of a multiple of the identity, a normal matrix: its radius and epsilon.
    found = theory.pseudospectral_radius(top * np.eye(2), 1.0)
    np.testing.assert_allclose(found, top, rtol=1e-9)
    # Twice that is no float.
    assert theory.pseudospectral_radius(np.full((2, 2), top), 1.0) == np.inf
    assert theory.kreiss_constant(np.full((2, 2), top)) == np.inf
    assert theory.transient_growth(np.full((2, 2), top)).log_peak == np.inf
    found = theory.pseudospectral_radius(np.zeros((2, 2)), 0.25)
    np.testing.assert_allclose(found, 0.25, rtol=1e-9)
    found = theory.pseudospectral_radius(1e-300 * np.eye(2), 1.0)
    np.testing.assert_allclose(found, 1.0, rtol=1e-9)
