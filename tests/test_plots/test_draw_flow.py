import inspect

import numpy as np
import pytest
from matplotlib.colors import TwoSlopeNorm
from support.pictures import batch, flow_map, lag_parts, luminance, texts

import vgjax.plots as plots


def test_the_map_is_drawn_with_its_steps_beside_it():
    ax = plots.flow(flow_map(5, -0.5))
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().filled(-np.inf), flow_map(5, -0.5))
    assert image.get_array().mask.sum() == 10
    assert image.get_extent() == [0.5, 5.5, 5.5, 0.5]
    assert "nats" in image.colorbar.ax.get_ylabel()


def test_what_is_larger_is_lighter():
    (image,) = plots.flow(flow_map(30, -0.5)).images
    lightness = [luminance(image.to_rgba(-y / 2)[:3]) for y in range(30)]
    assert (np.diff(lightness) < 0).all()


def test_deep_values_leave_half_of_the_colours_to_the_largest():
    (image,) = plots.flow(flow_map(101, -7.0)).images
    assert isinstance(image.norm, TwoSlopeNorm)
    np.testing.assert_allclose(image.norm([0, -36.0437, -700]), [1, 0.5, 0], atol=1e-5)
    ticks = image.colorbar.get_ticks()
    assert sum(-36 < tick < 1 for tick in ticks) >= 3
    assert sum(-700 <= tick < -100 for tick in ticks) >= 2


def test_other_maps_have_one_scale():
    (image,) = plots.flow(flow_map(11, -7.0)).images
    np.testing.assert_allclose(image.norm([0, -35, -70]), [1, 0.5, 0], atol=1e-12)


def test_a_batch_is_its_mean():
    ax = plots.flow(batch([flow_map(5, -0.5), flow_map(5, -1.5)]))
    found = ax.images[0].get_array().filled(-np.inf)
    np.testing.assert_allclose(found, flow_map(5, -1.0), rtol=1e-12)
    assert "mean of 2" in ax.images[0].colorbar.ax.get_ylabel()


@pytest.mark.parametrize(
    ("value", "why"), [(-np.inf, "all values are −∞"), (np.nan, "all values are NaN")]
)
def test_an_empty_map_is_said_to_be_nothing(value, why):
    ax = plots.flow(np.full((4, 4), value))
    ax.figure.canvas.draw()
    assert texts(ax) == [f"nothing to draw:\n{why}"]
    assert ax.images[0].colorbar is None


def test_one_step_is_a_map():
    ax = plots.flow(np.zeros((1, 1)))
    ax.figure.canvas.draw()
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0]])
    assert texts(ax) == []


def test_other_kinds_and_shapes_are_refused():
    draw = inspect.unwrap(plots.flow)
    with pytest.raises(ValueError, match=r"`measured` must have shape \(T, T\)"):
        draw(np.zeros(4))
    with pytest.raises(TypeError, match="`measured` must be an array, .*LagContrib"):
        draw(lag_parts(np.zeros(4)))
