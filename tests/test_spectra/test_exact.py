"""From a step to its spectra, against high precision, closed forms and products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats
from flax import nnx
from jax.flatten_util import ravel_pytree

import vgjax
from vgjax import products, steps
from vgjax.products import Spectrum

D = 2


def make(Cell, features, dtype, gain=1.0, seed=1):
    """A cell with all parameters drawn from N(0, gain^2 / features)."""
    cell = Cell(D, features, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    flat, unravel = ravel_pytree(state)
    flat = np.random.default_rng(seed).standard_normal(flat.size)
    flat = jnp.asarray(gain / features**0.5 * flat, dtype)
    return nnx.merge(graph, unravel(flat))


def start(Cell, features, dtype):
    h = jnp.linspace(-0.5, 0.5, features, dtype=dtype)
    return (h[::-1], h) if Cell is nnx.LSTMCell else h


def drive(dtype, T, seed=2):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((T, D)), dtype)


def case(Cell, features, dtype, T, gain=1.0):
    cell = make(Cell, features, dtype, gain)
    return cell, start(Cell, features, dtype), drive(dtype, T)


@pytest.mark.float64
@pytest.mark.slow
@pytest.mark.parametrize("features", [4, 8])
@pytest.mark.parametrize("Cell", [nnx.GRUCell, nnx.LSTMCell])
def test_gated_chains_agree_with_high_precision(Cell, features):
    times = (1, 30, 300)
    cell = Cell(D, features, dtype=float, param_dtype=float, rngs=nnx.Rngs(1))
    carry, x = start(Cell, features, float), drive(float, 300)
    J = np.asarray(vgjax.state_jacobians(cell, carry, x))
    answer = oracles.log_singular_values(J, times, 1300)
    found = vgjax.jacobian_spectrum(cell, carry, x).log_singular_values
    for t, expected in answer.items():
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found[t - 1], expected, atol=1e-10, rtol=0)
    naive = oracles.multiply_then_svd(J)[-1]
    assert np.abs(naive - answer[300]).max() > 1


@pytest.mark.float64
@pytest.mark.slow
def test_ill_conditioned_gated_chain_is_as_good_as_the_rounding_of_its_factors():
    cell, carry, x = case(nnx.LSTMCell, 4, float, 300)
    J = np.asarray(vgjax.state_jacobians(cell, carry, x))
    assert np.linalg.cond(J).max() > 1e5
    found = vgjax.jacobian_spectrum(cell, carry, x).log_singular_values[-1]
    signs = np.random.default_rng(1).choice([-1, 1], J.shape)
    answer, moved = (
        oracles.log_singular_values(chain, (300,), 1300)[300]
        for chain in (J, J * (1 + np.finfo(float).eps * signs))
    )
    assert np.abs(found - answer).max() < 10 * np.abs(moved - answer).max() < 1e-8


@pytest.mark.float64
def test_short_gated_chains_agree_with_high_precision():
    cell, carry, x = case(nnx.LSTMCell, 3, float, 22)
    J = vgjax.state_jacobians(cell, carry, x)
    found = vgjax.jacobian_spectrum(cell, carry, x).log_singular_values
    for t, expected in oracles.log_singular_values(J, (1, 9, 22), 300).items():
        np.testing.assert_allclose(found[t - 1], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("reverse", [False, True])
def test_spectrum_is_that_of_the_state_jacobians(reverse, dtype, tolerance):
    cell, carry, x = case(nnx.GRUCell, 4, dtype, 22)
    J = vgjax.state_jacobians(cell, carry, x)
    found = vgjax.jacobian_spectrum(cell, carry, x, reverse=reverse)
    expected = products.product_spectrum(J, reverse=reverse)
    np.testing.assert_array_equal(found.steps, np.arange(1, 23))
    tol = tolerance(1e-11, 1e-3)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=tol)
    # Row 0 is one Jacobian: the first, or the last for lags. Not so the other one.
    ends = [np.linalg.svd(J[t], compute_uv=False) for t in (0, -1)]
    right, wrong = ends[::-1] if reverse else ends
    np.testing.assert_allclose(found.log_singular_values[0], np.log(right), atol=tol)
    assert np.abs(found.log_singular_values[0] - np.log(wrong)).max() > 1e-2


def test_lag_and_prefix_of_the_whole_trajectory_are_one_product(dtype, tolerance):
    cell, carry, x = case(nnx.GRUCell, 4, dtype, 22)
    measure = functools.partial(vgjax.jacobian_spectrum, cell, carry, x)
    forward, backward = measure(), measure(reverse=True)
    tol = tolerance(1e-12, 1e-3)
    np.testing.assert_allclose(
        forward.log_singular_values[-1], backward.log_singular_values[-1], atol=tol
    )
    values = np.linalg.svd(vgjax.propagator(cell, carry, x), compute_uv=False)
    # The small ones of a plain SVD are round-off of the largest.
    found = np.exp(forward.log_singular_values[-1])
    np.testing.assert_allclose(found, values, atol=tolerance(1e-13, 1e-5) * values[0])
    np.testing.assert_allclose(
        forward.log_abs_det, forward.log_singular_values.sum(1), atol=10 * tol
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_every_seventh_record_is_the_seventh_of_every_record(reverse, dtype, tolerance):
    cell, carry, x = case(nnx.GRUCell, 4, dtype, 22)
    measure = functools.partial(
        vgjax.jacobian_spectrum, cell, carry, x, reverse=reverse
    )
    found, all_of_them = measure(every=7), measure()
    np.testing.assert_array_equal(found.steps, [7, 14, 21])
    tol = tolerance(1e-11, 2e-3)
    for got, wanted in zip(found[1:], all_of_them[1:], strict=True):
        np.testing.assert_allclose(got, wanted[6::7], atol=tol)


def test_same_answer_under_jit_and_vmap(dtype, tolerance):
    cell, carry, _ = case(nnx.GRUCell, 4, dtype, 22)
    inputs = jnp.stack([drive(dtype, 22, seed) for seed in (1, 2, 3)])

    def measure(x):
        return vgjax.jacobian_spectrum(cell, carry, x)

    together = jax.jit(jax.vmap(measure))(inputs)
    assert together.log_singular_values.shape == (3, 22, 4)
    for b in range(3):
        for got, wanted in zip(together, measure(inputs[b]), strict=True):
            np.testing.assert_allclose(got[b], wanted, atol=tolerance(1e-11, 2e-3))


def spiral(W, h, x):
    assert x is None
    return W @ h, None


def test_a_step_without_inputs_runs_for_a_given_length(dtype, tolerance):
    W = jnp.asarray([[0.5, 3.0], [0.0, 0.25]], dtype)
    step, h = steps.from_function(spiral, W), jnp.ones(2, dtype)
    found = vgjax.jacobian_spectrum(step, h, length=12, reverse=True)
    powers = [np.linalg.matrix_power(np.asarray(W, float), t) for t in range(1, 13)]
    wanted = np.log(np.linalg.svd(powers, compute_uv=False))
    tol = tolerance(1e-9, 1e-3)
    np.testing.assert_allclose(found.log_singular_values, wanted, atol=tol)
    slope = np.log(0.125) * np.arange(1, 13)
    np.testing.assert_allclose(found.log_abs_det, slope, rtol=tolerance(1e-13, 1e-6))


@pytest.mark.float64
def test_float32_jacobians_are_multiplied_in_float64_on_request():
    cell, carry, x = case(nnx.GRUCell, 4, jnp.float32, 22)
    J = vgjax.state_jacobians(cell, carry, x)
    assert J.dtype == jnp.float32
    (answer,) = oracles.log_singular_values(J, (22,), 300).values()
    found = vgjax.jacobian_spectrum(cell, carry, x, dtype=jnp.float64)
    assert found.log_singular_values.dtype == found.log_abs_det.dtype == jnp.float64
    np.testing.assert_allclose(found.log_singular_values[-1], answer, atol=1e-9)
    plain = np.asarray(vgjax.jacobian_spectrum(cell, carry, x).log_singular_values)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain[-1], answer, atol=1e-2)
    assert np.abs(plain[-1] - answer).max() > 1e-8


def forgetful_lstm(b, c, x):
    """Cell state of a Flax LSTM whose recurrent weights are zero."""
    cell = nnx.LSTMCell(D, 2, dtype=b.dtype, param_dtype=b.dtype, rngs=nnx.Rngs(0))
    for name in ("hi", "hf", "hg", "ho"):
        layer = getattr(cell, name)
        layer.kernel[...] = jnp.zeros((2, 2), b.dtype)
    cell.if_.kernel[...] = jnp.zeros((D, 2), b.dtype)
    cell.hf.bias[...] = jnp.full(2, b)
    (c, h), _ = cell((c, jnp.zeros(2, b.dtype)), x)
    return c, h


@pytest.mark.float64
def test_memory_of_an_lstm_is_the_sigmoid_of_its_forget_bias():
    T = 10_000
    x, c = drive(float, T), jnp.zeros(2)
    for b, rate in [
        (0, -0.693147180559945),
        (1, -0.313261687518223),
        (2, -0.126928011042973),
        (5, -0.00671534848911794),
    ]:
        step = steps.from_function(forgetful_lstm, jnp.asarray(b, float))
        found = vgjax.jacobian_spectrum(step, c, x, every=T)
        np.testing.assert_allclose(found.log_singular_values, T * rate, rtol=1e-12)
        np.testing.assert_allclose(found.log_abs_det, 2 * T * rate, rtol=1e-12)
    assert np.exp(T * -0.126928011042973) == 0  # and no other way could tell


@pytest.mark.float64
def test_memory_of_a_gru_is_its_update_gate():
    T, h = 10_000, jnp.zeros(2)
    cell = nnx.GRUCell(D, 2, dtype=float, param_dtype=float, rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = jnp.zeros((2, 6))
    cell.dense_i.kernel[...] = cell.dense_i.kernel[...].at[:, 2:4].set(0)
    found = vgjax.jacobian_spectrum(cell, h, drive(float, T), every=T)
    answer = T * -0.693147180559945
    np.testing.assert_allclose(found.log_singular_values, answer, rtol=1e-12)


def drives_tanh(W, h, x):
    return jnp.tanh(W @ h + x), None


def working_memory(T, N, dtype, measure=vgjax.jacobian_spectrum, **options):
    def run(W, h, x):
        return measure(steps.from_function(drives_tanh, W), h, x, **options)

    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in [(N, N), (N,), (T, N)]]
    compiled = jax.jit(run).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.once
def test_working_memory_does_not_grow_with_the_number_of_steps(dtype):
    N, bytes_of_one = 6, np.dtype(dtype).itemsize
    short, long = (working_memory(T, N, dtype, every=T) for T in (100, 10_000))
    # A copy of the inputs in blocks of records and the time itself, no more.
    assert long - short <= 9_900 * (N * bytes_of_one + 8)
    short, long = (
        working_memory(T, N, dtype, every=T, reverse=True) for T in (100, 10_000)
    )
    assert long - short <= 9_900 * (4 * N * bytes_of_one + 8)
    stack = [
        working_memory(T, N, dtype, lambda *a: vgjax.state_jacobians(*a).sum(0))
        for T in (100, 10_000)
    ]
    assert stack[1] - stack[0] > 9_000 * N**2 * bytes_of_one  # what it would take


def kinked(W, h, x):
    """Finite wherever it is, but with a slope of NaN where x is 0."""
    return W @ h + jnp.sqrt(x + 0 * h), None


def jumps_out(W, h, x):
    return W @ h + jnp.sqrt(x), None


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("step", "bad", "state_is_lost"), [(kinked, 0.0, False), (jumps_out, -1.0, True)]
)
def test_nan_in_a_jacobian_spoils_that_step_and_all_later_ones(
    step, bad, state_is_lost, reverse, dtype
):
    def squared(W, h, x):
        h, y = step(W, h, x)
        return h**2, y

    W = jnp.asarray([[0.5, 0.2], [-0.1, 0.4]], dtype)
    x = np.full((12, 2), 0.04)
    x[5] = bad
    measure = functools.partial(
        vgjax.jacobian_spectrum, steps.from_function(squared, W), jnp.ones(2, dtype)
    )
    found = measure(jnp.asarray(x, dtype), reverse=reverse)
    J = vgjax.state_jacobians(
        steps.from_function(squared, W), jnp.ones(2, dtype), jnp.asarray(x, dtype)
    )
    # J[5] is the first bad one; backwards it is met at lag 7, or all after are bad too.
    first = (0 if state_is_lost else 6) if reverse else 5
    lost = np.isnan(J).any(axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(lost)[:2], [5, 6][: 1 + state_is_lost])
    for values in found[1:]:
        values = np.asarray(values).reshape(12, -1)
        assert np.isnan(values[first:]).all()
        assert np.isfinite(values[:first]).all()


def relu(W, h, x):
    return jax.nn.relu(W @ h + x), None


def test_units_that_are_off_read_minus_infinity_for_good(dtype):
    W = jnp.asarray([[1.0, 2.0], [3.0, 5.0]], dtype)
    x = np.zeros((6, 2))
    x[3] = [0, -1e4]
    step, h = steps.from_function(relu, W), jnp.ones(2, dtype)
    found = vgjax.jacobian_spectrum(step, h, jnp.asarray(x, dtype))
    values = np.asarray(found.log_singular_values)
    np.testing.assert_array_equal(
        np.isneginf(values), np.outer(np.arange(6) > 2, [0, 1])
    )
    np.testing.assert_array_equal(np.isneginf(found.log_abs_det), np.arange(6) > 2)
    assert np.isfinite(values[:, 0]).all()


STEPS = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "sentence"),
    [
        (STEPS, {"every": 0}, ValueError, "`every` must be at least 1 .*but is 0"),
        (STEPS, {"every": 4}, ValueError, "`every` must be .*at most 3, but is 4"),
        (
            STEPS,
            {"length": 3, "every": 6},
            ValueError,
            "`every` .*at most 3, but is 6",
        ),
        (STEPS, {"every": 1.0}, TypeError, r"`every` must be a whole .*but is 1\.0"),
        (None, {}, ValueError, "`length` must be given .*both are None"),
        (STEPS, {"length": 4}, ValueError, r"`inputs` must have 4 .*\(3, 2\)"),
        (None, {"length": 0}, ValueError, "`length` must be at least 1, but is 0"),
        (
            STEPS[:0],
            {},
            ValueError,
            r"`inputs` must have .*at least one step.*\(0, 2\)",
        ),
        (STEPS, {"dtype": int}, TypeError, "`dtype` must be float32 .*but is int64"),
        (STEPS, {"dtype": "float16"}, TypeError, "`dtype` must be .*but is float16"),
    ],
)
def test_wrong_arguments_are_refused_by_name(inputs, options, error, sentence):
    step = steps.from_function(drives_tanh, np.eye(2, dtype=np.float32))
    with pytest.raises(error, match=sentence):
        vgjax.jacobian_spectrum(step, np.ones(2, np.float32), inputs, **options)


def test_float64_without_x64_is_refused_with_the_two_remedies():
    step = steps.from_function(drives_tanh, np.eye(2, dtype=np.float32))
    sentence = r"`dtype` .*is float64.*jax_enable_x64.*with jax\.enable_x64\(True\)"
    with jax.enable_x64(False), pytest.raises(ValueError, match=sentence):
        vgjax.jacobian_spectrum(step, np.ones(2, np.float32), STEPS, dtype="float64")


def record(steps, values, dtype):
    values = jnp.asarray(values, dtype)
    return Spectrum(jnp.asarray(steps, jnp.int32), values, values.sum(1))


def test_growth_rate_of_a_straight_line_is_its_slope(dtype, tolerance):
    steps = np.array([1, 2, 4, 7, 20])  # lopsided, so that no centring goes unseen
    slopes = np.array([0.3, 0.0, -1.7])
    lines = np.array([5.0, -3.0, 100.0]) + steps[:, None] * slopes
    found = vgjax.growth_rates(record(steps, lines, dtype))
    np.testing.assert_allclose(found.rate, slopes, atol=tolerance(1e-13, 1e-4))
    np.testing.assert_allclose(found.standard_error, 0, atol=tolerance(1e-13, 1e-4))
    naive = lines[-1] / steps[-1]
    assert np.abs(naive - slopes).max() > 1


@pytest.mark.parametrize("burn_in", [0, 4, 5])
def test_growth_rates_and_their_errors_are_those_of_linregress(
    burn_in, dtype, tolerance
):
    rng = np.random.default_rng(1)
    steps = np.array([1, 2, 4, 5, 7, 11, 12, 20, 33])
    values = -0.4 * steps[:, None] + rng.standard_normal((9, 3)) ** 3
    found = vgjax.growth_rates(record(steps, values, dtype), burn_in=burn_in)
    used = steps > burn_in
    for i in range(3):
        fit = scipy.stats.linregress(steps[used], values[used, i])
        tol = tolerance(1e-12, 1e-4)
        np.testing.assert_allclose(found.rate[i], fit.slope, rtol=tol)
        np.testing.assert_allclose(found.standard_error[i], fit.stderr, rtol=tol)
    assert abs(scipy.stats.linregress(steps, values[:, 0]).slope - found.rate[0]) > (
        1e-3 if burn_in else -1
    )


def test_annihilated_directions_have_the_rate_minus_infinity(dtype):
    steps = np.arange(1, 7)
    values = -0.5 * steps[:, None] * np.ones(3)
    values[4:, 2] = -np.inf
    values[:, 1] = -np.inf
    found = vgjax.growth_rates(record(steps, values, dtype))
    np.testing.assert_allclose(found.rate, [-0.5, -np.inf, -np.inf], rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.standard_error), [0, 1, 1])


def test_a_value_that_is_lost_only_in_the_burn_in_has_its_rate(dtype):
    values = np.arange(1.0, 7)[:, None] * np.ones(2)
    values[0, 0], values[5, 1] = -np.inf, np.nan
    found = vgjax.growth_rates(record(np.arange(1, 7), values, dtype), burn_in=1)
    np.testing.assert_allclose(found.rate, [1, np.nan], rtol=1e-5)


def test_two_records_have_a_slope_and_no_error(dtype):
    found = vgjax.growth_rates(record([10, 20], [[1.0], [4.0]], dtype))
    np.testing.assert_allclose(found.rate, [0.3], rtol=1e-5)
    assert np.isnan(found.standard_error).all()


def test_growth_rates_under_jit_are_the_same_and_nan_where_too_few_are_left(dtype):
    spectrum = record([1, 2, 4], [[1.0], [4.0], [5.0]], dtype)
    for burn_in in (0, 1):
        plain = vgjax.growth_rates(spectrum, burn_in=burn_in)
        measure = jax.jit(functools.partial(vgjax.growth_rates, burn_in=burn_in))
        for got, wanted in zip(measure(spectrum), plain, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)
    few = jax.jit(functools.partial(vgjax.growth_rates, burn_in=2))(spectrum)
    assert np.isnan(few.rate).all()


@pytest.mark.parametrize(
    ("steps", "burn_in", "error", "sentence"),
    [
        ([1, 2, 3], 2, ValueError, "`burn_in` must leave .*two records.*is 2 .* 3 rec"),
        ([5], 0, ValueError, "`burn_in` must leave .*two records.*of 1 records"),
        ([1, 2, 3], -1, ValueError, "`burn_in` must be at least 0, but is -1"),
        ([1, 2, 3], 0.5, TypeError, r"`burn_in` must be a whole .*but is 0\.5"),
    ],
)
def test_too_few_records_for_a_rate_are_refused(steps, burn_in, error, sentence, dtype):
    spectrum = record(steps, np.ones((len(steps), 2)), dtype)
    with pytest.raises(error, match=sentence):
        vgjax.growth_rates(spectrum, burn_in=burn_in)


def test_errors_of_values_widen_those_of_rates(dtype, tolerance):
    rng = np.random.default_rng(2)
    steps = np.array([1, 2, 4, 7, 20, 22])
    plain = record(steps, rng.standard_normal((6, 3)), dtype)
    error = rng.uniform(0, 0.5, (6, 3)) * [1, 0, 1]
    found = vgjax.growth_rates(
        plain._replace(error=jnp.asarray(error, dtype)), burn_in=1
    )
    without = vgjax.growth_rates(plain, burn_in=1)
    np.testing.assert_array_equal(found.rate, without.rate)
    # Every value moved by its error, to where it changes the slope most.
    values = np.asarray(plain.log_singular_values, float)
    signs = np.sign(steps - steps[1:].mean())[:, None]
    moved = [np.polyfit(steps[1:], (values + signs * error)[1:, i], 1) for i in (0, 2)]
    most = np.array(moved)[:, 0] - np.asarray(found.rate)[[0, 2]]
    expected = np.hypot(np.asarray(without.standard_error)[[0, 2]], most)
    rtol = tolerance(1e-12, 1e-4)
    np.testing.assert_allclose(found.standard_error[::2], expected, rtol=rtol)
    assert found.standard_error[1] == without.standard_error[1]


def test_a_rate_of_undecided_values_has_an_infinite_error(dtype):
    steps = np.arange(1, 7)
    values = -0.5 * steps[:, None] * np.ones(6)
    error = np.zeros((6, 6))
    error[3, 1] = error[0, 2] = error[4:, 3:5] = np.inf  # [0, 2] is burnt in
    values[4:, 3], values[5, 4], values[4:, 5] = -np.inf, np.nan, -np.inf
    given = record(steps, values, dtype)._replace(error=jnp.asarray(error, dtype))
    found = vgjax.growth_rates(given, burn_in=1)
    expected = [-0.5, -0.5, -0.5, -np.inf, np.nan, -np.inf]
    np.testing.assert_allclose(found.rate, expected, rtol=1e-5)
    expected = [0, np.inf, 0, np.inf, np.nan, np.nan]
    np.testing.assert_allclose(found.standard_error, expected, atol=1e-6)
    with_jit = jax.jit(functools.partial(vgjax.growth_rates, burn_in=1))(given)
    np.testing.assert_allclose(with_jit.standard_error, expected, atol=1e-6)


def test_two_records_have_an_error_only_if_it_is_infinite(dtype):
    error = jnp.asarray([[0.1, 0.0], [0.1, np.inf]], dtype)
    given = record([10, 20], [[1.0, 1.0], [4.0, 4.0]], dtype)._replace(error=error)
    found = vgjax.growth_rates(given)
    np.testing.assert_array_equal(found.standard_error, [np.nan, np.inf])


def test_errors_of_another_shape_are_refused(dtype):
    given = record([10, 20], [[1.0], [4.0]], dtype)
    sentence = r"`spectrum.error` must have shape \(R=2, N=1\)"
    with pytest.raises(ValueError, match=sentence):
        vgjax.growth_rates(given._replace(error=jnp.ones(2, dtype)))


def test_negative_errors_are_refused(dtype):
    error = jnp.asarray([[0.1], [-0.25]], dtype)
    given = record([10, 20], [[1.0], [4.0]], dtype)._replace(error=error)
    with pytest.raises(ValueError, match="`spectrum.error` must be at least 0.* -0.25"):
        vgjax.growth_rates(given)


def test_values_that_are_no_table_are_refused(dtype):
    one = jnp.ones(3, dtype)
    sentence = r"`spectrum.log_singular_values` must have shape \(R, N\).*\(3,\)"
    with pytest.raises(ValueError, match=sentence):
        vgjax.growth_rates(Spectrum(jnp.arange(3), one, one))


@pytest.mark.float64
@pytest.mark.parametrize("gain", [8.0, 16.0, 32.0])
def test_spectrum_of_a_saturated_network_is_that_of_exact_arithmetic(gain):
    cell = vgjax.cells.build("tanh", 1, 8, key=jax.random.key(1), gain=gain)
    inputs = cell.random_inputs(jax.random.key(2), 40)
    carry = 0.1 * jnp.ones(8)
    found = vgjax.jacobian_spectrum(cell, carry, inputs).log_singular_values

    # The states are ours: chaos would part a trajectory of NumPy's own from them.
    states = np.asarray(vgjax.rollout(cell, carry, inputs).states)
    W, U = np.asarray(cell.a.W[...]), np.asarray(cell.a.U[...])
    a = states[:-1] @ W.T + np.asarray(inputs) @ U.T
    assert np.abs(a).max() > 2 * gain
    J = oracles.tanh_slope(a)[:, :, None] * W
    answers = oracles.log_singular_values(J, {8, 40}, int(150 * gain) + 800)
    for t, answer in answers.items():
        np.testing.assert_allclose(found[t - 1], answer, rtol=0, atol=1e-9)
    assert np.ptp(answers[40]) > 100 * gain
