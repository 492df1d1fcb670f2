import matplotlib.pyplot as plt
import numpy as np
import pytest
from support.pictures import (
    DRAW,
    batch,
    legend_of,
    lines,
    luminance,
    made,
    straight,
    texts,
    with_errors,
)

import vgjax.plots as plots


def test_spectrum_draws_every_value_as_it_is():
    rates = [0.1, -0.2, -0.7]
    drawn = lines(plots.spectrum(straight(rates)), "-")
    assert len(drawn) == 3
    for line, rate in zip(drawn, rates, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 21))
        np.testing.assert_array_equal(line.get_ydata(), np.arange(1, 21) * rate)


def test_rates_in_theory_are_dashed_straight_lines_from_zero():
    drawn = lines(
        plots.spectrum(straight([0.1, -0.2]), theory=np.array([-0.3, 0.2])), "--"
    )
    assert len(drawn) == 2
    for line, rate in zip(drawn, [0.2, -0.3], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 20])
        np.testing.assert_allclose(line.get_ydata(), [0, 20 * rate], rtol=1e-15)


def test_a_spectrum_in_theory_is_dashed_at_its_own_steps():
    theory = made([[1.0, 0.5], [3.0, -1.0]], steps=[5, 9])
    drawn = lines(plots.spectrum(straight([0.1, -0.2]), theory=theory), "--")
    np.testing.assert_array_equal(drawn[0].get_xdata(), [5, 9])
    np.testing.assert_array_equal(drawn[1].get_ydata(), [0.5, -1.0])


def test_many_values_are_a_fan_with_largest_median_and_smallest():
    rates = np.linspace(0.5, -1.5, 33)
    ax = plots.spectrum(straight(rates), theory=rates, label="tanh")
    largest, median, smallest = lines(ax, "-")
    for line, rate in ((largest, 0.5), (median, -0.5), (smallest, -1.5)):
        np.testing.assert_allclose(line.get_ydata()[-1], 20 * rate, rtol=1e-14)
    assert len({line.get_marker() for line in (largest, median, smallest)}) == 3
    assert len(lines(ax, "--")) == 3
    edges = [band.get_paths()[0].vertices[:, 1] for band in ax.collections]
    assert edges[0].min() == pytest.approx(-30)
    assert edges[0].max() == pytest.approx(10)
    assert edges[-1].min() > edges[0].min()
    shown = ["tanh: all, 80 %, 50 %", "tanh: largest", "tanh: median", "tanh: smallest"]
    assert sorted(legend_of(ax)) == sorted([*shown, "theory"])


@pytest.mark.parametrize("N", [4, 40])
def test_annihilated_directions_are_left_out_and_counted(N):
    spectrum = straight(np.linspace(0.5, -0.5, N))
    spectrum.log_singular_values[8:, -2:] = -np.inf
    theory = np.r_[np.linspace(0.5, 0, N - 1), -np.inf]
    ax = plots.spectrum(spectrum, theory=theory)
    ax.figure.canvas.draw()
    assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
    assert not any(np.isinf(line.get_ydata()).any() for line in ax.lines)
    labels = " ".join(legend_of(ax))
    assert "(2 directions annihilated)" in labels
    assert "theory\n(1 direction annihilated)" in labels
    alive = spectrum.log_singular_values[-1, N - 3]
    ends = [line.get_ydata()[-1] for line in lines(ax, "-")]
    assert np.nanmin(ends) == alive


@pytest.mark.parametrize("N", [3, 30])
def test_rows_of_nan_are_skipped(N):
    spectrum = straight(np.linspace(0.1, -0.1, N))
    spectrum.log_singular_values[5:] = np.nan
    ax = plots.spectrum(spectrum)
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 6))
    spectrum.log_singular_values[:] = np.nan
    plots.spectrum(spectrum, theory=spectrum).figure.canvas.draw()


def test_one_record_is_a_visible_dot():
    assert plots.spectrum(made([[1.0, 0.0]])).lines[0].get_marker() == "."


def test_errors_below_what_a_line_is_wide_change_nothing():
    plain = plots.spectrum(straight([0.1, -0.2, -0.7]))
    found = plots.spectrum(with_errors(straight([0.1, -0.2, -0.7]), 0.09))
    assert not found.collections
    assert legend_of(found) == legend_of(plain)
    assert len(found.lines) == len(plain.lines)


def test_finite_errors_are_a_band_about_their_values():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), [0.0, 0.5, 0.05])
    spectrum.error[-1, 1] = 2
    ax = plots.spectrum(spectrum)
    (band,) = ax.collections
    vertices = band.get_paths()[0].vertices
    for place in [(1, -0.7), (1, 0.3), (20, -6), (20, -2)]:
        assert np.isclose(vertices, place).all(axis=1).any()
    assert "± error" in legend_of(ax)
    assert len(lines(ax, "-")) == 3


def test_the_lines_of_a_fan_have_their_bands():
    spectrum = straight(np.linspace(1, -1, 30))
    off = np.full((20, 30), 0.01)
    off[:, -1] = 3.0
    fan = len(plots.spectrum(spectrum).collections)
    ax = plots.spectrum(spectrum._replace(error=off))
    assert len(ax.collections) == fan + 1
    vertices = ax.collections[-1].get_paths()[0].vertices
    for place in [(20, -23), (20, -17)]:
        assert np.isclose(vertices, place).all(axis=1).any()
    assert "± error" in legend_of(ax)


def test_the_band_of_one_record_is_seen():
    spectrum = made([[1.0, 0.0]])._replace(error=np.array([[0.5, 0.0]]))
    ax = plots.spectrum(spectrum)
    ax.figure.canvas.draw()
    (band,) = ax.collections
    extent = band.get_paths()[0].vertices
    assert (extent[:, 1].min(), extent[:, 1].max()) == (0.5, 1.5)
    assert band.get_linewidth()[0] > 0


def test_undecided_values_are_dotted_and_hollow_and_counted():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), 1e-12)
    spectrum.error[10:, 1:] = np.inf
    spectrum.error[15:, 0] = np.inf
    ax = plots.spectrum(spectrum)
    largest, middle, _ = lines(ax, "-")
    assert np.isfinite(largest.get_ydata()).sum() == 15
    assert np.isfinite(middle.get_ydata()).sum() == 10
    late, early, _ = lines(ax, ":")
    # From the last value that is decided, that no gap is left.
    np.testing.assert_array_equal(np.isfinite(late.get_ydata()), np.arange(20) >= 14)
    np.testing.assert_array_equal(np.isfinite(early.get_ydata()), np.arange(20) >= 9)
    assert late.get_markevery()[0] == 15
    assert early.get_markevery()[0] == 10
    assert early.get_markerfacecolor() == "white"
    assert "3 of 3 values\nundecided from step 11 on" in legend_of(ax)
    ax.figure.canvas.draw()


def test_annihilation_that_rounding_decides_is_told_from_the_certain():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), 0.0)
    spectrum.log_singular_values[8:, 1:] = -np.inf
    spectrum.error[8:, 1] = np.inf
    ax = plots.spectrum(spectrum)
    assert legend_of(ax) == [
        "measured\n(2 directions annihilated,\n 1 of them undecided)"
    ]
    assert not lines(ax, ":")


def test_what_is_annihilated_is_not_counted_among_the_undecided_again():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), 0.0)
    spectrum.log_singular_values[8:, 2] = -np.inf
    spectrum.error[8:, 1:] = np.inf
    assert legend_of(plots.spectrum(spectrum)) == [
        "measured\n(1 direction annihilated,\n 1 of them undecided)",
        "1 of 3 values\nundecided from step 9 on",
    ]


def test_an_error_that_is_nan_is_drawn_as_undecided():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), np.nan)
    ax = plots.spectrum(spectrum)
    assert len(lines(ax, ":")) == 3
    assert not np.isfinite([line.get_ydata() for line in lines(ax, "-")]).any()
    assert "3 of 3 values\nundecided from step 1 on" in legend_of(ax)


def test_negative_errors_are_refused():
    spectrum = with_errors(straight([0.1, -0.2, -0.7]), -0.5)
    with pytest.raises(ValueError, match="`spectrum.error` must be at least 0.* -0.5"):
        plots.spectrum(spectrum)


def test_a_fan_says_how_many_are_undecided_at_the_end():
    spectrum = straight(np.linspace(0.5, -1.5, 33))
    error = np.zeros((20, 33))
    error[12:, 20:], error[5:9, 0] = np.inf, np.inf
    ax = plots.spectrum(spectrum._replace(error=error))
    assert "13 of 33 values\nundecided at the end" in legend_of(ax)
    ax.figure.canvas.draw()
    solid = [np.isfinite(line.get_ydata()).sum() for line in lines(ax, "-")]
    assert solid == [16, 20, 12]
    hollow = [line for line in lines(ax, ":") if len(line.get_xdata())]
    assert [line.get_marker() for line in hollow] == ["^", "v"]
    assert all(line.get_markerfacecolor() == "white" for line in hollow)


def test_errors_of_another_shape_are_refused():
    spectrum = straight([0.1, -0.2, -0.7])._replace(error=np.zeros(3))
    sentence = r"`spectrum.error` must have shape \(R=20, N=3\)"
    with pytest.raises(ValueError, match=sentence):
        plots.spectrum(spectrum)


def test_theory_and_measurement_differ_without_colour():
    measured, _, theory, _ = DRAW["spectrum"]().lines
    assert measured.get_linestyle() != theory.get_linestyle()
    darker = luminance(measured.get_color()) - luminance(theory.get_color())
    assert darker > 0.3


def test_values_are_paler_from_the_largest_to_the_smallest():
    drawn = lines(plots.spectrum(straight(np.linspace(1, -1, 16))), "-")
    lightness = [luminance(line.get_color()) for line in drawn]
    assert (np.diff(lightness) > 0.005).all()


@pytest.mark.parametrize("N", [4, 40])
def test_two_spectra_on_one_axes_differ_without_colour(N, ax):
    plots.spectrum(straight(np.linspace(0.1, -0.5, N)), ax=ax, label="one")
    first = list(ax.lines)
    plots.spectrum(straight(np.linspace(0.1, -0.5, N)), ax=ax, label="two")
    second = ax.lines[len(first) :]
    assert len(second) == len(first)
    apart = luminance(first[0].get_color()) - luminance(second[0].get_color())
    assert abs(apart) > 0.1
    if N == 4:
        assert first[0].get_marker() != second[0].get_marker()


def test_all_minus_infinity_is_said_on_axes_that_show_the_steps():
    spectrum = straight([0.1, -0.2, -0.7])
    spectrum.log_singular_values[:] = -np.inf
    ax = plots.spectrum(spectrum)
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nall values are −∞"]
    assert legend_of(ax) == ["measured\n(3 directions annihilated)"]
    low, high = ax.get_xlim()
    assert low <= 1
    assert 20 <= high < 30
    assert not any(label.get_visible() for label in ax.get_yticklabels())


def test_all_nan_is_said_on_the_axes():
    spectrum = straight([0.1, -0.2, -0.7])
    spectrum.log_singular_values[:] = np.nan
    ax = plots.spectrum(spectrum)
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nno value is finite"]


def test_what_is_drawn_is_not_said_to_be_nothing():
    assert texts(plots.spectrum(straight([0.1, -0.2]))) == []


def test_one_nan_among_the_rates_of_theory_takes_one_line():
    ax = plots.spectrum(
        straight([0.1, -0.2, -0.7]), theory=np.array([-0.3, np.nan, 0.2])
    )
    ends = [line.get_ydata()[-1] for line in lines(ax, "--")]
    np.testing.assert_allclose(ends, [4, -6, np.nan], rtol=1e-14)
    assert "theory\n(1 NaN)" in legend_of(ax)


@pytest.mark.parametrize("N", [3, 30])
def test_infinite_values_are_left_out_and_counted(N):
    spectrum = straight(np.linspace(0.5, -0.5, N))
    spectrum.log_singular_values[8:, 0] = np.inf
    ax = plots.spectrum(spectrum)
    ax.figure.canvas.draw()
    assert np.isfinite(ax.get_ylim()).all()
    assert any("(1 infinite)" in label for label in legend_of(ax))
    if N == 30:
        largest = lines(ax, "-")[0].get_ydata()
        np.testing.assert_array_equal(
            largest[8:], spectrum.log_singular_values[8:, 1], strict=True
        )


def test_a_deep_smallest_value_leaves_the_largest_readable():
    spectrum = straight([0.05, -0.1, -25.0])
    ax = plots.spectrum(spectrum)
    ax.figure.canvas.draw()
    assert "finer scale above" in texts(ax)
    at = ax.transAxes.inverted().transform
    y = at(ax.transData.transform([(1, 0.05), (20, 1.0), (20, -500.0)]))[:, 1]
    # On one scale the largest would rise by 1 / 500 of the axis.
    assert y[1] - y[0] > 0.1
    assert 0 < y[2] < 0.1
    ticks = [float(t.get_text().replace("−", "-")) for t in ax.get_yticklabels()]
    assert min(ticks) < -100
    assert sum(-2 < tick < 1.5 for tick in ticks) >= 2


def test_both_sides_of_the_knee_are_linear_and_it_can_be_undone():
    ax = plots.spectrum(straight([0.05, -0.1, -25.0]))
    ax.figure.canvas.draw()

    def heights(*values):
        return ax.transData.transform([(0, y) for y in values])[:, 1]

    for values in [(0.0, 0.3, 0.6), (-100.0, -200.0, -300.0)]:
        low, middle, high = heights(*values)
        np.testing.assert_allclose(middle - low, high - middle, rtol=1e-9)
    ax.set_yscale("linear")
    upper, lower = np.diff(heights(0.6, 0.3)), np.diff(heights(-99.7, -100.0))
    np.testing.assert_allclose(upper, lower, rtol=1e-9)


@pytest.mark.parametrize("rates", [[0.1, -0.2, -0.7], [-20, -25, -30], [0, 0, 0]])
def test_other_spectra_have_one_scale(rates):
    ax = plots.spectrum(straight(rates))
    assert ax.get_yscale() == "linear"
    assert texts(ax) == []


def test_limits_and_scales_that_somebody_chose_stay(ax):
    ax.set_ylim(-3, 3)
    plots.spectrum(straight([0.05, -0.1, -25.0]), ax=ax)
    assert ax.get_ylim() == (-3, 3)
    assert ax.get_yscale() == "linear"


def test_axes_that_share_y_have_one_knee():
    figure, (one, two) = plt.subplots(1, 2, sharey=True)
    plots.spectrum(straight([0.05, -0.1, -25.0]), ax=one)
    plots.spectrum(straight([0.04, -0.2]), ax=two)
    figure.canvas.draw()
    assert one.get_ylim() == two.get_ylim()
    (left,), (right,) = [[t.get_position()[1] for t in ax.texts] for ax in (one, two)]
    assert left == right


def test_a_batch_is_its_mean_and_one_standard_deviation():
    rates = np.array([[0.1, -1.0], [0.2, -2.0], [0.6, -3.0]])
    ax = plots.spectrum(batch([straight(r) for r in rates]), theory=rates)
    steps = np.arange(1, 21)
    measured, theory = lines(ax, "-"), lines(ax, "--")
    for i in (0, 1):
        np.testing.assert_allclose(
            measured[i].get_ydata(), rates[:, i].mean() * steps, rtol=1e-12
        )
        end = rates[:, i].mean() * 20
        np.testing.assert_allclose(theory[i].get_ydata()[-1], end, rtol=1e-12)
        edge = 20 * np.array([-1, 1]) * rates[:, i].std(ddof=1) + end
        vertices = ax.collections[i].get_paths()[0].vertices
        for y in edge:
            assert np.isclose(vertices, (20, y)).all(axis=1).any()
    assert legend_of(ax) == ["measured", "mean ± SD of 3", "theory"]


def test_a_batch_of_steps_that_differ_is_refused():
    both = batch([straight([0.1, -0.2])] * 2)
    both.steps[1] += 1
    with pytest.raises(ValueError, match="`spectrum.steps` must be the same for all 2"):
        plots.spectrum(both)


def test_members_that_are_annihilated_are_left_out_of_the_mean_and_counted():
    dead, alive = straight([0.1, -0.5]), straight([0.1, -0.3])
    dead.log_singular_values[:, 1] = -np.inf
    ax = plots.spectrum(batch([dead, alive]))
    last = lines(ax, "-")[1].get_ydata()
    np.testing.assert_allclose(last, alive.log_singular_values[:, 1], rtol=1e-12)
    assert "measured\n(1 of 2 x 2 directions annihilated)" in legend_of(ax)


def test_what_one_member_does_not_decide_is_undecided():
    one = straight([0.1, -0.2, -0.7])
    sure, unsure = with_errors(one, 0.0), with_errors(one, 0.0)
    unsure.error[10:, 2] = np.inf
    ax = plots.spectrum(batch([sure, unsure]))
    assert len(lines(ax, ":")) == 1
    assert "1 of 3 values\nundecided from step 11 on" in legend_of(ax)


def test_an_error_and_undecided_values_of_a_fan_share_an_entry():
    spectrum = straight(np.linspace(0.5, -1.5, 33))
    error = np.zeros((20, 33))
    error[:, 0], error[12:, 20:] = 3.0, np.inf
    ax = plots.spectrum(spectrum._replace(error=error), theory=np.zeros(33))
    assert len(legend_of(ax)) == 6
    assert "13 of 33 values\nundecided at the end; band: ± error" in legend_of(ax)


def test_flat_largest_values_get_no_scale_of_their_own():
    ax = plots.spectrum(straight([1e-7, -0.5, -2.0]))
    assert ax.get_yscale() == "linear"
