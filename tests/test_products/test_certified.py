"""Enclosures with a proof, against mpmath, closed forms and kept products."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
import systems

from vgjax import products

flint = pytest.importorskip("flint")
from vgjax.products import _balls, _enclosures, _host, _records  # noqa: E402

DATA = sorted((pathlib.Path(__file__).parents[1] / "data").glob("*.npz"))


def assert_holds(found, answer):
    """Every value is within its radius of the answer, itself rounded to float64."""
    values, radius = found.log_singular_values, found.radius
    answer = np.broadcast_to(answer, values.shape)
    lost = np.isneginf(answer)
    np.testing.assert_array_equal(np.isneginf(values), lost)
    np.testing.assert_array_equal(found.rank, (~lost).sum(-1))
    assert (radius[lost] == 0).all()
    ulp = np.spacing(np.abs(values[~lost]))
    assert (np.abs(values[~lost] - answer[~lost]) <= radius[~lost] + ulp).all()
    assert (radius[~lost] <= 1e-12 + ulp).all()
    assert (values[:, 1:] <= values[:, :-1]).all()


# Small products, against mpmath -------------------------------------------------------


def full(rng):
    return rng.standard_normal((7, 3, 3))


def graded(rng):
    chain = rng.standard_normal((7, 3, 3))
    return chain * 10.0 ** rng.integers(-12, 12, (7, 3, 1))


def integer(rng):
    return rng.integers(-2, 3, (7, 3, 3)).astype(float)


def deficient(rng):
    left = rng.integers(-3, 4, (7, 4, 2))
    right = rng.integers(-3, 4, (7, 2, 4))
    return (left @ right).astype(float)


def nilpotent(rng):
    return np.array([np.triu(rng.standard_normal((4, 4)), 1) for _ in range(7)])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", [full, graded, integer, deficient, nilpotent])
def test_small_products_agree_with_mpmath(kind, seed):
    chain = kind(np.random.default_rng(seed))
    every, reverse = 1 + seed % 3, seed % 2 == 1
    forward = np.swapaxes(chain[::-1], 1, 2) if reverse else chain
    times = range(every, 8, every)
    answer = oracles.log_singular_values(forward, times, 300)
    found = products.certified_spectrum(chain, every=every, reverse=reverse)
    assert found.steps.tolist() == list(times)
    assert_holds(found, [answer[t] for t in times])


# Closed forms -------------------------------------------------------------------------


def test_telescoping_product_has_the_sums_of_its_scales():
    chain, answer = systems.telescoping(1, systems.cosines())
    found = products.certified_spectrum(chain, every=500)
    # Its factors are rounded, each value by some eps at every step.
    np.testing.assert_allclose(found.log_singular_values[0], answer[-1], atol=1e-10)
    assert found.radius.max() < 2e-13


def test_ring_has_degenerate_pairs():
    chain, answer = systems.ring(16, 0.1, 400)
    found = products.certified_spectrum(chain, every=400)
    np.testing.assert_allclose(found.log_singular_values, answer[-1:], atol=1e-10)
    assert found.radius.max() < 1e-13


def test_cat_map_is_right_to_the_last_digit():
    T = 2000
    chain = np.broadcast_to([[2.0, 1.0], [1.0, 1.0]], (T, 2, 2))
    with mpmath.workdps(40):
        rate = mpmath.log((3 + mpmath.sqrt(5)) / 2)
        answer = [float(T * rate), float(-T * rate)]
    assert_holds(products.certified_spectrum(chain, every=T), answer)


def test_shear_outgrows_its_radius_by_the_closed_form():
    a, b, T = 0.9, 5.0, 200
    with mpmath.workdps(60):
        tau = T * mpmath.mpf(b) / mpmath.mpf(a)
        excess, slow = mpmath.asinh(tau / 2), T * mpmath.log(mpmath.mpf(a))
        answer = [float(slow + excess), float(slow - excess)]
    chain = np.repeat([[[a, b], [0.0, a]]], T, 0)
    assert_holds(products.certified_spectrum(chain, every=T), answer)


def test_powers_of_two_on_a_diagonal_are_counted():
    exponents = np.random.default_rng(1).integers(-900, 900, (40, 5))
    chain = np.array([np.diag(2.0**e) for e in exponents])
    totals = -np.sort(-np.cumsum(exponents, 0), axis=1)
    with mpmath.workdps(40):
        answer = [[float(int(k) * mpmath.log(2)) for k in row] for row in totals]
    assert_holds(products.certified_spectrum(chain), answer)


def test_rank_one_keeps_one_value():
    u, v, T = np.array([1.0, -2, 3, 0]), np.array([2.0, 1, 1, 5]), 100
    chain = np.repeat(np.outer(u, v)[None], T, 0)
    with mpmath.workdps(40):
        norms = mpmath.log(mpmath.mpf(14) * 31) / 2
        first = [float(norms + t * mpmath.log(3)) for t in range(T)]
    answer = np.full((T, 4), -np.inf)
    answer[:, 0] = first
    assert_holds(products.certified_spectrum(chain), answer)


def test_product_of_subnormal_numbers_is_exact():
    chain = np.full((3, 1, 1), 5e-324)
    with mpmath.workdps(40):
        answer = [[float(-1074 * t * mpmath.log(2))] for t in (1, 2, 3)]
    assert_holds(products.certified_spectrum(chain), answer)


# Where floats fail --------------------------------------------------------------------


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_kept_products_of_networks_are_right(path):
    case = np.load(path)
    every = int(np.gcd.reduce(case["steps"]))
    found = products.certified_spectrum(case["jacobians"], every=every)
    rows = case["steps"] // every - 1
    assert_holds(
        products.CertifiedSpectrum(*(field[rows] for field in found)),
        case["log_singular_values"],
    )


def decoupled():
    """diag(a, rotation by 1 rad), a = 1/2 for 100 steps, then 2: all values are 1."""
    chain = np.zeros((200, 3, 3))
    chain[:, 0, 0] = np.repeat([0.5, 2.0], 100)
    chain[:, 1:, 1:] = [[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]
    return chain


def test_part_that_shrinks_and_grows_again_is_kept():
    found = products.certified_spectrum(decoupled(), every=100)
    np.testing.assert_allclose(found.log_singular_values[1], 0, atol=1e-13)
    np.testing.assert_allclose(
        found.log_singular_values[0], [0, 0, -100 * np.log(2)], atol=1e-13
    )


def test_float32_factors_are_taken_for_the_numbers_they_are():
    chain = systems.gaussian_chain(1, 4, 20).astype(np.float32)
    found = products.certified_spectrum(chain)
    same = products.certified_spectrum(chain.astype(np.float64))
    np.testing.assert_array_equal(found.log_singular_values, same.log_singular_values)
    assert found.log_singular_values.dtype == np.float64


def test_jax_arrays_and_lists_are_factors_too():
    chain = systems.gaussian_chain(1, 3, 5).astype(np.float32)
    expected = products.certified_spectrum(chain).log_singular_values
    for given in (jnp.asarray(chain), list(chain)):
        found = products.certified_spectrum(given).log_singular_values
        np.testing.assert_array_equal(found, expected)


def test_radius_that_is_asked_for_is_kept_until_rounding_exceeds_it():
    chain = systems.tanh_chain(1, 4, 1.2, 100)
    coarse = products.certified_spectrum(chain, every=50, radius=0.05)
    fine = products.certified_spectrum(chain, every=50, radius=1e-40)
    half = np.spacing(np.abs(fine.log_singular_values)) / 2
    assert (fine.radius <= 1.01 * half).all()
    assert (coarse.radius <= 0.05 + half).all()
    error = np.abs(coarse.log_singular_values - fine.log_singular_values)
    assert (error <= coarse.radius + fine.radius).all()


def test_nothing_is_known_from_a_factor_that_is_not_finite_on():
    chain = systems.gaussian_chain(1, 3, 9)
    expected = products.certified_spectrum(chain, every=2)
    for bad in (np.nan, np.inf):
        spoilt = chain.copy()
        spoilt[5, 1, 1] = bad
        found = products.certified_spectrum(spoilt, every=2)
        assert found.rank.tolist() == [3, 3, -1, -1]
        for field, whole in zip(found[1:3], expected[1:3], strict=True):
            np.testing.assert_array_equal(field[:2], whole[:2])
            assert np.isnan(field[2:]).all()
        assert np.isnan(products.sensitivity(spoilt, every=2)[2:]).all()
    first = products.certified_spectrum(np.full((2, 2, 2), np.nan))
    assert first.rank.tolist() == [-1, -1]


# The proof ----------------------------------------------------------------------------


def test_too_few_digits_prove_nothing():
    chain = systems.tanh_chain(1, 4, 1.2, 60)
    factors = _balls.Factors(chain)
    proved = []
    for bits in (53, 100, 2000):
        with _balls.ctx.workprec(bits):
            phi = _balls.product(factors, 0, 60)
            proved.append(_enclosures.enclosed_logs(phi, 4, 1e-12, 200) is not None)
    assert proved == [False, False, True]


def test_wrong_values_and_wrong_vectors_are_not_proved():
    A = np.random.default_rng(1).standard_normal((1, 3, 3))
    U, s, _ = np.linalg.svd(A[0])

    def proved(U, s, radius=1e-12):
        with _balls.ctx.workprec(200):
            phi = _balls.product(_balls.Factors(A), 0, 1)
            exact = _balls.arb_mat(3, 3, U.ravel().tolist())
            values = [_balls.arb(float(x)) for x in s]
            return _enclosures._proved(phi, exact, values, [0, 1, 2], 200, radius)

    assert proved(U, s) is not None
    assert proved(U, s * (1 + 1e-9)) is None
    assert proved(U * (1 + 1e-9), s) is None
    # Here Z is orthonormal all the same.
    assert proved(U * (1 + 1e-9), s * (1 + 1e-9)) is None
    tilted = U.copy()
    tilted[:, 0] += 1e-9 * U[:, 1]
    assert proved(tilted, s) is None
    # Where so much is allowed, the radius tells how much it is.
    for ball, truth in zip(proved(U, s * (1 + 1e-9), 1e-6), s, strict=True):
        value, radius = _balls.rounded(ball)
        assert 5e-10 < abs(value - np.log(truth)) < radius < 1e-8


def test_vectors_outside_of_the_range_are_not_proved():
    A = np.array([[[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]])

    def proved(angle):
        u = np.array([np.cos(angle), 2 * np.cos(angle), np.sqrt(5) * np.sin(angle)])
        with _balls.ctx.workprec(200):
            phi = _balls.product(_balls.Factors(A), 0, 1)
            U = _balls.arb_mat(3, 1, u.tolist())
            U = (U * (1 / _enclosures._norm(U))).mid()
            # Unit vectors U and Z, whatever the angle: these alone would prove it.
            values = [_enclosures._norm(phi.transpose() * U).mid()]
            return _enclosures._proved(phi, U, values, [1], 200, 1e-12)

    (value,) = proved(0.0)
    assert _balls.rounded(value)[0] == pytest.approx(np.log(5), abs=1e-15)
    assert proved(1e-3) is None


def test_a_prime_that_divides_lowers_the_rank_and_never_raises_it():
    A = np.diag([3.0, 0.5, 0.0])[None]
    factors = _balls.Factors(A)
    found = [
        _balls._ranks_modulo(prime, factors, 1, lambda _: None)[0] for prime in (3, 5)
    ]
    assert found == [1, 2]
    assert _balls.ranks(factors, 1, lambda _: None).tolist() == [2]


def test_precision_is_raised_where_the_estimate_of_the_spread_is_wrong(monkeypatch):
    chain = systems.tanh_chain(1, 4, 1.2, 60)
    expected = products.certified_spectrum(chain, every=20)
    monkeypatch.setattr(_records, "_spreads_in_bits", lambda *_: -300 * np.ones(3))
    found = products.certified_spectrum(chain, every=20)
    np.testing.assert_array_equal(
        found.log_singular_values, expected.log_singular_values
    )


# On the host --------------------------------------------------------------------------


def test_what_takes_too_long_is_refused_with_an_estimate():
    chain = systems.gaussian_chain(1, 4, 50)
    message = r"`limit` must be at least .* certified_spectrum takes, .*GB.*is 1e-06"
    with pytest.raises(ValueError, match=message):
        products.certified_spectrum(chain, limit=1e-6)
    with pytest.raises(ValueError, match="sensitivity takes"):
        products.sensitivity(chain, limit=1e-6)
    for limit in (None, np.inf):
        assert products.certified_spectrum(chain, every=50, limit=limit).rank == [4]


def test_digits_of_the_columns_are_raised_too(monkeypatch):
    chain = systems.tanh_chain(1, 4, 1.2, 20)
    expected = products.certified_spectrum(chain, every=20)
    monkeypatch.setattr(_records, "working_bits", lambda *_: 24)
    found = products.certified_spectrum(chain, every=20)
    error = np.abs(found.log_singular_values - expected.log_singular_values)
    assert (error <= found.radius + expected.radius).all()
    assert found.radius.max() < 1e-12


def test_an_interrupt_passes_and_leaves_the_precision_as_it_was(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_records, "enclosed_logs", interrupt)
    before = flint.ctx.prec
    with pytest.raises(KeyboardInterrupt):
        products.certified_spectrum(np.ones((2, 2, 2)))
    assert flint.ctx.prec == before


def test_a_line_tells_how_far_it_is_on_a_terminal_after_two_seconds(
    monkeypatch, capsys
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with _host.Progress("certified_spectrum", 60.0) as progress:
        progress.tell("record", 0, 9)
        assert capsys.readouterr().err == ""
        progress.began -= 3
        progress.last -= 3
        progress.tell("record", 1, 9)
    assert capsys.readouterr().err.startswith(
        "\rcertified_spectrum: record 2 of 9, 3 s"
    )


def test_without_flint_it_is_said_how_to_install_it(monkeypatch):
    for name in ("_balls", "_records", "_enclosures"):
        monkeypatch.delitem(sys.modules, f"vgjax.products.{name}")
        monkeypatch.delattr(products, name)
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r'pip install "vgjax\[certified\]"'):
        products.certified_spectrum(np.ones((1, 2, 2)))


CHAIN = np.ones((3, 2, 2))
BOTH = [products.certified_spectrum, products.sensitivity]


@pytest.mark.parametrize(
    "function", [products.certified_spectrum, products.sensitivity]
)
@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (np.ones((3, 2)), {}, ValueError, r"`matrices` must have shape \(T, N, N\)"),
        (np.ones((3, 2, 1)), {}, ValueError, r"`matrices` .* has shape \(3, 2, 1\)"),
        (np.ones((0, 2, 2)), {}, ValueError, "`matrices` .* no size zero"),
        (CHAIN.astype(int), {}, TypeError, "`matrices` must be real .* int64"),
        (CHAIN + 0j, {}, TypeError, "`matrices` must be real .* complex128"),
        ([[[1.0]], [[1.0, 2.0]]], {}, TypeError, "`matrices` must be an array"),
        (CHAIN, {"every": 0}, ValueError, "`every` must be at least 1 and at most 3"),
        (CHAIN, {"every": 1.0}, TypeError, "`every` must be a whole number"),
        (CHAIN, {"reverse": 1}, TypeError, "`reverse` must be True or False"),
        (CHAIN, {"limit": 0}, ValueError, "`limit` must be a number of seconds above"),
        (CHAIN, {"limit": np.nan}, ValueError, "`limit` must be .* but is nan"),
        (CHAIN, {"limit": "1"}, ValueError, "`limit` must be .* but is '1'"),
    ],
)
def test_wrong_calls_are_refused_in_one_sentence(
    function, given, options, error, message
):
    with pytest.raises(error, match=f"^Argument {message}"):
        function(given, **options)


@pytest.mark.parametrize("radius", [0, -1e-12, np.nan, np.inf, "1e-12", None, [1e-12]])
def test_radius_must_be_above_zero(radius):
    with pytest.raises(ValueError, match="Argument `radius` must be a number above 0"):
        products.certified_spectrum(CHAIN, radius=radius)


@pytest.mark.parametrize(
    "function", [products.certified_spectrum, products.sensitivity]
)
def test_traced_factors_are_refused(function):
    with pytest.raises(TypeError, match="`matrices` must be concrete, but is traced"):
        jax.jit(lambda A: function(A)[0])(CHAIN.astype(np.float32))
    with pytest.raises(TypeError, match="`matrices` must be concrete, but is traced"):
        jax.jit(lambda A: function([A, A])[0])(CHAIN[0].astype(np.float32))


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (products.certified_spectrum, ["every", "reverse", "radius", "limit"]),
        (products.sensitivity, ["every", "reverse", "copies", "limit"]),
    ],
)
def test_traced_options_are_refused(function, names):
    for name in names:
        with pytest.raises(TypeError, match=f"`{name}` must be concrete"):
            jax.jit(lambda x, n=name: function(CHAIN, **{n: x}))(1)
