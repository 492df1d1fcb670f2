import inspect

import numpy as np
import pytest
from support.pictures import batch, lag_parts, legend_of, lines, made, texts

import vgjax.plots as plots

STEADY = -0.5 * np.arange(10.0)


def right_of(ax):
    return [other for other in ax.figure.axes if other is not ax]


def test_norms_and_shares_are_drawn_as_they_are():
    share = np.linspace(0.4, 1, 10)
    ax = plots.lags(lag_parts(STEADY, share))
    (norm,), (fraction,) = lines(ax, "-"), lines(ax, "-.")
    np.testing.assert_array_equal(norm.get_xdata(), np.arange(10))
    np.testing.assert_array_equal(norm.get_ydata(), STEADY)
    np.testing.assert_array_equal(fraction.get_ydata(), share)


def test_the_share_stands_at_its_height_on_the_right_axis():
    ax = plots.lags(lag_parts(STEADY))
    ax.figure.canvas.draw()
    (right,) = right_of(ax)
    assert right.get_ylabel() == "share of the gradient"
    (fraction,) = lines(ax, "-.")
    drawn = fraction.get_transform().transform(fraction.get_xydata())
    wanted = right.transData.transform(fraction.get_xydata())
    np.testing.assert_allclose(drawn, wanted, rtol=1e-12)
    assert (np.array(right.get_yticks()) <= 1.05).all()


def test_a_share_that_leaves_its_range_on_the_way_is_shown():
    ax = plots.lags(lag_parts(STEADY, [-3, 4, *np.ones(8)]))
    low, high = right_of(ax)[0].get_ylim()
    assert low < -3
    assert high > 4


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ([0.2, 0.8, 0.9, 1.0], "\n(90 % by lag 2)"),
        ([1.0, 0.8, 0.95, 1.0], "\n(90 % by lag 2)"),
        ([0.9, 0.9, 0.95, 1.0], "\n(90 % by lag 0)"),
        ([0.2, 0.8, 0.95, 0.5], ""),
    ],
)
def test_the_legend_says_which_lag_explains_the_gradient(share, said):
    ax = plots.lags(lag_parts(STEADY[:4], share))
    assert "share of lags up to this" + said in legend_of(ax)


def test_a_rate_in_theory_is_a_line_through_the_middle_of_what_is_measured():
    ax = plots.lags(lag_parts(3 + STEADY), theory=-0.5)
    np.testing.assert_allclose(lines(ax, "--")[0].get_ydata(), 3 + STEADY, rtol=1e-12)


def test_log_norms_in_theory_are_drawn_where_they_are():
    ax = plots.lags(lag_parts(STEADY), theory=STEADY + 1)
    np.testing.assert_array_equal(lines(ax, "--")[0].get_ydata(), STEADY + 1)


def test_parts_that_are_zero_are_left_out_and_counted():
    norm = STEADY.copy()
    norm[4:7] = -np.inf
    ax = plots.lags(lag_parts(norm))
    assert np.isnan(lines(ax, "-")[0].get_ydata()[4:7]).all()
    assert "norm of the part\n(3 of 10 are zero)" in legend_of(ax)


def test_no_gradient_at_all_is_said_on_the_axes():
    parts = lag_parts(np.full(10, -np.inf), np.full(10, np.nan))
    ax = plots.lags(parts)
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nall values are −∞"]
    assert ax.get_xlim()[1] >= 9
    assert not right_of(ax)


def test_a_batch_is_its_mean_and_one_standard_deviation():
    ax = plots.lags(batch([lag_parts(STEADY + c) for c in (0, 1, 5)]))
    np.testing.assert_allclose(lines(ax, "-")[0].get_ydata(), STEADY + 2, rtol=1e-12)
    spread = np.std([0, 1, 5], ddof=1)
    vertices = ax.collections[0].get_paths()[0].vertices
    for y in (2 - spread, 2 + spread):
        assert np.isclose(vertices, (0, y)).all(axis=1).any()
    assert "mean ± SD of 3" in legend_of(ax)


def test_two_on_one_axes_share_the_right_axis(ax):
    plots.lags(lag_parts(STEADY), ax=ax, label="before")
    plots.lags(lag_parts(STEADY - 1), ax=ax, label="after")
    assert len(right_of(ax)) == 1
    colours = {line.get_color() for line in lines(ax, "-") if len(line.get_xdata())}
    assert len(colours) == 2


def test_other_kinds_and_shapes_are_refused():
    draw = inspect.unwrap(plots.lags)
    with pytest.raises(TypeError, match="`contributions` must be .* but is Spectrum"):
        draw(made([[1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"`theory` must have shape \(T=10,\)"):
        draw(lag_parts(STEADY), theory=np.zeros(3))
