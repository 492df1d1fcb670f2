"""Pictures of spectra, each on a matplotlib Axes that it returns.

What is measured is a broad pale line or an open circle, what is predicted a thin dark
dash, so that a page without colour reads the same. Every function draws into `ax`, or
into a new figure when that is None; the legend stands to the right of the axes, where
it hides nothing. What has no logarithm to draw is left out and counted.
"""

from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from jaxtyping import Float
from matplotlib.axes import Axes

from vgjax import _checks
from vgjax.products import Spectrum
from vgjax.spectra import Rates
from vgjax.theory import eigenvalues as ordered_eigenvalues

# Beyond so many values their lines are a fan, with three of them drawn.
_MOST_LINES = 16
_MEASURED = {"color": "#6baed6", "linewidth": 2.4, "zorder": 2}
_PREDICTED = {"color": "#1a1a1a", "linewidth": 1.1, "linestyle": "--", "zorder": 3}
_REFERENCE = {"color": "0.45", "linewidth": 0.9, "zorder": 1}
# Darker from outside in; each is between the same fraction of values from either end.
_FAN = {0.0: 0.18, 0.1: 0.22, 0.25: 0.26}
_ROLES = {"largest": "^", "median": "o", "smallest": "v"}
# Of values that rounding decides: thin, dotted and hollow.
_UNDECIDED = {"color": "#6baed6", "linewidth": 1.4, "linestyle": ":", "zorder": 2}
_HOLLOW = {"markersize": 5, "markerfacecolor": "white", "markeredgecolor": "#2171b5"}
# Nats, from which on an error is drawn: less is the width of a line.
_SEEN_ERROR = 0.1


def spectrum(
    spectrum: Spectrum,
    *,
    theory: Spectrum | Float[Array | np.ndarray, " N"] | None = None,
    ax: Axes | None = None,
    label: str = "measured",
) -> Axes:
    """Draw log singular values over steps, and what theory says beside them.

    Up to 16 values are a line each. More are a fan from the largest to the smallest,
    darker between the tenths and between the quarters, with the largest, the median and
    the smallest of those not annihilated as lines with markers.

    Where the error of a value is infinite, so that rounding decides it, or NaN, its
    line is dotted, with hollow markers, and the legend says how many there are and from
    which step on. Finite errors are a band about each line, if above 0.1 nats
    somewhere.

    Args:
      spectrum: R records of N values; those that are NaN are left out, and so are
        values of -inf, whose number at the end the legend gives, and of how many of
        these rounding decides.
      theory: the prediction, dashed: another spectrum of N values, or N rates in nats
        per step (those of `vgjax.theory.eigenvalue_rates`), drawn as straight lines
        from 0.
      ax: where to draw. Default: a new figure.
      label: what the legend calls the values.

    Returns:
      The Axes. Steps to the right, nats up.

    Raises:
      ValueError: `spectrum` is not of shape (R, N), or its error is not or is negative;
        `theory` has another N.
      TypeError: either is of another kind.
    """
    if not hasattr(spectrum, "log_singular_values"):
        msg = (
            "Argument `spectrum` must be a Spectrum, as of `jacobian_spectrum`, but is "
            f"{type(spectrum).__name__}."
        )
        raise TypeError(msg)
    values = np.asarray(spectrum.log_singular_values)
    N = _checks.shape(values, "spectrum.log_singular_values", "R N")["N"]
    ax = _axes(ax)
    few = N <= _MOST_LINES
    error = _errors_of(spectrum, values)
    kept = ~np.isnan(values).any(axis=1)
    steps, values, error = np.asarray(spectrum.steps)[kept], values[kept], error[kept]

    lost = _annihilated(values[-1], error[-1]) if len(values) else ""
    is_undecided = ~np.isfinite(error) & np.isfinite(values)
    if few:
        _lines(ax, steps, np.where(is_undecided, np.nan, values), label + lost)
        _bands(ax, steps, values, error)
        said = _which_undecided(steps, is_undecided)
        _undecided(ax, steps, values, is_undecided, ["o"] * N, said)
    else:
        _fan(ax, steps, values, f"{label}: all, 80 %, 50 %{lost}")
        shown, hollow = _summary(values), _summary(values, is_undecided) == 1
        solid = np.where(hollow, np.nan, shown)
        _bands(ax, steps, shown, _summary(values, error))
        for (role, marker), line in zip(_ROLES.items(), solid.T, strict=True):
            every = max(1, len(steps) // 8)
            dots = {"marker": marker, "markevery": every, "markeredgecolor": "0.2"}
            ax.plot(steps, line, label=f"{label}: {role}", **dots, **_MEASURED)
        _undecided(ax, steps, shown, hollow, list(_ROLES.values()))
        if (count := int(is_undecided[-1:].sum())) > 0:
            said = f"{count} of {N} values\nundecided at the end"
            ax.plot([], [], marker="o", label=said, **_UNDECIDED, **_HOLLOW)

    if theory is not None:
        steps, values = _prediction(theory, N, steps)
        lost = _annihilated(values[-1]) if len(values) else ""
        shown = values if few else _summary(values)
        _lines(ax, steps, shown, "theory" + lost, _PREDICTED)
    ax.set(xlabel="steps", ylabel="log σ (nats)")
    return _with_legend(ax)


def eigenvalues(W: Float[Array | np.ndarray, "N N"], *, ax: Axes | None = None) -> Axes:
    """Draw the eigenvalues of a matrix in the complex plane.

    The unit circle, within which a mode vanishes and beyond which it explodes, is
    dashed; the circle of the spectral radius, the largest magnitude, dotted.

    Args:
      W: (N, N), finite.
      ax: where to draw. Default: a new figure.

    Returns:
      The Axes, both directions to one scale.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.
    """
    values = np.asarray(ordered_eigenvalues(jnp.asarray(W)))
    radius = np.abs(values).max()
    ax = _axes(ax)
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 361))
    unit, around = circle, radius * circle
    ax.plot(
        np.real(unit), np.imag(unit), linestyle="--", label="unit circle", **_REFERENCE
    )
    dotted = {**_REFERENCE, "linestyle": ":", "linewidth": 1.6, "color": "0.15"}
    ax.plot(
        np.real(around),
        np.imag(around),
        label=f"spectral radius {radius:.4g}",
        **dotted,
    )
    dots = {"markerfacecolor": "#6baed6", "markeredgecolor": "0.2", "markersize": 5}
    ax.plot(
        np.real(values), np.imag(values), "o", label="eigenvalues", zorder=2, **dots
    )
    ax.set(xlabel="Re λ", ylabel="Im λ")
    ax.set_aspect("equal", adjustable="datalim")
    return _with_legend(ax)


def rates(
    measured: Rates | Float[Array | np.ndarray, " N"],
    predicted: Float[Array | np.ndarray, " N"],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw measured growth rates against predicted ones, with the line of equality.

    Args:
      measured: what `vgjax.growth_rates` gives, drawn with bars of one standard error
        either way where there is one; or the rates alone.
      predicted: (N,), nats per step, in the same order.
      ax: where to draw. Default: a new figure.

    Returns:
      The Axes, both directions to one scale, in nats per step. Pairs with a -inf are
      left out and counted in the legend; those with a NaN are left out.

    Raises:
      ValueError: `measured` is not of shape (N,), or `predicted` has another N.
      TypeError: either is of another kind.
    """
    error = getattr(measured, "standard_error", None)
    y = _numbers(
        getattr(measured, "rate", measured),
        "measured",
        "what `growth_rates` gives or an array of rates",
    )
    x = _numbers(predicted, "predicted", "an array of rates")
    N = _checks.shape(y, "measured", "N")["N"]
    _checks.shape(x, "predicted", "N", N=N)
    drawn = np.isfinite(x) & np.isfinite(y)
    lost = _annihilated(np.where(np.isnan(x + y), np.nan, np.minimum(x, y)))
    label = "measured" + ("" if error is None else " ± standard error") + lost
    bars = None if error is None else np.asarray(error)[drawn]
    x, y = x[drawn], y[drawn]

    ax = _axes(ax)
    # Through a point of the data, so that it does not stretch the axes to reach 0.
    at = x.mean() if len(x) else 0.0
    equal = {**_PREDICTED, "zorder": 1}
    ax.axline((at, at), slope=1, label="measured = predicted", **equal)
    dots = {"markerfacecolor": "none", "markeredgecolor": "#2171b5", "markersize": 6}
    bar = {"ecolor": "0.3", "elinewidth": 1.2, "capsize": 3}
    ax.errorbar(x, y, yerr=bars, fmt="o", label=label, zorder=2, **dots, **bar)
    ax.set(xlabel="predicted (nats per step)", ylabel="measured (nats per step)")
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=6)
    return _with_legend(ax)


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=(7.2, 4), layout="constrained")[1] if ax is None else ax


def _numbers(x: Any, name: str, wanted: str) -> np.ndarray:
    """Return x as an array, and refuse a result of ours that holds several."""
    found = None
    if not hasattr(x, "_fields"):
        try:
            found = np.asarray(x)
        except (TypeError, ValueError):
            found = None
    if found is None or found.dtype.kind not in "iuf":
        msg = f"Argument `{name}` must be {wanted}, but is {type(x).__name__}."
        raise TypeError(msg)
    return found


def _with_legend(ax: Axes) -> Axes:
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False
    )
    return ax


def _annihilated(values: np.ndarray, error: np.ndarray | None = None) -> str:
    """What to add to a label, given values of which some may be -inf."""
    is_lost = values == -np.inf
    count = int(np.sum(is_lost))
    if not count:
        return ""
    by_rounding = 0 if error is None else int(np.sum(is_lost & ~np.isfinite(error)))
    of_these = f",\n {by_rounding} of them undecided" if by_rounding else ""
    return f"\n({count} direction{'s' * (count > 1)} annihilated{of_these})"


def _which_undecided(steps: np.ndarray, is_undecided: np.ndarray) -> str:
    """What the legend says of undecided values, of which there may be none."""
    if not is_undecided.any():
        return ""
    count, first = is_undecided.any(axis=0).sum(), steps[is_undecided.any(axis=1)][0]
    return f"{count} of {is_undecided.shape[1]} values\nundecided from step {first} on"


def _errors_of(spectrum: Any, values: np.ndarray) -> np.ndarray:
    """(R, N) nats, zero where the spectrum has none."""
    error = getattr(spectrum, "error", None)
    if error is None:
        return np.zeros_like(values)
    _checks.errors(error, *values.shape)
    return np.asarray(error)


def _without_nan(steps: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = ~np.isnan(values).any(axis=1)
    return np.asarray(steps)[kept], values[kept]


def _prediction(
    theory: Any, N: int, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(theory, Spectrum):
        values = np.asarray(theory.log_singular_values)
        _checks.shape(values, "theory.log_singular_values", "R N", N=N)
        return _without_nan(theory.steps, values)
    rate = _numbers(theory, "theory", "a Spectrum or an array of rates")
    _checks.shape(rate, "theory", "N", N=N)
    rate = np.sort(rate)[::-1]
    ends = np.array([0, steps[-1] if len(steps) else 1])
    # 0 times -inf is NaN; a direction annihilated from the start has no line.
    start = np.where(np.isfinite(rate), 0.0, rate)
    return _without_nan(ends, np.stack([start, ends[1] * rate]))


def _lines(
    ax: Axes, steps: np.ndarray, values: np.ndarray, label: str, style=_MEASURED
) -> None:
    """One line a column, the first with the label; -inf is a gap."""
    marker = "." if len(steps) == 1 else None
    for i, line in enumerate(np.where(np.isfinite(values), values, np.nan).T):
        ax.plot(steps, line, label=label if i == 0 else None, marker=marker, **style)


def _bands(ax: Axes, steps: np.ndarray, values: np.ndarray, error: np.ndarray) -> None:
    """A pale band around each column that has an error worth one."""
    label = "± error"
    for value, off in zip(values.T, error.T, strict=True):
        shown = np.isfinite(value) & np.isfinite(off)
        if not (off[shown] > _SEEN_ERROR).any():
            continue
        value, off = np.where(shown, value, 0), np.where(shown, off, 0)
        # The edge is what shows of a single record.
        style = {"color": "#6baed6", "alpha": 0.3, "linewidth": 1, "zorder": 1}
        ax.fill_between(
            steps, value - off, value + off, where=shown, label=label, **style
        )
        label = None


def _undecided(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    which: np.ndarray,
    markers: list[str],
    label: str | None = None,
) -> None:
    """Each column where it is undecided, from the record before on; dotted, hollow."""
    for value, at, marker in zip(values.T, which.T, markers, strict=True):
        if not at.any():
            continue
        joined = at | np.append(at[1:], False)
        line = np.where(joined & np.isfinite(value), value, np.nan)
        found = np.flatnonzero(at)
        some = found[:: max(1, len(found) // 6)].tolist()
        style = {"marker": marker, "markevery": some, **_UNDECIDED, **_HOLLOW}
        ax.plot(steps, line, label=label, **style)
        label = None


def _fan(ax: Axes, steps: np.ndarray, values: np.ndarray, label: str) -> None:
    for k, (fraction, alpha) in enumerate(_FAN.items()):
        band = {"alpha": alpha, "linewidth": 0, "zorder": 1}
        high, low = _ranked(values, fraction), _ranked(values, 1 - fraction)
        name = label if k == len(_FAN) - 1 else None
        ax.fill_between(steps, low, high, color="#6baed6", label=name, **band)


def _summary(values: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
    """(R, 3): the largest, the median and the smallest of those not annihilated.

    Or what `of`, of the shape of the values, has in their places.
    """
    fractions = (0, 0.5, 1)
    return np.stack([_ranked(values, fraction, of) for fraction in fractions], axis=1)


def _ranked(
    values: np.ndarray, fraction: float, of: np.ndarray | None = None
) -> np.ndarray:
    """(R,), the value a fraction of the way down those not annihilated; NaN if none."""
    alive = np.isfinite(values).sum(axis=1)
    place = np.maximum(np.floor(fraction * (alive - 1) + 1e-9), 0).astype(int)
    of = values if of is None else of
    found = np.take_along_axis(of, place[:, None], axis=1)[:, 0]
    return np.where(alive > 0, found, np.nan)
