import inspect
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import vgjax.plots as plots
from vgjax.products import Spectrum
from vgjax.spectra import Rates


class Other(NamedTuple):
    """As of `lyapunov_spectrum`: arrays of several shapes."""

    exponents: np.ndarray
    history: np.ndarray


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.figure().add_subplot()


def made(values, steps=None):
    values = np.asarray(values, float)
    steps = np.arange(1, len(values) + 1) if steps is None else np.asarray(steps)
    return Spectrum(steps, values, values.sum(axis=1))


def straight(rates, T=20):
    return made(np.arange(1, T + 1)[:, None] * np.asarray(rates))


def lines(ax, style):
    return [line for line in ax.lines if line.get_linestyle() == style]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def luminance(colour):
    return np.dot(to_rgb(colour), [0.299, 0.587, 0.114])


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


def with_errors(spectrum, error):
    return spectrum._replace(error=np.broadcast_to(error, (20, 3)).copy())


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


def test_eigenvalues_are_drawn_in_the_plane_with_both_circles():
    W = np.array([[0.0, -1.5, 0.0], [1.5, 0.0, 0.0], [0.0, 0.0, 0.5]])
    ax = plots.eigenvalues(W)
    unit, radius, dots = ax.lines
    found = sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True))
    np.testing.assert_allclose(found, [(0, -1.5), (0, 1.5), (0.5, 0)], atol=1e-6)
    np.testing.assert_allclose(np.hypot(*unit.get_data()), 1, rtol=1e-12)
    np.testing.assert_allclose(np.hypot(*radius.get_data()), 1.5, rtol=1e-6)
    assert unit.get_linestyle() != radius.get_linestyle()
    assert ax.get_aspect() == 1
    assert "spectral radius 1.5" in legend_of(ax)


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


DRAW = {
    "spectrum": lambda ax=None: plots.spectrum(
        straight([0.1, -1]), theory=np.zeros(2), ax=ax
    ),
    "fan": lambda ax=None: plots.spectrum(straight(np.linspace(0, -1, 20)), ax=ax),
    "eigenvalues": lambda ax=None: plots.eigenvalues(np.eye(2), ax=ax),
    "rates": lambda ax=None: plots.rates(np.zeros(2), np.ones(2), ax=ax),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_the_axes_given_are_used_and_returned(draw, ax):
    assert draw(ax) is ax
    assert plt.get_fignums() == [ax.figure.number]
    assert draw() is not ax


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_the_legend_covers_no_data_and_the_axes_say_what_they_are(draw):
    ax = draw()
    ax.figure.canvas.draw()
    legend, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert legend.x0 > axes.x1
    assert legend.x1 <= ax.figure.bbox.x1
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_spectra_and_rates_name_their_units():
    assert DRAW["spectrum"]().get_ylabel() == "log σ (nats)"
    assert DRAW["spectrum"]().get_xlabel() == "steps"
    ax = DRAW["rates"]()
    assert "nats per step" in ax.get_xlabel()
    assert "nats per step" in ax.get_ylabel()


def test_theory_and_measurement_differ_without_colour():
    measured, _, theory, _ = DRAW["spectrum"]().lines
    assert measured.get_linestyle() != theory.get_linestyle()
    darker = luminance(measured.get_color()) - luminance(theory.get_color())
    assert darker > 0.3


def test_no_global_setting_is_changed():
    before = dict(plt.rcParams)
    for draw in DRAW.values():
        draw()
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "arguments", "options", "match"),
    [
        ("spectrum", (made([[1.0, 0.0]]),), {"theory": [1.0]}, r"`theory` .* \(N=2,\)"),
        (
            "spectrum",
            (made([[1.0, 0.0]]),),
            {"theory": made([[1.0]])},
            r"`theory.log_singular_values` .* \(R, N=2\)",
        ),
        ("eigenvalues", (np.ones((2, 3)),), {}, r"`W` must have shape \(N, N\)"),
        ("rates", (np.ones((2, 2)), np.ones(2)), {}, r"`measured` .* \(N,\)"),
        ("rates", (np.ones(2), np.ones(3)), {}, r"`predicted` .* \(N=2,\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(draw, arguments, options, match):
    # Unwrapped, for where a type checker is hooked in and would speak first.
    with pytest.raises(ValueError, match=match):
        inspect.unwrap(getattr(plots, draw))(*arguments, **options)


@pytest.mark.parametrize(
    ("draw", "arguments", "options", "match"),
    [
        (
            "spectrum",
            (np.zeros((3, 2)),),
            {},
            "`spectrum` must be a Spectrum, as of `jacobian_spectrum`, but is ndarray",
        ),
        ("spectrum", (None,), {}, "`spectrum` must be a Spectrum, .* is NoneType"),
        (
            "spectrum",
            (straight([0.1]),),
            {"theory": Rates(np.zeros(1), np.zeros(1))},
            "`theory` must be a Spectrum or an array of rates, but is Rates",
        ),
        (
            "rates",
            (Other(np.zeros(2), np.zeros((3, 2))), np.zeros(2)),
            {},
            "`measured` must be what `growth_rates` gives or an array .* is Other",
        ),
        (
            "rates",
            (straight([0.1]), np.zeros(1)),
            {},
            "`measured` must be what `growth_rates` gives or an array .* is Spectrum",
        ),
        (
            "rates",
            (np.zeros(1), Rates(np.zeros(1), np.zeros(1))),
            {},
            "`predicted` must be an array of rates, but is Rates",
        ),
        ("rates", (np.zeros(1), "fast"), {}, "`predicted` must be an array .* is str"),
        ("rates", (None, np.zeros(1)), {}, "`measured` must be .* is NoneType"),
    ],
)
def test_another_kind_is_refused_with_what_to_pass(draw, arguments, options, match):
    with pytest.raises(TypeError, match=match):
        inspect.unwrap(getattr(plots, draw))(*arguments, **options)
