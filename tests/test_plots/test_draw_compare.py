import inspect

import numpy as np
import pytest
from support.pictures import batch, legend_of, lines, luminance, straight, texts

import vgjax.plots as plots


def names(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def levels(ax, place):
    found = [line for line in ax.lines[1:] if line.get_linestyle() in "-:"]
    drawn = [line.get_data() for line in found]
    return [y[0] for x, y in drawn if np.isclose(np.mean(x), place)]


def test_every_value_is_a_level_per_step_in_its_column():
    spectra = {"before": straight([0.1, -0.4], T=7), "after": straight([0.0, -0.1])}
    ax = plots.compare(spectra)
    assert names(ax) == ["before", "after"]
    np.testing.assert_allclose(levels(ax, 0), [0.1, -0.4], rtol=1e-12)
    np.testing.assert_allclose(levels(ax, 1), [0.0, -0.1], atol=1e-12)


def test_many_values_are_a_bar_with_largest_median_and_smallest():
    ax = plots.compare({"one": straight(np.linspace(1, -1, 33))})
    markers = {line.get_marker(): line.get_ydata()[0] for line in ax.lines[1:]}
    assert markers == pytest.approx({"^": 1, "o": 0, "v": -1}, abs=1e-12)
    edges = [area.get_paths()[0].vertices[:, 1] for area in ax.collections]
    ends = [(edge.min(), edge.max()) for edge in edges]
    np.testing.assert_allclose(ends, [(-1, 1), (-0.75, 0.8125), (-0.5, 0.5)])
    assert legend_of(ax) == ["all, 80 %, 50 %", "largest", "median", "smallest"]


def test_names_are_followed_by_what_is_annihilated():
    spectrum = straight([0.1, -0.2, -0.5])
    spectrum.log_singular_values[5:, 1:] = -np.inf
    ax = plots.compare({"one": spectrum, "two": straight([0.1, -0.2])})
    assert names(ax) == ["one\n2 at −∞", "two"]
    assert len(levels(ax, 0)) == 1


def test_undecided_values_are_dotted():
    spectrum = straight([0.1, -0.2, -0.5])
    error = np.zeros((20, 3))
    error[10:, 2] = np.inf
    ax = plots.compare({"one": spectrum._replace(error=error)})
    (line,) = lines(ax, ":")
    np.testing.assert_allclose(line.get_ydata(), -0.5, rtol=1e-12)
    assert legend_of(ax) == ["undecided"]


def test_undecided_values_of_a_bar_are_hollow():
    error = np.zeros((20, 33))
    error[10:, 32] = np.inf
    spectrum = straight(np.linspace(1, -1, 33))._replace(error=error)
    ax = plots.compare({"one": spectrum})
    faces = {line.get_marker(): line.get_markerfacecolor() for line in ax.lines[1:4]}
    assert faces["v"] == "white" != faces["^"]
    assert "undecided" in legend_of(ax)


def test_errors_that_would_be_seen_have_a_bar():
    error = np.zeros((20, 2))
    error[-1] = [4.0, 0.05]
    ax = plots.compare({"one": straight([0.1, -0.5])._replace(error=error)})
    (bars,) = ax.containers[0].lines[2]
    (bar,) = bars.get_segments()
    np.testing.assert_allclose(bar[:, 1], [-0.1, 0.3], rtol=1e-12)
    assert legend_of(ax) == ["± error"]


def test_a_batch_is_its_mean_and_one_standard_deviation():
    both = batch([straight([0.1, -0.5]), straight([0.3, -0.5])])
    ax = plots.compare({"seeds": both})
    np.testing.assert_allclose(levels(ax, 0), [0.2, -0.5], rtol=1e-12)
    (bars,) = ax.containers[0].lines[2]
    spread = np.std([0.1, 0.3], ddof=1)
    found = bars.get_segments()[0][:, 1]
    np.testing.assert_allclose(found, [0.2 - spread, 0.2 + spread], rtol=1e-9)
    assert names(ax) == ["seeds\nmean of 2"]
    assert legend_of(ax) == ["mean ± SD"]


def test_deep_values_leave_the_largest_readable():
    spectra = {"one": straight([0.1, -0.3, -90]), "two": straight([0.0, -0.1, -50])}
    ax = plots.compare(spectra)
    ax.figure.canvas.draw()
    assert "finer scale above" in texts(ax)
    y = ax.transData.transform([(0, 0.1), (0, 0.0)])[:, 1]
    assert y[0] - y[1] > 0.02 * ax.get_window_extent().height


def test_the_largest_is_the_darkest():
    drawn = plots.compare({"one": straight([0.1, -0.2, -0.5])}).lines[1:]
    lightness = [luminance(line.get_color()[:3]) for line in drawn]
    assert (np.diff(lightness) > 0.05).all()


def test_spectra_without_a_finite_value_are_said_to_be_nothing():
    dead = straight([0.1, -0.2])
    dead.log_singular_values[:] = -np.inf
    ax = plots.compare({"one": dead, "two": dead})
    ax.figure.canvas.draw()
    assert texts(ax) == ["nothing to draw:\nno value is finite at the end"]
    assert names(ax) == ["one\n2 at −∞", "two\n2 at −∞"]


def test_many_names_are_turned_and_do_not_touch():
    spectra = {f"remedy {k}": straight([0.1, -0.2]) for k in range(9)}
    ax = plots.compare(spectra)
    ax.figure.canvas.draw()
    assert {text.get_rotation() for text in ax.get_xticklabels()} == {30}
    assert "\n" not in "".join(names(ax))


@pytest.mark.parametrize(
    ("spectra", "match"),
    [
        ({}, "`spectra` must be a dict of Spectrum by name, .* but is empty"),
        ([straight([0.1])], "`spectra` must be a dict .* but is list"),
        (
            {"one": np.zeros((3, 2))},
            r"`spectra\['one'\]` must be a Spectrum, .*ndarray",
        ),
    ],
)
def test_other_kinds_are_refused(spectra, match):
    with pytest.raises(TypeError, match=match):
        inspect.unwrap(plots.compare)(spectra)
