"""Several spectra side by side on one axis."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.plots import _data, _knee, _legend, _ranks, style
from vgjax.products import Spectrum

__all__ = ["compare"]


def __dir__() -> list[str]:
    return __all__


# Of the distance between columns.
_HALF_WIDTH = 0.3
# Beyond so many columns, or letters in all, their names are turned.
_MOST_UPRIGHT = 4
_MOST_LETTERS = 28


def compare(
    spectra: Mapping[str, Spectrum],
    *,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw spectra side by side: before and after, with and without a remedy.

    Each spectrum is a column: its log singular values at the last record, divided by
    the steps, so that products of different length compare. Up to 16 values are a
    level each. More are a bar from the largest to the smallest, darker between the
    tenths and between the quarters, with markers for the largest, the median and the
    smallest. The name of a column is followed by how many values are -inf. Undecided
    values, of infinite error, are dotted or hollow; finite errors have a bar, if above
    0.1 nats.

    Args:
      spectra: what `vgjax.jacobian_spectrum` gives, by name, in the order to draw; N
        may differ. A batch, B in front of every shape, is drawn as its mean over the
        finite members, with a bar of one standard deviation either way at each level
        (of more than 16: at the three markers).
      ax: where to draw. Default: a new figure.
      legend: False leaves the legend out.

    Returns:
      The Axes. Columns from left to right, nats per step up, finer above a thin line if
      the smallest values run deep; at 0 a direction neither vanishes nor explodes.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> def spectrum(W):
      ...     return vgjax.jacobian_spectrum(lambda h, x: (W @ h, h), h, length=9)
      >>> h = jnp.ones(2)
      >>> before, after = jnp.array([[0.5, 1.0], [0.0, 0.4]]), jnp.eye(2)
      >>> ax = vgjax.plots.compare(
      ...     {"before": spectrum(before), "after": spectrum(after)}
      ... )
      >>> [text.get_text() for text in ax.get_xticklabels()]
      ['before', 'after']
    """
    legend = _checks.flag(legend, "legend")
    if not (isinstance(spectra, Mapping) and len(spectra)):
        found = "empty" if isinstance(spectra, Mapping) else type(spectra).__name__
        msg = (
            "Argument `spectra` must be a dict of Spectrum by name, with at least one, "
            f"but is {found}."
        )
        raise TypeError(msg)

    # Read all before anything is drawn.
    columns = {}
    for name, spectrum in spectra.items():
        path, wanted = f"spectra[{name!r}]", "a Spectrum, as of `jacobian_spectrum`"
        _data.result(spectrum, path, ["log_singular_values"], wanted)
        columns[str(name)] = _data.records(spectrum, path)
    ax = style.axes(ax)

    ax.axhline(0, gid="vgjax.zero" + style.LEADING, **style.REFERENCE)
    for place, column in enumerate(columns.values()):
        if len(column.steps):
            _draw_column(ax, place, column)
    _knee.give_room(ax)

    # Name columns and axes.
    style.name(ax, "Spectra side by side", "", "log σ per step (nats)")
    ax.set_xlim(-0.6, len(columns) - 0.4)
    letters = sum(map(len, columns))
    is_upright = len(columns) <= _MOST_UPRIGHT and letters <= _MOST_LETTERS
    # Turned names of several lines would run into each other.
    apart = "\n" if is_upright else ", "
    names = [
        apart.join([str(name), *_said(spectrum)]) for name, spectrum in spectra.items()
    ]
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    turned = {} if is_upright else slanted
    size = style.text_size(ax)
    ax.set_xticks(range(len(names)), names, fontsize=size, **turned)
    if not any(np.isfinite(column.values[-1:]).any() for column in columns.values()):
        over = np.arange(len(columns))
        style.nothing(ax, "no value is finite at the end", over)
    return _legend.place(ax, legend)


def _said(spectrum: Spectrum) -> list[str]:
    """What the name of a column is followed by."""
    values = np.asarray(spectrum.log_singular_values)
    members = [f"mean of {len(values)}"] if values.ndim == 3 else []
    counts = {
        "−∞": int((values[..., -1, :] == -np.inf).sum()),
        "∞": int((values[..., -1, :] == np.inf).sum()),
        "NaN": int(np.isnan(values[..., -1, :]).sum()),
    }
    lost = [f"{count} at {what}" for what, count in counts.items() if count]
    return members + lost


def _draw_column(ax: Axes, place: int, column: _data.Records) -> None:
    t = column.steps[-1]
    series = style.SERIES[0]._replace(name=f"vgjax.column.{place}")
    values, width = column.values[-1] / t, column.width[-1] / t
    is_undecided = column.is_undecided[-1]
    if len(values) <= _ranks.MOST_LINES:
        _draw_levels(ax, place, values, is_undecided, series)
    else:
        values, width, is_undecided = _draw_bar(
            ax, place, values, width, is_undecided, series
        )
    is_batch = column.members > 1
    shown = np.isfinite(values) & (width > (0 if is_batch else _data.SEEN_ERROR / t))
    shown &= ~is_undecided | is_batch
    if shown.any():
        bar = {"fmt": "none", "ecolor": "0.2", "elinewidth": 1.1, "capsize": 2}
        # Side by side, that one bar does not end in another.
        apart = 0.7 * _HALF_WIDTH if len(values) > len(style.ROLES) else 0
        beside = place + np.linspace(-apart, apart, len(values))
        ax.errorbar(
            beside[shown],
            values[shown],
            yerr=width[shown],
            label="mean ± SD" if is_batch else "± error",
            zorder=3,
            **bar,
        )


def _draw_levels(
    ax: Axes,
    place: int,
    values: np.ndarray,
    is_undecided: np.ndarray,
    series: style.Series,
) -> None:
    ends = [place - _HALF_WIDTH, place + _HALF_WIDTH]
    colours = style.ramp(series, len(values))
    name = series.name + style.LEADING
    for value, undecided, colour in zip(values, is_undecided, colours, strict=True):
        if not np.isfinite(value):
            continue
        dotted = {"linestyle": ":" if undecided else "-", "gid": name}
        said = "undecided" if undecided else None
        look = style.MEASURED | {"color": colour, **dotted}
        ax.plot(ends, [value, value], label=said, solid_capstyle="butt", **look)
        name = series.name


def _draw_bar(
    ax: Axes,
    place: int,
    values: np.ndarray,
    width: np.ndarray,
    is_undecided: np.ndarray,
    series: style.Series,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The bar, darker inwards.
    row = values[None]
    for k, (fraction, alpha) in enumerate(style.FAN.items()):
        ends = [_ranks.ranked(row, f)[0] for f in (1 - fraction, fraction)]
        half = _HALF_WIDTH * (1 - 0.2 * k)
        look = {"color": series.colour, "alpha": alpha, "linewidth": 0, "zorder": 1}
        said = "all, 80 %, 50 %" if k == len(style.FAN) - 1 else None
        ax.fill_between([place - half, place + half], *ends, label=said, **look)

    # Three markers on it.
    three = _ranks.summary(row)[0]
    widths = _ranks.summary(row, width[None])[0]
    hollow = _ranks.summary(row, is_undecided[None])[0] == 1
    name = series.name + style.LEADING
    for (role, marker), value, undecided in zip(
        style.ROLES.items(), three, hollow, strict=True
    ):
        face: dict[str, Any] = {
            "markerfacecolor": "white" if undecided else series.colour
        }
        look = {"marker": marker, "linestyle": "none", "markeredgecolor": "0.2"}
        ax.plot([place], [value], label=role, gid=name, zorder=3, **look, **face)
        name = series.name
    if hollow.any():
        look = {"color": series.colour, **style.UNDECIDED, **style.HOLLOW}
        ax.plot([], [], marker="o", label="undecided", **look)
    return three, widths, hollow
