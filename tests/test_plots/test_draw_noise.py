import inspect

import numpy as np
import pytest
from support.pictures import batch, lag_parts, legend_of, lines, signal_and_noise, texts

import vgjax.plots as plots


def shaded(ax):
    (area,) = [area for area in ax.collections if area.get_zorder() == 0]
    return [(p.vertices[:, 0].min(), p.vertices[:, 0].max()) for p in area.get_paths()]


def test_signal_and_noise_are_drawn_as_they_are():
    ax = plots.noise(signal_and_noise([0, -1, -2], [-3, -3, -3]))
    (signal,), (noise,) = lines(ax, "-"), lines(ax, "-.")
    np.testing.assert_array_equal(signal.get_xydata(), [(0, 0), (1, -1), (2, -2)])
    np.testing.assert_array_equal(noise.get_ydata(), [-3, -3, -3])
    assert legend_of(ax) == ["signal", "noise"]


def test_lags_that_drown_are_shaded():
    ax = plots.noise(signal_and_noise([0, -1, -4, -2, -5], [-3] * 5))
    assert shaded(ax) == [(1.5, 2.5), (3.5, 4.5)]
    assert "noise above signal\n(first at lag 2)" in legend_of(ax)


def test_a_signal_of_zero_drowns_in_any_noise():
    ax = plots.noise(signal_and_noise([0, -np.inf, -1], [-3, -3, -np.inf]))
    assert shaded(ax) == [(0.5, 1.5)]
    assert "signal\n(1 of 3 are zero)" in legend_of(ax)
    assert "noise\n(1 of 3 are zero)" in legend_of(ax)


def test_a_batch_is_its_mean_and_one_standard_deviation():
    ax = plots.noise(batch([signal_and_noise([c, c], [-3, -3]) for c in (0, 1, 5)]))
    np.testing.assert_allclose(lines(ax, "-")[0].get_ydata(), [2, 2], rtol=1e-12)
    vertices = ax.collections[0].get_paths()[0].vertices
    spread = np.std([0, 1, 5], ddof=1)
    for y in (2 - spread, 2 + spread):
        assert np.isclose(vertices, (0, y)).all(axis=1).any()
    assert "mean ± SD of 3" in legend_of(ax)


def test_no_gradient_at_all_is_said_on_the_axes():
    ax = plots.noise(signal_and_noise([-np.inf] * 3, [-np.inf] * 3))
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nall values are −∞"]


def test_other_kinds_are_refused():
    with pytest.raises(TypeError, match="`measured` must be a SignalToNoise, .*LagCon"):
        inspect.unwrap(plots.noise)(lag_parts(np.zeros(4)))
