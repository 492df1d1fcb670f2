"""What the pictures draw: one result as it is, a batch as its mean and its spread."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from vgjax import _checks

# Nats, from which on an error is drawn: less is the width of a line.
SEEN_ERROR = 0.1


class Mean(NamedTuple):
    """The mean over a batch, of what is finite there."""

    value: np.ndarray  # as it is for one; NaN where no member is finite
    spread: np.ndarray  # standard deviation over the members; 0 for one
    members: int

    def said(self) -> str:
        """What a label adds for a batch."""
        return f", mean ± SD of {self.members}" if self.members > 1 else ""


class Records(NamedTuple):
    """Log singular values by record, or their mean over a batch."""

    steps: np.ndarray  # (R,)
    values: np.ndarray  # (R, N) nats; -inf where annihilated
    width: np.ndarray  # (R, N) nats, either way: the error, and the spread of a batch
    is_undecided: np.ndarray  # (R, N), by rounding, in one member or more
    lost: str  # what a label adds for values that cannot be drawn
    members: int


def numbers(x: Any, name: str, wanted: str) -> np.ndarray:
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


def result(x: Any, name: str, fields: Iterable[str], wanted: str) -> Any:
    """Return x if it has these fields."""
    if not all(hasattr(x, field) for field in fields):
        msg = f"Argument `{name}` must be {wanted}, but is {type(x).__name__}."
        raise TypeError(msg)
    return x


def batch(x: Any, name: str, spec: str, **sizes: int) -> np.ndarray:
    """Return x with a batch in front, of one where it has none."""
    x = np.asarray(x)
    one = len(spec.split())
    _checks.shape(x, name, f"B {spec}" if x.ndim == one + 1 else spec, **sizes)
    return x if x.ndim == one + 1 else x[None]


def mean(x: np.ndarray) -> Mean:
    """Return the mean and standard deviation of (B, ...) over B; one as it is."""
    if len(x) == 1:
        return Mean(x[0], np.zeros(x.shape[1:]), 1)
    finite = np.isfinite(x)
    n = finite.sum(axis=0)
    center = np.where(finite, x, 0).sum(axis=0) / np.maximum(n, 1)
    square = (np.where(finite, x - center, 0) ** 2).sum(axis=0)
    spread = np.sqrt(square / np.maximum(n - 1, 1))
    return Mean(np.where(n > 0, center, np.nan), spread, len(x))


def records(spectrum: Any, name: str, N: int | None = None) -> Records:
    """Read a Spectrum, or a batch of them."""
    field = f"{name}.log_singular_values"
    sizes = {} if N is None else {"N": N}
    values = batch(spectrum.log_singular_values, field, "R N", **sizes)
    B, R, N = values.shape
    steps = batch(spectrum.steps, f"{name}.steps", "R", R=R)
    if (steps != steps[0]).any():
        msg = f"Argument `{name}.steps` must be the same for all {B} of the batch."
        raise ValueError(msg)
    error = _errors(spectrum, values)

    kept = ~np.isnan(values).all(axis=(0, 2))
    steps, values, error = steps[0, kept], values[:, kept], error[:, kept]
    is_undecided = ~np.isfinite(error) & np.isfinite(values)
    drawn = mean(values)
    certain = np.where(is_undecided | ~np.isfinite(values), 0, error)
    # Of the mean: it is off by the mean of errors at worst.
    width = drawn.spread + certain.mean(axis=0)
    lost = lost_at_the_end(values[:, -1], error[:, -1]) if len(steps) else ""
    return Records(steps, drawn.value, width, np.any(is_undecided, axis=0), lost, B)


def _errors(spectrum: Any, values: np.ndarray) -> np.ndarray:
    """(B, R, N) nats, zero where the spectrum has none."""
    error = getattr(spectrum, "error", None)
    if error is None:
        return np.zeros(values.shape)
    B, R, N = values.shape
    # Its sentences are about one spectrum: all rows are those of one.
    if np.ndim(error) == 3:
        _checks.shape(error, "spectrum.error", "B R N", B=B, R=R, N=N)
        _checks.errors(np.reshape(error, (B * R, N)), B * R, N)
    else:
        _checks.errors(error, R, N)
    return np.asarray(error).reshape(values.shape)


def lost_at_the_end(values: np.ndarray, error: np.ndarray | None = None) -> str:
    """What a label adds, given (B, N) values of which some cannot be drawn."""
    B, N = values.shape
    of = f" of {B} x {N}" if B > 1 else ""
    is_lost = values == -np.inf
    said = ""
    if count := int(is_lost.sum()):
        undecided = 0 if error is None else int((is_lost & ~np.isfinite(error)).sum())
        of_these = f",\n {undecided} of them undecided" if undecided else ""
        many = "s" * (count > 1 or bool(of))
        said += f"\n({count}{of} direction{many} annihilated{of_these})"
    if count := int((values == np.inf).sum()):
        said += f"\n({count}{of} infinite)"
    if count := int(np.isnan(values).sum()):
        said += f"\n({count}{of} NaN)"
    return said
