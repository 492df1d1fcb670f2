"""Lyapunov exponents against closed forms, published values and a plain QR loop.

Every map and flow is written out here, so that no library vouches for itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.special
import scipy.stats
import systems
from flax import nnx

import vgjax
from vgjax import lyapunov, steps


def apply(A, h, x):
    del x
    return A @ h, None


def driven(h, A):
    """A step whose Jacobian is its input."""
    return A @ h, None


def linear(A):
    return steps.from_function(apply, jnp.asarray(A))


def chaotic(W, h, x):
    return jnp.tanh(W @ h + x), None


def by_qr_at_every_step(jacobians, basis, first=0):
    """Mean log |R_ii| from step `first` on, in NumPy."""
    logs = []
    for J in np.asarray(jacobians):
        basis, R = np.linalg.qr(J @ basis)
        logs.append(np.log(np.abs(np.diag(R))))
    return np.mean(logs[first:], axis=0)


# Random matrices -------------------------------------------------------------------


@functools.cache
def gaussian_chains(chains, T, N=8):
    A = np.random.default_rng(1).standard_normal((chains, T, N, N)) / N**0.5
    measure = jax.jit(
        jax.vmap(lambda A: lyapunov.lyapunov_spectrum(driven, jnp.ones(N), A))
    )
    return measure(jnp.asarray(A))


@pytest.mark.float64
def test_products_of_gaussian_matrices_have_the_exponents_of_newman():
    chains, T = 16, 640
    found = np.asarray(gaussian_chains(chains, T).exponents).mean(0)
    n = np.arange(8, 0, -1) / 2
    expected = [-0.065088, -0.141569, -0.231755, -0.341569]
    expected += [-0.481755, -0.674902, -0.981755, -1.674902]
    se = np.sqrt(scipy.special.polygamma(1, n) / (4 * T * chains))
    assert np.abs((found - expected) / se).max() < 4


@pytest.mark.float64
def test_standard_error_is_that_of_independent_growth():
    found = gaussian_chains(16, 640)
    n = np.arange(8, 0, -1) / 2
    true = np.sqrt(scipy.special.polygamma(1, n) / (4 * 640))
    # Root mean square of 16 estimates from 20 batches each: good to 5 %.
    estimate = np.sqrt((np.asarray(found.standard_error) ** 2).mean(0))
    np.testing.assert_allclose(estimate, true, rtol=0.3)


@pytest.mark.float64
@pytest.mark.parametrize("k", [1, 3])
def test_growth_in_one_step_is_that_of_chi_variables(k):
    A = np.random.default_rng(2).standard_normal((1500, 1, 8, 8))
    measure = functools.partial(lyapunov.lyapunov_spectrum, driven, jnp.ones(8), k=k)
    found = jax.vmap(measure)(jnp.asarray(A)).exponents
    assert (np.diff(found) <= 0).all()
    found = found.sum(1)
    rng = np.random.default_rng(3)
    chi = [np.log(rng.chisquare(8 - i, 20_000)) / 2 for i in range(k)]
    assert scipy.stats.ks_2samp(found, np.sum(chi, axis=0)).pvalue > 1e-3
    wrong = scipy.stats.ks_2samp(found, np.sum(chi, axis=0) + 0.1)
    assert wrong.pvalue < 1e-3


# Maps and flows --------------------------------------------------------------------


def scatter(exponents):
    """Mean over trajectories, and its standard error."""
    found = np.asarray(exponents)
    return found.mean(0), found.std(0, ddof=1) / len(found) ** 0.5


def over_starts(step, starts, **options):
    def measure(start):
        return lyapunov.lyapunov_spectrum(step, start, **options).exponents

    return scatter(jax.jit(jax.vmap(measure))(jnp.asarray(starts)))


@pytest.mark.float64
def test_cat_map_has_the_golden_exponents():
    step = linear([[2.0, 1.0], [1.0, 1.0]])
    options = {"length": 100_000, "burn_in": 100}
    expected = 0.9624236501192069 * np.array([1, -1])
    found = lyapunov.lyapunov_spectrum(step, jnp.zeros(2), tol=1e-14, **options)
    np.testing.assert_allclose(found.exponents, expected, rtol=1e-12)
    assert found.resolved.all()
    quick = lyapunov.lyapunov_spectrum(step, jnp.zeros(2), **options)
    assert 1e-11 < np.abs(quick.exponents - expected).max() < 3e-7


@pytest.mark.float64
def test_logistic_map_doubles_at_every_step():
    starts = np.random.default_rng(1).uniform(0.1, 0.9, (200, 1))
    mean, se = over_starts(
        lambda x, _: (4 * x * (1 - x), None), starts, length=1000, burn_in=100
    )
    assert np.abs(mean[0] - np.log(2)) < 4 * se[0] < 2e-3


def henon(s, _):
    return jnp.stack([1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]]), None


@pytest.mark.float64
def test_henon_map_has_its_published_exponents():
    starts = np.random.default_rng(1).uniform(-0.1, 0.1, (400, 2))
    mean, se = over_starts(henon, starts, length=4100, burn_in=100)
    error = np.hypot(se, 19e-6)
    assert (np.abs(mean - [0.419211, -1.623184]) < 4 * error).all()
    assert error.max() < 1e-3
    np.testing.assert_allclose(mean.sum(), np.log(0.3), atol=1e-10)


def standard_map(s, _):
    p = (s[0] + 50 * jnp.sin(s[1])) % (2 * jnp.pi)
    return jnp.stack([p, (s[1] + p) % (2 * jnp.pi)]), None


@pytest.mark.float64
def test_standard_map_has_its_published_exponents():
    starts = np.random.default_rng(1).uniform(0, 2 * np.pi, (400, 2))
    mean, se = over_starts(standard_map, starts, length=4100, burn_in=100)
    error = np.hypot(se, 12e-5)
    assert (np.abs(mean - [3.21916, -3.21916]) < 4 * error).all()
    assert error.max() < 2e-3
    np.testing.assert_allclose(mean.sum(), 0, atol=1e-10)


def runge_kutta(flow, dt):
    def step(s, _):
        a = flow(s)
        b = flow(s + dt / 2 * a)
        c = flow(s + dt / 2 * b)
        d = flow(s + dt * c)
        return s + dt / 6 * (a + 2 * b + 2 * c + d), None

    return step


def lorenz(s):
    x, y, z = s
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


@pytest.mark.float64
def test_lorenz_flow_has_its_published_exponents():
    dt = 0.01
    starts = np.random.default_rng(1).normal([0, 0, 25], 5, (200, 3))
    mean, se = over_starts(runge_kutta(lorenz, dt), starts, length=6000, burn_in=1000)
    mean, se = mean / dt, se / dt
    error = np.hypot(se, 4e-4)
    assert (np.abs(mean - [0.9058, 0, -14.5725]) < 4 * error).all()
    assert error.max() < 0.01
    # The sum is the divergence of the flow, to the fourth order of dt.
    np.testing.assert_allclose(mean.sum(), -41 / 3, atol=3e-4)
    dimension = lyapunov.kaplan_yorke_dimension(jnp.asarray(mean))
    np.testing.assert_allclose(dimension, 2 + 0.9058 / 14.5725, atol=2e-3)


def lorenz96(s):
    return (jnp.roll(s, -1) - jnp.roll(s, 2)) * jnp.roll(s, 1) - s + 8


@pytest.mark.float64
@pytest.mark.slow
def test_lorenz_96_has_its_published_spectrum():
    dt = 0.05
    starts = 8 + np.random.default_rng(1).standard_normal((12, 40))
    mean, se = over_starts(runge_kutta(lorenz96, dt), starts, length=4400, burn_in=400)
    mean, se = mean / dt, se / dt
    published = [1.696, 1.486, 1.314, 1.151, 1.016, 0.877, 0.764, 0.615, 0.496]
    published += [0.377, 0.259, 0.141, 0.0345, 0.0004, -0.087]
    error = np.hypot(se, 0.016)
    assert (np.abs(mean[:15] - published) < 4 * error[:15]).all()
    assert error.max() < 0.04
    assert abs(mean[-1] + 4.907) < 4 * np.hypot(se[-1], 2e-3)
    np.testing.assert_allclose(mean.sum(), -40, atol=0.01)
    assert (mean > 0.02).sum() == 13
    dimension = lyapunov.kaplan_yorke_dimension(jnp.asarray(mean))
    assert abs(dimension - 27.05) < 0.3


@pytest.mark.float64
@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "expected", "error"), [(2, 0.155, 0.01), (3, 0.310, 0.015)]
)
def test_random_tanh_network_is_as_chaotic_as_mean_field_says(gain, expected, error):
    N = 300
    rng = np.random.default_rng(1)
    found = []
    for _ in range(3):
        J = gain * rng.standard_normal((N, N)) / N**0.5
        step = steps.from_function(lambda J, h, x: (J @ jnp.tanh(h), x), jnp.asarray(J))
        start = jnp.asarray(rng.standard_normal(N))
        options = {"length": 1100, "burn_in": 100, "k": 1}
        found.append(lyapunov.lyapunov_spectrum(step, start, **options).exponents[0])
    assert abs(np.mean(found) - expected) < error


@pytest.mark.float64
def test_small_networks_are_late_to_chaos():
    N, found = 100, []
    rng = np.random.default_rng(1)
    for _ in range(12):
        J = 1.5 * rng.standard_normal((N, N)) / N**0.5
        step = steps.from_function(lambda J, h, x: (J @ jnp.tanh(h), x), jnp.asarray(J))
        start = jnp.asarray(rng.standard_normal(N))
        options = {"length": 600, "burn_in": 200, "k": 1}
        found.append(lyapunov.lyapunov_spectrum(step, start, **options).exponents[0])
    # 0.065 in the limit of large N.
    assert abs(np.mean(found) - 0.020) < 0.025


# Against a QR factorisation at every step ------------------------------------------


def driven_tanh(dtype=float, N=8, T=440):
    rng = np.random.default_rng(4)
    W = jnp.asarray(2 * rng.standard_normal((N, N)) / N**0.5, dtype)
    x = jnp.asarray(0.5 * rng.standard_normal((T, N)), dtype)
    return steps.from_function(chaotic, W), jnp.zeros(N, dtype), x


def test_factorisations_left_out_are_not_missed(dtype, tolerance):
    step, h, x = driven_tanh(dtype)
    found = lyapunov.lyapunov_spectrum(step, h, x, burn_in=120)
    J = vgjax.state_jacobians(step, h, x)
    basis = systems.orthogonal(np.random.default_rng(5), 8)
    expected = by_qr_at_every_step(np.asarray(J, float), basis, first=120)
    assert found.resolved.all()
    np.testing.assert_allclose(
        found.exponents, expected, atol=tolerance(1e-6, 1e-3), rtol=0
    )


@pytest.mark.float64
def test_a_sudden_spread_is_taken_again_with_care():
    # Nearly orthogonal for long, so that groups grow; then, twice in a row, 1e9.
    rng = np.random.default_rng(6)
    A = np.array([systems.orthogonal(rng, 4) for _ in range(640)])
    for t in (200, 201, 311, 312, 480, 481):
        A[t] = A[t] @ np.diag([1e5, 1, 1e-2, 1e-4])
    found = lyapunov.lyapunov_spectrum(driven, jnp.ones(4), jnp.asarray(A))
    basis = systems.orthogonal(rng, 4)
    expected = by_qr_at_every_step(A, basis)
    # The first frame is forgotten at the first of them: boundary terms of 1/T.
    assert np.abs(found.exponents - expected).max() < 10 / 640
    sums = np.linalg.slogdet(A)[1].mean()
    np.testing.assert_allclose(found.exponents.sum(), sums, atol=1e-9)


@pytest.mark.float64
@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_scales_beyond_the_range_of_floats_are_only_a_shift(scale):
    A = np.random.default_rng(7).standard_normal((320, 3, 3))
    measure = functools.partial(lyapunov.lyapunov_spectrum, driven, jnp.zeros(3))
    plain, found = measure(jnp.asarray(A)), measure(jnp.asarray(scale * A))
    shift = np.log(scale)
    np.testing.assert_allclose(found.exponents, plain.exponents + shift, atol=1e-6)


@pytest.mark.float64
def test_groups_end_before_numbers_lose_their_digits_at_the_end_of_the_range():
    rng = np.random.default_rng(7)
    A = 1e-10 * np.array([systems.orthogonal(rng, 3) for _ in range(640)])
    found = lyapunov.lyapunov_spectrum(driven, jnp.zeros(3), jnp.asarray(A))
    np.testing.assert_allclose(found.exponents, np.log(1e-10), atol=1e-12)


def test_time_runs_forwards_and_matrices_act_on_columns(dtype, tolerance):
    # Exact with one record: a product of two, then a burn-in that must not count.
    A = np.array([[[9.0, 0], [0, 7]], [[1, 4], [0, 3]], [[1, 0], [5, 2]]])
    found = lyapunov.lyapunov_spectrum(
        driven, jnp.ones(2, dtype), jnp.asarray(A, dtype), burn_in=1
    )
    assert found.steps.tolist() == [1, 2]
    np.testing.assert_allclose(
        found.exponents.sum(), np.log(3 * 2) / 2, atol=tolerance(1e-12, 1e-5)
    )
    first = found.history[0].sum()
    np.testing.assert_allclose(first, np.log(3), atol=tolerance(1e-12, 1e-5))
    upper = jnp.broadcast_to(jnp.asarray([[2.0, 1.0], [0.0, 0.5]], dtype), (60, 2, 2))
    longer = lyapunov.lyapunov_spectrum(driven, jnp.ones(2, dtype), upper, burn_in=30)
    np.testing.assert_allclose(
        longer.exponents, np.log([2, 0.5]), atol=tolerance(1e-12, 1e-5)
    )


@pytest.mark.float64
def test_few_exponents_are_the_leading_ones_of_all():
    step, h, x = driven_tanh()
    all_of_them = lyapunov.lyapunov_spectrum(step, h, x, burn_in=200).exponents
    few = lyapunov.lyapunov_spectrum(step, h, x, burn_in=200, k=3).exponents
    np.testing.assert_allclose(few, all_of_them[:3], atol=1e-6)
    assert (np.diff(all_of_them) < 0).all()


@pytest.mark.float64
def test_exponents_of_an_lstm_are_those_of_its_whole_carry():
    cell = nnx.LSTMCell(1, 3, dtype=float, param_dtype=float, rngs=nnx.Rngs(1))
    x = jnp.cos(jnp.arange(333.0))[:, None]
    carry = (jnp.zeros(3), jnp.full(3, 0.1))
    found = lyapunov.lyapunov_spectrum(cell, carry, x, burn_in=113)
    J = vgjax.state_jacobians(cell, carry, x)
    basis = systems.orthogonal(np.random.default_rng(5), 6)
    expected = by_qr_at_every_step(J, basis, first=113)
    # Sums: the first two are so close that 113 steps do not part them.
    got, wanted = np.cumsum(found.exponents), np.cumsum(expected)
    np.testing.assert_allclose(got[1:], wanted[1:], atol=1e-6)
    assert np.ptp(expected) > 3


@pytest.mark.float64
def test_history_ends_at_the_exponents_and_every_step_counts():
    step, h, x = driven_tanh()
    found = lyapunov.lyapunov_spectrum(step, h, x, burn_in=107)
    np.testing.assert_array_equal(found.history[-1], found.exponents)
    assert np.diff(found.steps, prepend=0).tolist() == [32] * 10 + [13]  # 333
    half = lyapunov.lyapunov_spectrum(step, h, x[:267], burn_in=107).exponents
    np.testing.assert_allclose(found.history[4], half, atol=1e-6)


@pytest.mark.float64
@pytest.mark.parametrize("options", [{}, {"tol": 0}, {"qr_every": 7}])
def test_the_sum_of_all_is_that_of_every_determinant_after_the_burn_in(options):
    A = np.random.default_rng(14).standard_normal((1000, 3, 3))
    for T, burn_in in [(1000, 0), (357, 21), (11, 3)]:
        found = lyapunov.lyapunov_spectrum(
            driven, jnp.ones(3), jnp.asarray(A[:T]), burn_in=burn_in, **options
        )
        assert found.steps[-1] == T - burn_in
        sums = np.linalg.slogdet(A[burn_in:T])[1].mean()
        np.testing.assert_allclose(found.exponents.sum(), sums, atol=1e-10)


@pytest.mark.float64
def test_standard_error_is_that_of_32_batches_at_most():
    A = np.random.default_rng(11).standard_normal((1600, 2, 2))
    found = lyapunov.lyapunov_spectrum(driven, jnp.ones(2), jnp.asarray(A), burn_in=7)
    sums = np.asarray(found.history) * np.asarray(found.steps)[:, None]
    growth = np.diff(sums, axis=0, prepend=0)
    assert len(growth) == 50
    # 49 records of 32 steps and one of 25: batches of two, the last of 57 steps.
    growth, steps = growth.reshape(25, 2, 2).sum(1), np.array([64.0] * 24 + [57])
    off = growth - steps[:, None] * growth.sum(0) / 1593
    expected = np.sqrt((off**2).sum(0) * 25 / 24) / 1593
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-9)


# A first frame, and padding --------------------------------------------------------


@pytest.mark.float64
def test_a_first_frame_is_where_the_measure_begins():
    step = linear(np.diag([1.1, 0.8]))
    measure = functools.partial(
        lyapunov.lyapunov_spectrum, step, jnp.ones(2), length=100
    )
    found = measure(frame=jnp.eye(2))
    np.testing.assert_allclose(found.exponents, np.log([1.1, 0.8]), rtol=1e-12)
    np.testing.assert_allclose(abs(found.frame), np.eye(2), atol=1e-12)
    # Without it, the random frame turns first; and k is that of the frame.
    assert abs(measure().exponents[0] - np.log(1.1)) > 0.01
    found = measure(frame=jnp.asarray([[0.0], [3.0]]))
    np.testing.assert_allclose(found.exponents, np.log([0.8]), rtol=1e-12)


@pytest.mark.float64
@pytest.mark.parametrize("tol", [0, None])
def test_a_run_goes_on_from_its_frame(tol):
    step, h, x = driven_tanh(T=200)
    measure = functools.partial(lyapunov.lyapunov_spectrum, step, k=3, tol=tol)
    whole, begin = measure(h, x), measure(h, x[:120])
    middle = vgjax.rollout(step, h, x[:120]).carry
    end = measure(middle, x[120:], frame=begin.frame)
    grown = 120 * begin.exponents + 80 * end.exponents
    atol = 1e-10 if tol == 0 else 1e-6
    np.testing.assert_allclose(grown, 200 * whole.exponents, atol=atol, rtol=0)
    eye = begin.frame.T @ begin.frame
    np.testing.assert_allclose(eye, np.eye(3), atol=1e-12)
    # The same plane in both; a frame of its own does not go on.
    overlap = np.linalg.det(whole.frame.T @ end.frame)
    np.testing.assert_allclose(abs(overlap), 1, atol=1e-9)
    anew = 120 * begin.exponents + 80 * measure(middle, x[120:]).exponents
    assert np.abs(anew - 200 * whole.exponents).max() > 1e-3


def padded(x, where, T):
    """Inputs with steps of padding, and the mask of the true ones."""
    mask = np.zeros(T, bool)
    mask[where] = True
    longer = np.full((T, *x.shape[1:]), 7.0)
    longer[mask] = x
    return jnp.asarray(longer), jnp.asarray(mask)


@pytest.mark.float64
@pytest.mark.parametrize("options", [{}, {"tol": 0}, {"qr_every": 3}])
def test_masked_steps_neither_move_anything_nor_count(options):
    step, h, x = driven_tanh(T=360)
    measure = functools.partial(lyapunov.lyapunov_spectrum, step, h, burn_in=20)
    expected = measure(x, **options)
    # Steps taken together are right to `tol`, 3e-7 by default, and no closer where the
    # two programs round otherwise.
    atol = 1e-12 if options else 1e-8
    anywhere = np.sort(np.random.default_rng(15).permutation(500)[:360])
    for where in (np.arange(360), anywhere):
        longer, mask = padded(x, where, 500)
        found = measure(longer, mask=mask, **options)
        assert found.steps[-1] == 340
        for name in ("exponents", "standard_error"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), atol=atol, rtol=0
            )
        plane = found.frame[:, :2].T @ expected.frame[:, :2]
        np.testing.assert_allclose(abs(np.linalg.det(plane)), 1, atol=1e-9)
    # Padding that counts is another trajectory.
    assert np.abs(measure(longer).exponents - expected.exponents).max() > 0.05


@pytest.mark.float64
def test_a_batch_of_different_lengths_has_one_mask_each():
    step, h, x = driven_tanh(N=3, T=40)
    lengths = jnp.asarray([40, 25, 0])
    masks = jnp.arange(40)[None, :] < lengths[:, None]
    measure = functools.partial(lyapunov.lyapunov_spectrum, step, h, x, tol=0)
    together = jax.jit(jax.vmap(lambda mask: measure(mask=mask).exponents))(masks)
    for found, T in zip(together[:2], (40, 25), strict=True):
        alone = lyapunov.lyapunov_spectrum(step, h, x[:T], tol=0).exponents
        np.testing.assert_allclose(found, alone, atol=1e-12)
    assert np.isnan(together[2]).all()


# What cannot be seen, and what is gone ----------------------------------------------


@pytest.mark.float64
def test_exponents_lost_between_factorisations_are_told():
    Q = systems.orthogonal(np.random.default_rng(8), 4)
    W = Q @ np.diag(np.exp([0.0, -2.0, -5.0, -9.0])) @ Q.T
    measure = functools.partial(
        lyapunov.lyapunov_spectrum, linear(W), jnp.zeros(4), length=400, burn_in=100
    )
    truth = [0, -2, -5, -9]
    found = measure()
    assert found.resolved.all()
    np.testing.assert_allclose(found.exponents, truth, atol=1e-6)
    for qr_every, seen in [(2, 4), (5, 3), (10, 2), (30, 1)]:
        if seen == 4:
            found = measure(qr_every=qr_every)
        else:
            with pytest.warns(
                RuntimeWarning, match=f"{4 - seen} of 4 .* is {qr_every}"
            ):
                found = measure(qr_every=qr_every)
        assert found.resolved.tolist() == [True] * seen + [False] * (4 - seen)
        np.testing.assert_allclose(found.exponents[:seen], truth[:seen], atol=1e-2)
    # So the flag is not only prudence: what it marks is wrong.
    assert np.abs(found.exponents[3] + 9) > 1


@pytest.mark.float64
def test_exponents_beyond_36_nats_in_a_group_are_not_trusted_even_if_right_by_luck():
    step = linear(np.diag(np.exp([0.0, -8.0, -10.0])))
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        found = lyapunov.lyapunov_spectrum(step, jnp.zeros(3), length=40, qr_every=4)
    assert found.resolved.tolist() == [True, True, False]


def relu_cell(W, h, x):
    return jax.nn.relu(W @ h + x), None


def test_directions_that_a_step_annihilates_read_minus_infinity(dtype):
    W = jnp.asarray([[0.5, 0.3, 0.1], [-0.2, 0.6, 0.4], [0.1, 0.7, 0.2]], dtype)
    x = jnp.asarray([[1.0, 1.0, -9.0]] * 40, dtype)
    step = steps.from_function(relu_cell, W)
    found = lyapunov.lyapunov_spectrum(step, jnp.zeros(3, dtype), x, burn_in=5)
    assert np.isneginf(found.exponents).tolist() == [False, False, True]
    assert found.resolved.all()
    assert np.isnan(found.standard_error).tolist() == [False, False, True]


@pytest.mark.float64
def test_rank_one_has_one_exponent_and_says_that_the_others_are_round_off():
    u, v = np.array([1.0, -2, 3, 0]), np.array([2.0, 1, 1, 5])
    with pytest.warns(RuntimeWarning, match=r"of 4 Lyapunov exponents .* ask for"):
        found = lyapunov.lyapunov_spectrum(
            linear(np.outer(u, v)), jnp.zeros(4), length=60, burn_in=10
        )
    np.testing.assert_allclose(found.exponents[0], np.log(u @ v), rtol=1e-12)
    assert np.isneginf(found.exponents[1:]).all()
    assert found.resolved[0]
    assert not found.resolved.all()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("at", [3, 59])
def test_what_is_not_finite_is_nan_and_no_round_off(bad, at, dtype):
    A = np.random.default_rng(12).standard_normal((60, 4, 4))
    A[at, 0, 1] = bad
    found = lyapunov.lyapunov_spectrum(driven, jnp.zeros(4), jnp.asarray(A, dtype))
    assert np.isnan(found.exponents).all()
    assert found.resolved.all()


@pytest.mark.float64
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_groups_of_a_given_length_do_not_leave_the_range_of_floats(scale):
    rng = np.random.default_rng(13)
    A = scale * np.array([systems.orthogonal(rng, 3) for _ in range(100)])
    found = lyapunov.lyapunov_spectrum(
        driven, jnp.zeros(3), jnp.asarray(A), qr_every=20
    )
    np.testing.assert_allclose(found.exponents, np.log(scale), atol=1e-12)
    assert found.resolved.all()


def test_a_nan_in_a_jacobian_is_nan_everywhere(dtype):
    A = jnp.broadcast_to(jnp.eye(2, dtype=dtype), (30, 2, 2)).at[20, 0, 1].set(jnp.nan)
    found = lyapunov.lyapunov_spectrum(driven, jnp.zeros(2, dtype), A)
    assert np.isnan(found.exponents).all()
    assert np.isfinite(found.history[0]).all()


# Transformations -------------------------------------------------------------------


@pytest.mark.float64
def test_same_exponents_under_jit_and_vmap():
    step, h, x = driven_tanh(N=4, T=90)
    inputs = jnp.stack([x, 2 * x, 0 * x])

    def measure(x):
        return lyapunov.lyapunov_spectrum(step, h, x, burn_in=20)

    together = jax.jit(jax.vmap(measure))(inputs)
    for b in range(3):
        for got, wanted in zip(together, measure(inputs[b]), strict=True):
            # Each may be off by `tol`, 3e-7.
            np.testing.assert_allclose(got[b], wanted, atol=6e-7)


@pytest.mark.float64
def test_exponents_can_be_differentiated():
    W = jnp.asarray(np.random.default_rng(9).standard_normal((3, 3)))
    x = jnp.asarray(0.3 * np.random.default_rng(10).standard_normal((40, 3)))

    def first(W):
        step = steps.from_function(chaotic, W)
        return lyapunov.lyapunov_spectrum(step, jnp.zeros(3), x).exponents[0]

    slope = jax.jit(jax.grad(first))(W)
    by_hand = oracles.central_difference(
        lambda w: np.array([first(jnp.asarray(w.reshape(3, 3)))]), np.ravel(W), 1e-5
    )
    np.testing.assert_allclose(np.ravel(slope), by_hand[0], atol=1e-7)


@pytest.mark.float64
def test_a_tolerance_of_zero_leaves_out_no_factorisation():
    rng = np.random.default_rng(6)
    A = np.array([systems.orthogonal(rng, 4) for _ in range(640)])
    # Shrinks and grows back within sixteen steps, in frames that turn.
    for t in (*range(320, 328), *range(336, 344)):
        A[t] = A[t] @ np.diag([0.2, 0.2, 1, 1])
    measure = functools.partial(
        lyapunov.lyapunov_spectrum, driven, jnp.zeros(4), jnp.asarray(A)
    )
    found = measure(tol=0)
    sums = np.linalg.slogdet(A)[1].mean()
    np.testing.assert_allclose(found.exponents.sum(), sums, atol=1e-12)
    assert np.abs(measure().exponents - found.exponents).max() > 0


# Dimension and entropy --------------------------------------------------------------


@pytest.mark.parametrize(
    ("exponents", "expected"),
    [
        ([0.9058, 0.0, -14.5725], 2 + 0.9058 / 14.5725),
        ([0.0, -14.5725, 0.9058], 2 + 0.9058 / 14.5725),
        ([-0.1, -0.2], 0),
        ([0.0, -1.0], 1),
        ([0.3, -0.1], 2),
        ([0.5], 1),
        ([1.0, -np.inf], 1),
        ([0.5, -0.5, -0.1], 2 + 0.4 / 0.5),
        ([np.nan, -1.0], np.nan),
    ],
)
def test_kaplan_yorke_dimension(exponents, expected, dtype):
    found = jax.jit(lyapunov.kaplan_yorke_dimension)(jnp.asarray(exponents, dtype))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == dtype


def test_entropy_is_the_sum_of_the_positive_exponents(dtype):
    found = lyapunov.entropy(jnp.asarray([0.5, -np.inf, 0.25, -2], dtype))
    assert found == 0.75
    assert lyapunov.entropy(jnp.asarray([-1.0], dtype)) == 0
    assert np.isnan(lyapunov.entropy(jnp.asarray([1.0, np.nan], dtype)))


# What a caller can get wrong --------------------------------------------------------

BAD = [
    ({"k": 0}, ValueError, "`k` must be at least 1 and at most 3, but is 0"),
    ({"k": 4}, ValueError, "`k` must be at least 1 and at most 3, but is 4"),
    ({"k": 1.0}, TypeError, "`k` must be a whole number, but is 1.0"),
    ({"burn_in": -1}, ValueError, "`burn_in` must be at least 0 and at most 9"),
    ({"burn_in": 10}, ValueError, "`burn_in` must be .* at most 9, but is 10"),
    ({"burn_in": 6, "qr_every": 5}, ValueError, "`burn_in` must be .* at most 5"),
    ({"tol": -1.0}, ValueError, "`tol` must be a number of at least 0, but is -1.0"),
    ({"qr_every": 0}, ValueError, "`qr_every` must be at least 1 and at most 10"),
    ({"frame": np.ones(3)}, ValueError, r"`frame` must have shape \(N=3, k\)"),
    ({"frame": np.ones((3, 2)), "k": 1}, ValueError, r"`frame` must .* k=1\)"),
    ({"frame": np.ones((3, 4))}, ValueError, r"`frame.shape\[1\]` must be .* most 3"),
    ({"frame": np.ones((3, 1), int)}, TypeError, "`frame` must have dtype float"),
    ({"mask": np.ones(9, bool)}, ValueError, r"`mask` must have shape \(T=10,\)"),
    ({"mask": np.ones(10)}, TypeError, "`mask` must have dtype bool"),
    ({"qr_every": 11}, ValueError, "`qr_every` must be .* at most 10, but is 11"),
]


@pytest.mark.parametrize(("options", "error", "match"), BAD)
def test_wrong_options_are_refused_by_name(options, error, match):
    with pytest.raises(error, match=match):
        lyapunov.lyapunov_spectrum(
            lambda h, _: (h, None), jnp.ones(3), length=10, **options
        )


@pytest.mark.parametrize("measure", ["kaplan_yorke_dimension", "entropy"])
def test_exponents_of_another_shape_or_dtype_are_refused(measure):
    measure = getattr(lyapunov, measure)
    with pytest.raises(ValueError, match=r"`exponents` must have shape \(k,\)"):
        measure(jnp.ones((2, 2)))
    with pytest.raises(TypeError, match="`exponents` must be real .* has dtype int32"):
        measure(np.array([1, 2], np.int32))
