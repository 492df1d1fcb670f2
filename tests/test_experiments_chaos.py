"""Experiments on random networks: the edge of chaos, and how often gradients die."""

import json

import numpy as np
import pytest
from test_experiments import FILES, claimed, load, run_toy

# Importing an experiment switches 64-bit mode on, for good.
pytestmark = pytest.mark.float64

EDGE = "edge_of_chaos"
VANISH = "vanish_often_explode_rarely"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def edge(out):
    return run_toy(EDGE, out)


@pytest.fixture(scope="module")
def vanish(out):
    return run_toy(VANISH, out)


# The edge of chaos


@pytest.mark.slow
def test_networks_below_the_edge_die_at_the_rate_of_their_eigenvalue(edge):
    _, arrays = edge
    for N in load(EDGE).lab.toy.sizes:
        found, radius = (
            arrays[f"leading/N={N}/{what}"][0] for what in ("exponent", "log_radius")
        )
        assert np.ptp(radius) > 0.01  # they would not all agree by chance
        np.testing.assert_allclose(found, radius, rtol=0, atol=0.01)


@pytest.mark.slow
def test_whole_spectra_descend_and_bound_dimension_and_entropy(edge):
    _, arrays = edge
    (N,) = load(EDGE).lab.toy.whole_sizes
    spectra = arrays[f"whole/N={N}/exponents"]
    assert np.all(np.diff(spectra) <= 0)
    positive = np.where(spectra > 0, spectra, 0)
    entropy = arrays[f"whole/N={N}/entropy"]
    np.testing.assert_allclose(entropy, positive.sum(-1) / N, rtol=1e-12, atol=0)
    dimension = arrays[f"whole/N={N}/dimension"]
    assert np.all(dimension * N >= (spectra > 0).sum(-1))
    assert np.all(dimension < 0.5)


# Vanishing and exploding


@pytest.mark.parametrize(("name", "rest"), [("gru", 0.5), ("lstm", 0.7310585786)])
def test_gated_cells_at_rest_have_the_predicted_leading_eigenvalue(name, rest):
    module = load(VANISH)
    # W = g I, whose largest eigenvalue is g.
    predicted = np.exp(module.predicted_rate(name, 0.8, module.Config()))
    if name == "gru":
        J = rest * np.eye(1) + 0.25 * 0.8
    else:
        J = np.array([[rest, 0.8 / 2], [rest / 2, 0.8 / 4]])
    largest = np.abs(np.linalg.eigvals(J)).max()
    assert predicted == pytest.approx(largest, rel=1e-9)


def test_flip_is_where_half_of_the_networks_cross():
    module = load(VANISH)
    config = module.Config()
    gains = np.geomspace(config.lowest, config.highest, 20_001)
    found = module.flip(gains, gains > 0.9, config)
    assert found == pytest.approx(0.9, rel=0.08)  # half a bin
    assert np.isnan(module.flip(gains, gains > 4, config))
    assert module.predicted_flip("relu", -10, 200, config) == pytest.approx(
        2**0.5 * np.exp(-0.05), rel=1e-9
    )
    assert np.isnan(module.predicted_flip("gru", 10, 200, config))


@pytest.mark.slow
def test_shares_of_networks_are_those_of_their_norms(vanish):
    content, arrays = vanish
    module = load(VANISH)
    for name in module.CELLS:
        log_norm, gain = arrays[f"{name}/log_norm"], arrays[f"{name}/gain"]
        assert log_norm.shape == (module.lab.toy.networks, 2)
        assert np.ptp(np.log(gain)) > 2
        assert 0.3 <= gain.min() < gain.max() <= 3
        for T, after in zip(module.lab.toy.steps, log_norm.T, strict=True):
            of = content["numbers"]
            assert of[f"{name}/T={T}/vanished"] == np.mean(after < -10)
            assert of[f"{name}/T={T}/exploded"] == np.mean(after > 10)
        # What a norm is of grows with the gain.
        strong = gain > 1
        assert np.median(log_norm[strong]) > np.median(log_norm[~strong])


@pytest.mark.slow
def test_norms_with_and_without_jacobians_agree(vanish):
    _, arrays = vanish
    for name in load(VANISH).COMPARED:
        again = arrays[f"{name}/without_jacobians"]
        whole = arrays[f"{name}/log_norm"][: len(again), 1]
        assert np.ptp(whole) > 1
        np.testing.assert_allclose(again, whole, rtol=0, atol=1e-8)


# Files


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [(EDGE, 6), (VANISH, 7)])
def test_results_are_written_with_every_expectation(out, request, name, count):
    content, _ = request.getfixturevalue("edge" if name == EDGE else "vanish")
    assert {path.name for path in (out / name).iterdir()} == FILES
    assert claimed(content) == [f"{i}." for i in range(1, count + 1)]
    text = (out / name / "results.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)
