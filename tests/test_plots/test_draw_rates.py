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
