"""Log singular values over steps, beside what theory says."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.plots import _data, _knee, _legend, _ranks, style
from vgjax.products import Spectrum

__all__ = ["spectrum"]


def __dir__() -> list[str]:
    return __all__


def spectrum(
    spectrum: Spectrum,
    *,
    theory: Spectrum | Float[Array | np.ndarray, "*B N"] | None = None,
    ax: Axes | None = None,
    label: str = "measured",
    legend: bool = True,
) -> Axes:
    """Draw log singular values over steps, and what theory says beside them.

    Up to 16 values are a line each, paler from the largest to the smallest. More are a
    fan, darker between the tenths and between the quarters, with the largest, the
    median and the smallest of those not annihilated as lines with markers. A second
    spectrum on the same axes has another colour.

    Where the smallest values run so deep that the largest would be flat, the scale is
    finer above a level that a thin line marks; both parts are linear.
    ``ax.set_yscale("linear")`` afterwards undoes it.

    Where the error of a value is infinite, so that rounding decides it, or NaN, its
    line is dotted, with hollow markers, and the legend says how many there are and from
    which step on. Finite errors are a band about each line, if above 0.1 nats
    somewhere.

    Args:
      spectrum: R records of N values, or a batch of them, B in front of every shape,
        as of `jax.vmap`: then the lines are means over the members whose value is
        finite, and the bands one standard deviation either way, and the mean error. The
        legend counts the values at the end that are -inf, infinite or NaN.
      theory: the prediction, dashed: another spectrum of N values, or N rates in nats
        per step (those of `vgjax.theory.eigenvalue_rates`), drawn as straight lines
        from 0; or a batch of either, for its mean.
      ax: where to draw. Default: a new figure.
      label: what the legend calls the values.
      legend: False leaves the legend out.

    Returns:
      The Axes. Steps to the right, nats up.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> W = jnp.array([[0.9, 5.0], [0.0, 0.8]])
      >>> step = lambda h, x: (W @ h, None)
      >>> found = vgjax.jacobian_spectrum(step, jnp.ones(2), length=50)
      >>> rates = vgjax.theory.eigenvalue_rates(W)
      >>> ax = vgjax.plots.spectrum(found, theory=rates)
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('steps', 'log σ (nats)')
    """
    legend = _checks.flag(legend, "legend")
    wanted = "a Spectrum, as of `jacobian_spectrum`"
    _data.result(spectrum, "spectrum", ["log_singular_values"], wanted)
    measured = _data.records(spectrum, "spectrum")
    predicted = _prediction(theory, measured)
    ax = style.axes(ax)
    series = style.new_series(ax)

    if measured.values.shape[1] <= _ranks.MOST_LINES:
        _draw_lines(ax, measured, series, label)
    else:
        _draw_fan(ax, measured, series, label)
    if predicted is not None:
        _draw_theory(ax, predicted)
    _knee.give_room(ax)
    style.name(ax, "Growth of singular values", "steps", "log σ (nats)")
    if not np.isfinite(measured.values).any():
        dead = (np.asarray(spectrum.log_singular_values) == -np.inf).all()
        why = "all values are −∞" if dead else "no value is finite"
        style.nothing(ax, why, np.asarray(spectrum.steps))
    return _legend.place(ax, legend)


def _draw_lines(
    ax: Axes, measured: _data.Records, series: style.Series, label: str
) -> None:
    steps, values, width, is_undecided, lost, _ = measured
    colours = style.ramp(series, values.shape[1])
    solid = np.where(is_undecided | ~np.isfinite(values), np.nan, values)
    marker = series.marker or ("." if len(steps) == 1 else None)
    dots = {"marker": marker, "markersize": 4, "markevery": _some(len(steps))}
    if len(steps) == 1:
        dots["markersize"] = 9
    name = series.name + style.LEADING
    for i, colour in enumerate(colours):
        said = label + lost if i == 0 else None
        options = {"color": colour, "label": said, "gid": name, **dots}
        ax.plot(steps, solid[:, i], **style.MEASURED | options)
        name = series.name
    _draw_bands(ax, steps, values, width, measured.members, colours)
    said = _which_undecided(steps, is_undecided)
    hollow = ["o"] * len(colours)
    _draw_undecided(ax, steps, values, is_undecided, hollow, series, said)


def _draw_fan(
    ax: Axes, measured: _data.Records, series: style.Series, label: str
) -> None:
    steps, values, width, is_undecided, lost, members = measured
    # The fan behind.
    for k, (fraction, alpha) in enumerate(style.FAN.items()):
        band = {"alpha": alpha, "linewidth": 0, "zorder": 1, "color": series.colour}
        high = _ranks.ranked(values, fraction)
        low = _ranks.ranked(values, 1 - fraction)
        said = f"{label}: all, 80 %, 50 %{lost}" if k == len(style.FAN) - 1 else None
        ax.fill_between(steps, low, high, label=said, **band)

    # Three lines in front of it, solid where they are decided.
    shown = _ranks.summary(values)
    hollow = _ranks.summary(values, is_undecided) == 1
    width = _ranks.summary(values, width)
    count = int(is_undecided[-1:].sum())
    counted = f"{count} of {values.shape[1]} values\nundecided at the end"
    has_band = _draw_bands(
        ax, steps, shown, width, members, [series.colour] * 3, said=not count
    )
    dots = {"markevery": _some(len(steps)), "markeredgecolor": "0.2"}
    solid = np.where(hollow, np.nan, shown)
    name = series.name + style.LEADING
    for (role, marker), values_of in zip(style.ROLES.items(), solid.T, strict=True):
        options = {"color": series.colour, "marker": marker, "gid": name, **dots}
        # A second fan has the same markers, and six entries are enough.
        said = f"{label}: {role}" if series.is_first else None
        ax.plot(steps, values_of, label=said, **style.MEASURED | options)
        name = series.name
    markers = list(style.ROLES.values())
    _draw_undecided(ax, steps, shown, hollow, markers, series)
    if count:
        # One entry for both: with theory there would be seven.
        said = f"{counted}; band: {_band_of(members)}" if has_band else counted
        ax.plot([], [], marker="o", label=said, **_undecided_style(series))


def _draw_theory(ax: Axes, predicted: _data.Records) -> None:
    steps, values, _, _, lost, _ = predicted
    few = values.shape[1] <= _ranks.MOST_LINES
    shown = values if few else _ranks.summary(values)
    shown = np.where(np.isfinite(shown), shown, np.nan)
    marker = "_" if len(steps) == 1 else None
    for i, value in enumerate(shown.T):
        said = "theory" + lost if i == 0 else None
        ax.plot(steps, value, label=said, marker=marker, **style.PREDICTED)


def _prediction(theory: Any, measured: _data.Records) -> _data.Records | None:
    if theory is None:
        return None
    N, steps = measured.values.shape[1], measured.steps
    if isinstance(theory, Spectrum):
        return _data.records(theory._replace(error=None), "theory", N)
    rate = _data.numbers(theory, "theory", "a Spectrum or an array of rates")
    rate = _data.batch(rate, "theory", "N", N=N)
    # NaN, of which nothing is known, comes last.
    rate = -np.sort(-rate, axis=1)
    mean = _data.mean(rate).value
    ends = np.array([0, steps[-1] if len(steps) else 1])
    # 0 times -inf is NaN; a direction annihilated from the start has no line.
    start = np.where(np.isfinite(mean), 0.0, mean)
    values = np.stack([start, ends[1] * mean])
    none = np.zeros_like(values)
    lost = _data.lost_at_the_end(rate)
    return _data.Records(ends, values, none, none == 1, lost, len(rate))


def _draw_bands(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    width: np.ndarray,
    members: int,
    colours: Any,
    said: bool = True,
) -> bool:
    """Draw a pale band around each column that has one to see; whether there is one."""
    label = _band_of(members) if said else None
    least = _data.SEEN_ERROR if members == 1 else 0
    drawn = False
    for value, off, colour in zip(values.T, width.T, colours, strict=True):
        shown = np.isfinite(value) & np.isfinite(off)
        if not (off[shown] > least).any():
            continue
        value, off = np.where(shown, value, 0), np.where(shown, off, 0)
        # The edge is what shows of a single record.
        look = {"color": colour, "alpha": 0.3, "linewidth": 1, "zorder": 1}
        ax.fill_between(
            steps, value - off, value + off, where=shown, label=label, **look
        )
        label, drawn = None, True
    return drawn


def _band_of(members: int) -> str:
    return "± error" if members == 1 else f"mean ± SD of {members}"


def _draw_undecided(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    which: np.ndarray,
    markers: list[str],
    series: style.Series,
    label: str | None = None,
) -> None:
    """Each column where it is undecided, from the record before on; dotted, hollow."""
    name = series.name + style.LEADING
    for value, at, marker in zip(values.T, which.T, markers, strict=True):
        if at.any():
            joined = at | np.append(at[1:], False)
            line = np.where(joined & np.isfinite(value), value, np.nan)
            undecided = np.flatnonzero(at)
            some = undecided[:: _some(len(undecided), 6)].tolist()
            look = {"marker": marker, "markevery": some, "gid": name}
            ax.plot(steps, line, label=label, **look, **_undecided_style(series))
            label = None
        name = series.name


def _undecided_style(series: style.Series) -> dict[str, Any]:
    hollow = {**style.HOLLOW, "markeredgecolor": series.edge}
    return {"color": series.colour, **style.UNDECIDED, **hollow}


def _which_undecided(steps: np.ndarray, is_undecided: np.ndarray) -> str | None:
    if not is_undecided.any():
        return None
    count, first = is_undecided.any(axis=0).sum(), steps[is_undecided.any(axis=1)][0]
    return f"{count} of {is_undecided.shape[1]} values\nundecided from step {first} on"


def _some(n: int, wanted: int = 8) -> int:
    return max(1, n // wanted)
