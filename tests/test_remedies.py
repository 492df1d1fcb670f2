"""The experiment that compares all remedies, and the table that it prints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiments import load, run_toy

from vgjax import cells

# Importing an experiment switches 64-bit mode on, for good.
pytestmark = pytest.mark.float64

NAME = "remedies_at_initialisation"


@pytest.fixture(scope="module")
def module():
    return load(NAME)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return run_toy(NAME, tmp_path_factory.mktemp("results"))


@pytest.mark.slow
def test_what_the_toy_can_tell_comes_true(toy):
    content, _ = toy
    found = {e["statement"][0]: e["came_true"] for e in content["expectations"]}
    assert found == {"1": True, "3": True, "5": True}


@pytest.mark.slow
def test_records_are_by_lag_and_rates_are_their_slopes(toy, module):
    _, arrays = toy
    config = module.TOY
    lags = arrays["lru/lags"]
    np.testing.assert_array_equal(lags, np.arange(4, config.steps + 1, 4))
    for name in config.cells:
        values = arrays[f"{name}/log_singular_values"]
        assert values.shape == (config.seeds, len(lags), config.state)
        assert arrays[f"{name}/log_gradient"].shape == (config.seeds, config.steps)
    values = module.three(arrays["lstm/log_singular_values"])
    slopes = [np.polyfit(lags, v, 1)[0] for v in values]
    np.testing.assert_allclose(arrays["lstm/rates"], slopes, rtol=1e-9)
    above = np.log(config.carrying) < arrays["lru/log_singular_values"][:, -1]
    np.testing.assert_array_equal(arrays["lru/carrying"], above.sum(1))


@pytest.mark.slow
def test_gradients_lie_between_the_singular_values(toy):
    _, arrays = toy
    for name in ("tanh", "lstm"):
        gradient = arrays[f"{name}/log_gradient"][:, 3::4]
        values = arrays[f"{name}/log_singular_values"]
        assert np.all(gradient < values[..., 0] + 1e-9)
        assert np.all(gradient > values[..., -1] - 1e-9)


def test_a_cotangent_is_pulled_back_through_the_last_factors_first(module):
    J = np.random.default_rng(0).standard_normal((5, 3, 3))
    J[1] = 0
    delta = np.array([1.0, -2.0, 0.5])
    product, expected = np.eye(3), []
    for factor in J[::-1]:
        product = product @ factor
        expected.append(np.linalg.norm(product.T @ delta))
    found = module.pulled_back(jnp.asarray(J), jnp.asarray(delta))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-12, atol=0)
    assert np.isneginf(found[3:]).all()


def test_predictions_are_eigenvalues_at_rest_or_closed_forms(module):
    config = module.TOY
    remedies = module.remedies(config.state)
    cell = module.build("tanh", 1, config)
    found = module.predict(cell, remedies["tanh"])
    rates = np.log(np.abs(np.linalg.eigvals(np.asarray(cell.a.W[...]))))
    np.testing.assert_allclose(found, -np.sort(-rates), rtol=1e-9)
    attention = module.build("attention", 1, config)
    assert np.isneginf(module.predict(attention, remedies["attention"])).all()
    assert not module.predict(cell, remedies["cayley"]).any()
    assert np.isnan(module.predict(cell, remedies["relu"])).all()


def test_what_survives_comes_first(module):
    measured = {
        name: {
            "carrying": np.array([carrying]),
            "log_gradient": np.array([[0.0, gradient]]),
        }
        for name, carrying, gradient in [
            ("dead", 0, -np.inf),
            ("fades", 0, -3.0),
            ("kept", 2, -1.0),
            ("grows", 2, 4.0),
        ]
    }
    assert module.ranked(measured) == ["grows", "kept", "fades", "dead"]


def test_every_cell_of_the_zoo_is_compared_at_one_size(module):
    assert tuple(module.remedies(28)) == cells.names()
    for name in cells.names():

        def first_carry(name=name):
            cell = module.build(name, 0, module.Config())
            return cell.initialize_carry(rngs=jax.random.key(0))

        leaves = jax.tree.leaves(jax.eval_shape(first_carry))
        sizes = [a.size for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)]
        assert sum(sizes) == 28, name


def test_the_list_has_every_cell_with_its_size_and_its_checks(module, capsys):
    module.show_zoo(module.Config())
    printed = " ".join(capsys.readouterr().out.split())
    for name, *rest in [
        ("tanh", "924", "28", "diag(phi') W; mpmath at gain 8, 16, 32"),
        ("skip", "133", "28 = 4 x 7", "companion blocks; tanh of W + V at d = 1"),
        ("attention", "13", "28 = 28 x 1", "NumPy softmax; 1 or 0"),
        ("shared_transformer", "651", "28 = 4 x 7", "equals its layer repeated"),
    ]:
        assert " ".join([name, *rest]) in printed
    rows = {name: rest for name, *rest in module.zoo_table(module.Config())}
    assert tuple(rows) == cells.names()
    for name, (count, size, checked) in rows.items():
        assert f"{name} {count} {size} {checked}" in printed


def test_cells_and_sizes_that_do_not_fit_are_refused(module):
    wrong = dataclasses.replace(module.TOY, cells=("tanh", "lsmt"))
    with pytest.raises(SystemExit, match=r"--cells must be of linear, .* has lsmt\."):
        module.chosen(wrong)
    wrong = dataclasses.replace(module.TOY, state=30)
    with pytest.raises(SystemExit, match="--state must be a multiple of 28, but is 30"):
        module.chosen(wrong)
