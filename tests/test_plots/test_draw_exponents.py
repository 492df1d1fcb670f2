import inspect

import numpy as np
import pytest
from support.pictures import batch, legend_of, lyapunov, made, texts

import vgjax.plots as plots


def star(ax):
    (point,) = [line for line in ax.lines if line.get_marker() in ("*", ">")]
    return point


def test_exponents_are_drawn_with_their_errors():
    ax = plots.exponents(lyapunov([0.2, -0.1, -0.5], error=[0.01, 0.02, 0.03]))
    dots, _, (bars,) = ax.containers[0].lines
    np.testing.assert_array_equal(dots.get_xydata(), [(1, 0.2), (2, -0.1), (3, -0.5)])
    np.testing.assert_allclose(bars.get_segments()[1], [(2, -0.12), (2, -0.08)])
    assert "exponents ± standard error" in legend_of(ax)


def test_the_star_is_at_the_kaplan_yorke_dimension():
    # 2 + 0.9 / 14.5, as for the Lorenz system.
    ax = plots.exponents(lyapunov([0.9, 0.0, -14.5]))
    np.testing.assert_allclose(star(ax).get_xydata(), [(2 + 0.9 / 14.5, 0)], rtol=1e-6)
    assert "Kaplan–Yorke dimension\n2.06" in legend_of(ax)


@pytest.mark.parametrize(
    ("exponents", "N", "marker", "said"),
    [
        ([0.2, 0.1], 5, ">", "at least 2"),
        ([0.2, 0.1], 2, "*", "2"),
        ([-0.2, -0.5], 2, "*", "0"),
    ],
)
def test_a_dimension_that_more_exponents_would_raise_is_a_bound(
    exponents, N, marker, said
):
    ax = plots.exponents(lyapunov(exponents, N=N))
    assert star(ax).get_marker() == marker
    assert f"Kaplan–Yorke dimension\n{said}" in legend_of(ax)


def test_exponents_that_are_round_off_are_hollow():
    measured = lyapunov([0.2, -0.1, -30.0], resolved=[True, True, False])
    ax = plots.exponents(measured)
    solid, hollow = [container.lines[0] for container in ax.containers]
    np.testing.assert_array_equal(hollow.get_xydata(), [(3, -30)])
    assert hollow.get_markerfacecolor() == "white"
    assert len(solid.get_xdata()) == 2
    assert "only round-off" in legend_of(ax)


def test_annihilated_directions_are_left_out_and_counted():
    ax = plots.exponents(lyapunov([0.2, -0.5, -np.inf]))
    assert len(ax.containers[0].lines[0].get_xdata()) == 2
    assert "exponents ± standard error\n(1 direction annihilated)" in legend_of(ax)


def test_deep_exponents_leave_those_of_the_attractor_readable():
    ax = plots.exponents(lyapunov([0.2, 0.0, -0.5, -60.0]))
    ax.figure.canvas.draw()
    y = ax.transData.transform([(0, 0.2), (0, -0.5)])[:, 1]
    assert y[0] - y[1] > 0.25 * ax.get_window_extent().height
    assert "finer scale above" in texts(ax)


def test_a_batch_is_its_mean_and_one_standard_deviation():
    both = [lyapunov([0.2, 0.0, -0.5]), lyapunov([0.4, 0.0, -0.5])]
    ax = plots.exponents(batch(both))
    dots, _, (bars,) = ax.containers[0].lines
    np.testing.assert_allclose(dots.get_ydata(), [0.3, 0, -0.5], atol=1e-12)
    spread = np.std([0.2, 0.4], ddof=1)
    found = bars.get_segments()[0][:, 1]
    np.testing.assert_allclose(found, [0.3 - spread, 0.3 + spread], rtol=1e-12)
    # The mean of the dimensions, 2.4 and 2.8, and not that of the mean.
    assert "Kaplan–Yorke dimension\n2.6 ± 0.28" in legend_of(ax)
    assert "exponents, mean ± SD of 2" in legend_of(ax)


def test_no_finite_exponent_is_said_on_the_axes():
    ax = plots.exponents(lyapunov([-np.inf, -np.inf]))
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nno exponent is finite"]


def test_other_kinds_are_refused():
    with pytest.raises(TypeError, match="`measured` must be a Lyapunov, .* Spectrum"):
        inspect.unwrap(plots.exponents)(made([[1.0, 0.0]]))
