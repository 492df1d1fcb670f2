"""A few of many values: by the fraction of the way from the largest to the smallest."""

import numpy as np

# Beyond so many values their lines are a fan, with three of them drawn.
MOST_LINES = 16


def summary(values: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
    """(R, 3): the largest, the median and the smallest of those not annihilated.

    Or what `of`, of the shape of the values, has in their places.
    """
    return np.stack([ranked(values, fraction, of) for fraction in (0, 0.5, 1)], axis=1)


def ranked(
    values: np.ndarray, fraction: float, of: np.ndarray | None = None
) -> np.ndarray:
    """(R,), the value a fraction of the way down those not annihilated; NaN if none."""
    alive = np.isfinite(values).sum(axis=1)
    place = np.maximum(np.floor(fraction * (alive - 1) + 1e-9), 0).astype(int)
    place = np.where(alive > 0, place + (values == np.inf).sum(axis=1), 0)
    of = values if of is None else of
    found = np.take_along_axis(of, place[:, None], axis=1)[:, 0]
    return np.where(alive > 0, found, np.nan)
