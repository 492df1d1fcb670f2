import numpy as np
from support.pictures import legend_of, lines, texts

import vgjax.plots as plots
from vgjax.spectra import Rates


def test_rates_are_drawn_against_predictions_with_their_errors():
    measured = Rates(np.array([0.2, -0.1]), np.array([0.05, np.nan]))
    ax = plots.rates(measured, np.array([0.25, -0.2]))
    equal = lines(ax, "--")[0]
    assert equal.get_slope() == 1
    assert equal.get_xy1()[0] == equal.get_xy1()[1]
    dots = ax.containers[0].lines[0]
    np.testing.assert_array_equal(dots.get_xdata(), [0.25, -0.2])
    np.testing.assert_array_equal(dots.get_ydata(), [0.2, -0.1])
    bar = ax.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar, [(0.25, 0.15), (0.25, 0.25)], rtol=1e-14)


def test_rates_without_errors_have_no_bars_and_drop_what_has_no_place():
    dead, unknown = -np.inf, np.nan
    ax = plots.rates(
        np.array([0.1, dead, dead, 0.3]), np.array([0.2, 0.1, dead, unknown])
    )
    ax.figure.canvas.draw()
    dots, _, bars = ax.containers[0].lines
    assert bars == ()
    np.testing.assert_array_equal(dots.get_xydata(), [(0.2, 0.1)])
    assert "measured\n(2 directions annihilated)" in legend_of(ax)


def test_a_batch_of_rates_has_bars_of_one_standard_deviation():
    y = np.array([[0.1, -0.5], [0.3, -0.7]])
    ax = plots.rates(y, np.array([0.2, -0.6]))
    dots, _, (bars,) = ax.containers[0].lines
    np.testing.assert_allclose(dots.get_ydata(), [0.2, -0.6], rtol=1e-12)
    spread = np.std([0.1, 0.3], ddof=1)
    found = bars.get_segments()[0][:, 1]
    np.testing.assert_allclose(found, [0.2 - spread, 0.2 + spread], rtol=1e-12)
    assert "measured, mean ± SD of 2" in legend_of(ax)


def test_predictions_of_each_member_have_bars_too():
    both = np.array([[0.1, -0.5], [0.3, -0.7]])
    rates = Rates(both, np.full((2, 2), 0.01))
    _, _, bars = plots.rates(rates, both).containers[0].lines
    assert len(bars) == 2


def test_infinite_rates_are_left_out_and_counted():
    ax = plots.rates(np.array([0.1, np.inf]), np.array([0.2, 0.1]))
    assert "measured\n(1 infinite)" in legend_of(ax)


def test_pairs_of_which_none_is_finite_are_said_to_be_nothing():
    ax = plots.rates(np.full(3, -np.inf), np.zeros(3))
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nno pair is finite"]
    assert not lines(ax, "--")
