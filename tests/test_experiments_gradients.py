import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiments import FILES, load, run_toy

import vgjax

# Importing an experiment switches 64-bit mode on, for good.
pytestmark = pytest.mark.float64

WEIGHTS = "long_term_weights_are_exponentially_small"
POWER = "the_power_method_inside_backpropagation"
CELLS = ("GRU",)
WHEN = ("before", "after")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def weights(out):
    return run_toy(WEIGHTS, out)


@pytest.fixture(scope="module")
def power(out):
    return run_toy(POWER, out)


# Weights by lag


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("when", WHEN)
def test_parts_of_every_lag_are_measured_and_make_the_whole(weights, cell, when):
    _, arrays = weights
    config = load(WEIGHTS).TOY
    of = {key: arrays[f"{cell}/{when}/{key}"] for key in ("log_norm", "fraction")}
    for found in of.values():
        assert found.shape == (config.images, 64)
        assert np.all(np.isfinite(found))
    np.testing.assert_allclose(of["fraction"][:, -1], 1, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_untrained_parts_fall_exponentially_with_the_leading_value(weights, cell):
    content, _ = weights
    names = ("slope", "explained", "predicted_slope")
    of = {key: content["numbers"][f"{cell}/before/{key}"] for key in names}
    assert of["slope"] < -0.1
    assert of["explained"] > 0.99
    assert of["slope"] == pytest.approx(of["predicted_slope"], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("when", WHEN)
def test_map_is_read_from_its_diagonal(weights, cell, when):
    _, arrays = weights
    flow = arrays[f"{cell}/{when}/flow"]
    assert flow.shape == (64, 64)
    np.testing.assert_array_equal(np.diagonal(flow), 0)
    assert np.all(np.isfinite(flow[np.tril_indices(64)]))
    assert np.all(flow[np.triu_indices(64, 1)] == -np.inf)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_signal_is_the_mean_gradient_by_lag(weights, cell):
    _, arrays = weights
    of = {k: arrays[f"{cell}/before/{k}"] for k in ("log_signal", "log_noise", "ratio")}
    np.testing.assert_allclose(
        of["ratio"], np.exp(of["log_signal"] - of["log_noise"]), rtol=1e-12
    )
    # A mean is no longer than its members.
    assert np.all(of["log_signal"] <= arrays[f"{cell}/before/log_norm"].max(0))


@pytest.mark.parametrize("cell", ["tanh", "GRU", "LSTM"])
def test_losses_read_the_hidden_state_at_the_end_and_at_every_step(cell):
    module = load(WEIGHTS)
    trained = load("spectra_of_trained_cells")
    network = trained.build(cell, dataclasses.replace(trained.TOY, features=3))
    network = jax.tree.map(lambda a: a.astype(jnp.float64), network)
    image = jax.random.normal(jax.random.key(1), (5, 1))
    carry = trained.start(network, image.dtype)
    kernel, bias = (
        np.asarray(a) for a in (network.readout.kernel, network.readout.bias)
    )
    expected = []
    for pixel in image:
        carry, h = network.cell(carry, pixel)  # the output is the hidden state
        logits = np.asarray(h) @ kernel + bias
        expected.append(np.log(np.exp(logits).sum()) - logits[4])
    trajectory = vgjax.rollout(network.cell, trained.start(network, image.dtype), image)
    label = jnp.asarray(4)
    found = module.loss_at_end(network.readout, label, trajectory)
    assert float(found) == pytest.approx(expected[-1], rel=1e-12)
    found = module.loss_at_every_step(network.readout, label, trajectory)
    assert float(found) == pytest.approx(sum(expected), rel=1e-12)


def test_lag_of_most_is_where_the_fraction_stays():
    module = load(WEIGHTS)
    fraction = np.array(
        [[0.95, 0.5, 0.92, 1.0], [0.95, 1.0, 1.0, 1.0], [0.2, 1.3, 0.3, 1.0]]
    )
    np.testing.assert_array_equal(module.lag_of_most(fraction), [2, 0, 3])


def test_signal_is_hidden_from_where_it_stays_below_the_noise():
    hidden = load(WEIGHTS).hidden
    assert hidden(np.array([1.0, -1.0, 0.5, -2.0, -3.0])) == 3
    assert hidden(np.array([-1.0, -2.0])) == 0
    assert hidden(np.array([-1.0, 2.0])) == 2


# The power method


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["symmetric", "normal", "normal, pair", "tanh"])
def test_gradients_turn_at_the_rate_of_the_second_eigenvalue(power, kind):
    _, arrays = power
    slope = arrays[f"{kind}/slope"]
    assert slope.shape == (load(POWER).TOY.draws,)
    np.testing.assert_allclose(slope, arrays[f"{kind}/predicted_slope"], rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["all", "rest"])
def test_no_onset_is_later_than_theory_allows(power, family):
    _, arrays = power
    of = {k: arrays[f"{family}/{k}"] for k in ("onset", "bound", "condition")}
    assert np.all(of["onset"] <= of["bound"] + 1)
    np.testing.assert_allclose(of["condition"][0], 1, rtol=1e-6)
    assert np.all(of["condition"][1] > 2)


@pytest.mark.slow
def test_coupling_the_rest_makes_a_detour(power):
    _, arrays = power
    later = arrays["rest/onset"] - arrays["rest/onset"][:1]
    # That of R is of the worst direction; one step is a lag's round-off.
    assert np.all(later[1] <= arrays["rest/detour"][1] + 5)
    assert later[1].mean() > 1


def test_slope_is_that_of_the_tangent_between_the_bounds():
    fitted = load(POWER).fitted
    lags = np.arange(0, 200, 2)
    angle = np.arctan(np.exp(5 - 0.2 * lags)) + 1e-14
    assert fitted(lags, angle) == pytest.approx(-0.2, rel=1e-3)
    assert np.isnan(fitted(lags, np.full(len(lags), 0.5)))


def test_crossing_is_the_first_lag_after_the_last_above():
    crossing = load(POWER).crossing
    angle = np.array([[1.0, 0.05, 0.2, 0.05], [0.05, 0.05, 0.05, 0.05]])
    np.testing.assert_array_equal(crossing(angle, 0.1), [4, 1])


def test_third_eigenvalue_is_close_whatever_shares_a_modulus():
    rates = np.array(
        [[0.0, -0.1, -0.12], [0.0, -0.1, -0.2], [0.0, 0.0, -0.1], [-1, -1.1, -1.1]]
    )
    found = load(POWER).third_is_close(rates)
    np.testing.assert_array_equal(found, [True, False, False, False])


def test_chosen_matrices_have_the_eigenvalues_they_are_chosen_for():
    module = load(POWER)
    config = dataclasses.replace(module.TOY, size=6)
    for kind in module.CHOSEN:
        for W in np.asarray(module.chosen(jax.random.key(3), kind, config)):
            np.testing.assert_allclose(W @ W.T, W.T @ W, rtol=0, atol=1e-12)
            values = np.linalg.eigvals(W)
            sizes = np.sort(np.abs(values))[::-1]
            assert sizes[0] == pytest.approx(module.RADIUS)
            leading = values[np.argmax(np.abs(values))]
            assert (leading.imag != 0) == (kind == "normal, pair")
            second = sizes[sizes < sizes[0] * (1 - 1e-9)]
            third = second[second < second[0] * (1 - 1e-9)]
            gap = np.log(sizes[0] / second[0])
            assert 0.05 <= gap <= 0.3
            assert np.log(sizes[0] / third[0]) >= 2 * gap - 1e-9


def test_detour_is_the_largest_power_of_the_block_of_other_modes():
    module = load(POWER)
    R = np.array([[0.5, 2.0], [0.0, 0.4]])
    W = np.zeros((3, 3))
    W[0, 0], W[1:, 1:] = 0.9, R
    powers = [np.linalg.matrix_power(R / 0.5, t) for t in range(1, 31)]
    expected = np.log(max(np.linalg.norm(P, 2) for P in powers))
    found = module.detour(jnp.asarray(W)[None], np.arange(1, 31))
    np.testing.assert_allclose(found, [expected], rtol=1e-10)


# Files


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fixture"), [(WEIGHTS, "weights"), (POWER, "power")])
def test_results_are_written_with_all_it_takes_to_repeat_them(
    out, request, name, fixture
):
    content, _ = request.getfixturevalue(fixture)
    assert {path.name for path in (out / name).iterdir()} == FILES
    config = dataclasses.asdict(load(name).TOY)
    assert content["config"] == json.loads(json.dumps(config))
    statements = [e["statement"] for e in content["expectations"]]
    assert [s[:2] for s in statements] == [f"{i}." for i in range(1, 10)]
