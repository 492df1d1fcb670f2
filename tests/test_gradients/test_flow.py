"""From every step the loss reads back to every state: the map."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_cases import case
from gradient_systems import paths

from vgjax import gradients, steps


@pytest.mark.parametrize("kind", ["last", "outputs", "mixed", "given"])
def test_flow_is_that_of_the_cotangents_carried_by_hand(kind, dtype, tolerance):
    arguments, hand = case(kind, dtype)
    found = np.asarray(gradients.gradient_flow(*arguments))
    _, carried, _ = paths(*hand)
    with np.errstate(divide="ignore"):
        wanted = np.log(np.linalg.norm(carried[:, 1:], axis=2))
    np.testing.assert_allclose(found, wanted, atol=tolerance(1e-12, 1e-4))
    assert np.isneginf(found[np.triu_indices(len(found), 1)]).all()
    assert np.isneginf(np.diag(found)).all() == (kind == "outputs")
    assert found.dtype == dtype


def scale(w, h, x):
    return w * h + x, None


@pytest.mark.parametrize("w", [0.5, 3.0])
def test_flow_over_1500_steps_is_a_plane(w, dtype, tolerance):
    T = 1500
    step = steps.from_function(scale, jnp.asarray(w, dtype))
    h, x = jnp.zeros(1, dtype), jnp.zeros((T, 1), dtype)
    found = gradients.gradient_flow(step, h, x, jnp.ones((T + 1, 1), dtype))
    t = np.arange(T)
    lag = t[:, None] - t[None, :]
    wanted = np.where(lag < 0, -np.inf, lag * math.log(w))
    np.testing.assert_allclose(found, wanted, atol=tolerance(1e-11, 1e-3))


def test_later_states_do_not_matter_even_beside_a_nan(dtype):
    x = jnp.ones((6, 1), dtype).at[3].set(jnp.nan)
    step = steps.from_function(lambda w, h, x: (w * h * x, None), jnp.ones(1, dtype))
    given = jnp.ones((7, 1), dtype)
    found = np.asarray(gradients.gradient_flow(step, x[0], x, given))
    assert np.isneginf(found[np.triu_indices(6, 1)]).all()
    assert np.isnan(found[3, :3]).all()
    assert np.isfinite(found[2, :3]).all()


@pytest.mark.float64
def test_map_is_all_that_is_held_of_its_size():
    T = 600

    def measure(w, x):
        step = steps.from_function(scale, w)
        return gradients.gradient_flow(step, x[0], x, jnp.ones((T + 1, 2)))

    given = [jax.ShapeDtypeStruct(shape, float) for shape in ((2,), (T, 2))]
    used = jax.jit(measure).lower(*given).compile().memory_analysis()
    assert used.output_size_in_bytes >= 8 * T**2
    assert used.temp_size_in_bytes < 0.2 * 8 * T**2
