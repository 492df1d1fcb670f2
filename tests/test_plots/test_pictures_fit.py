import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.transforms import Bbox
from support.pictures import (
    DRAW,
    FAN,
    SEVERAL,
    Other,
    batch,
    legend_of,
    made,
    straight,
)

import vgjax.plots as plots
from vgjax.spectra import Rates

PICTURES = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
BATCHES = {
    name: lambda name=name, **o: SEVERAL[name][0](batch(SEVERAL[name][1]), **o)
    for name in SEVERAL
}


def parts(figure):
    """The axes of each cell of a grid: a picture, its right axis, its colour bar."""
    cells = {}
    for ax in figure.axes:
        cells.setdefault(ax.get_subplotspec(), []).append(ax)
    bars = [image.colorbar.ax for ax in figure.axes for image in ax.images]
    alone = [spec for spec, (ax, *_) in cells.items() if ax in bars]
    for spec in alone:
        (bar,) = cells.pop(spec)
        (owner,) = [a for a in figure.axes for i in a.images if i.colorbar.ax is bar]
        cells[owner.get_subplotspec()].append(bar)
    return list(cells.values())


def overlap(one, other):
    return Bbox.intersection(one, other)


@pytest.mark.parametrize("draw", [DRAW, BATCHES], ids=["one", "batch"])
@pytest.mark.parametrize("size", [(12, 9), (7.5, 7.5)])
def test_every_picture_stays_in_its_cell_of_a_grid(draw, size):
    figure, axes = plt.subplots(3, 3, figsize=size, layout="constrained")
    for ax, picture in zip(axes.flat, draw.values(), strict=True):
        assert picture(ax=ax) is ax
    figure.canvas.draw()
    cells = parts(figure)
    assert len(cells) == 9
    drawn = [Bbox.union([ax.get_tightbbox() for ax in cell]) for cell in cells]
    for k, box in enumerate(drawn):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not [other for other in drawn[:k] if overlap(box, other)]
    for ax in axes.flat:
        inside = [*ax.texts, *filter(None, [ax.get_legend()])]
        for artist in inside:
            box, room = artist.get_window_extent(), ax.get_window_extent()
            assert room.x0 <= box.x0 < box.x1 <= room.x1
            assert room.y0 <= box.y0 < box.y1 <= room.y1
        # None has been squeezed for the sake of another.
        assert ax.get_window_extent().width > figure.bbox.width / 8


@pytest.mark.parametrize("names", [list(DRAW)[:6], list(DRAW)[3:]])
def test_legends_and_labels_are_smaller_in_small_axes(names):
    figure, axes = plt.subplots(2, 3, layout="constrained")
    for ax, name in zip(axes.flat, names, strict=True):
        DRAW[name](ax=ax)
    figure.canvas.draw()
    for ax in figure.axes:
        for label in (ax.xaxis.label, ax.yaxis.label, *ax.get_yticklabels()):
            assert label.get_fontsize() <= 7.5
        if (legend := ax.get_legend()) is not None:
            box, room = legend.get_window_extent(), ax.get_window_extent()
            assert room.x0 <= box.x0 < box.x1 <= room.x1
            assert room.y0 <= box.y0 < box.y1 <= room.y1


@PICTURES
def test_labels_of_large_axes_are_as_somebody_set_them(draw):
    ax = draw()
    assert ax.xaxis.label.get_fontsize() == 10
    assert ax.yaxis.label.get_fontsize() == 10


def test_a_long_legend_above_the_data_has_two_columns():
    full = made(np.tile(np.linspace(1, -1, 40), (20, 1)))
    ax = plots.spectrum(full, theory=full)
    ax.figure.canvas.draw()
    left = {text.get_window_extent().x0 for text in ax.get_legend().get_texts()}
    assert len(left) == 2
    room = ax.get_window_extent().height
    assert ax.get_legend().get_window_extent().height < room / 5


def test_an_artist_outside_its_cell_would_be_seen():
    figure, axes = plt.subplots(1, 2, layout="constrained")
    DRAW["rates"](ax=axes[1])
    axes[1].get_legend().set_loc("upper right")
    axes[1].get_legend().set_bbox_to_anchor((-0.2, 1))
    axes[1].get_legend().set_in_layout(True)
    figure.set_layout_engine("none")
    figure.canvas.draw()
    assert overlap(*[ax.get_tightbbox() for ax in axes])


@PICTURES
def test_the_axes_given_are_used_and_returned(draw, ax):
    assert draw(ax=ax) is ax
    assert plt.get_fignums() == [ax.figure.number]
    assert draw() is not ax


@pytest.mark.parametrize("draw", [DRAW, BATCHES], ids=["one", "batch"])
@pytest.mark.parametrize("name", DRAW)
def test_the_legend_is_inside_and_covers_no_data(draw, name):
    ax = draw[name]()
    ax.figure.canvas.draw()
    if name == "flow":
        assert ax.get_legend() is None
        return
    legend, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert axes.x0 <= legend.x0 < legend.x1 <= axes.x1
    assert axes.y0 <= legend.y0 < legend.y1 <= axes.y1
    assert 1 <= len(legend_of(ax)) <= 6
    for line in ax.lines:
        # Lines of reference lie below it.
        if line.get_zorder() > 1:
            path = line.get_transform().transform_path(line.get_path())
            assert not path.intersects_bbox(legend, filled=False)


@PICTURES
def test_the_axes_say_what_they_are(draw):
    ax = draw()
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert ax.get_xlabel() or names == ["before", "after"]
    assert ax.get_ylabel()
    assert 5 < len(ax.get_title()) < 30


@PICTURES
def test_a_title_of_ones_own_stays(draw, ax):
    ax.set_title("mine")
    assert draw(ax=ax).get_title() == "mine"


@pytest.mark.parametrize("draw", [DRAW, BATCHES], ids=["one", "batch"])
@pytest.mark.parametrize("name", DRAW)
def test_the_legend_can_be_left_out(draw, name):
    ax = draw[name](legend=False)
    assert ax.get_legend() is None
    assert all(image.colorbar is None for image in ax.images)


@PICTURES
def test_legend_must_be_true_or_false(draw):
    with pytest.raises(TypeError, match="`legend` must be True or False, but is 'no'"):
        draw(legend="no")


def test_more_than_six_entries_are_counted(ax):
    for k in range(8):
        ax.plot([0, 1], [k, k], label=f"mine {k}")
    plots.rates(np.zeros(2), np.ones(2), ax=ax)
    assert len(legend_of(ax)) == 6
    assert legend_of(ax)[-1] == "and 5 more"


def test_two_on_one_axes_have_one_entry_for_what_is_the_same(ax):
    plots.spectrum(FAN, ax=ax, label="one", theory=np.zeros(40))
    plots.spectrum(FAN, ax=ax, label="two", theory=np.ones(40))
    assert legend_of(ax) == [
        "one: all, 80 %, 50 %",
        "one: largest",
        "one: median",
        "one: smallest",
        "theory",
        "two: all, 80 %, 50 %",
    ]


def test_spectra_and_rates_name_their_units():
    assert DRAW["spectrum"]().get_ylabel() == "log σ (nats)"
    assert DRAW["spectrum"]().get_xlabel() == "steps"
    ax = DRAW["rates"]()
    assert "nats per step" in ax.get_xlabel()
    assert "nats per step" in ax.get_ylabel()


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
        ("rates", (np.ones((2, 2, 2)), np.ones(2)), {}, r"`measured` .* \(N,\)"),
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
