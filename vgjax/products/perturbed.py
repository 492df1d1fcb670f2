"""How far the rounding of the factors themselves moves the singular values."""

import numpy as np
from jaxtyping import ArrayLike

from vgjax import _checks
from vgjax._tolerances import DIFFERENCE_RADIUS
from vgjax.products._host import (
    Progress,
    arithmetic,
    concrete,
    finite_records,
    refuse_traced,
    seconds,
)

__all__ = ["sensitivity"]


def __dir__() -> list[str]:
    return __all__


def sensitivity(
    matrices: ArrayLike,
    *,
    every: int = 1,
    reverse: bool = False,
    copies: int = 8,
    limit: float | None = 60.0,
) -> np.ndarray:
    """Return how far each log singular value moves when entries move by half an ulp.

    Tells "the data do not determine it" from "the algorithm has lost it": where this is
    small and a value differs from that of `certified_spectrum` by more, the algorithm
    has lost it. Where this is large, the rounding of the matrices has decided it, and
    no algorithm can mend that.

    In each copy every entry is multiplied by 1 + 2^-53 or 1 - 2^-53 (float32: 2^-24),
    at random with a fixed seed. Zeros stay zeros. The copies are no floats; they are
    taken for the exact numbers they are.

    Args:
      matrices: (T, N, N), row = output, first factor first; float32 or float64, not
        traced.
      every: one row after every so many factors, from 1 to T.
      reverse: multiply from the other end, as `certified_spectrum` does.
      copies: how many are tried, at least 1.
      limit: seconds; what is estimated to take longer is refused. None: no limit.

    Returns:
      (R, N) float64, nats: the largest change over the copies, a proved number for
      these. It is a sample: the worst of all roundings may be some times larger. inf
      where copies and matrices differ in rank, 0 where all read -inf. NaN from a factor
      with NaN or inf on.

    Raises:
      ImportError, TypeError, ValueError: as `certified_spectrum`; `copies` is below 1.

    Notes:
      Costs ``copies + 1`` certified spectra, to 1e-20 nats.

    Examples:
      >>> import numpy as np
      >>> nearly_singular = np.array([[[1.0, 1.0], [1.0, 1.0 + 2**-50]]])
      >>> moved = sensitivity(nearly_singular)[0]
      >>> bool(moved[0] < 1e-15), bool(moved[1] > 0.05)
      (True, True)
    """
    refuse_traced(
        "sensitivity",
        matrices=matrices,
        every=every,
        reverse=reverse,
        copies=copies,
        limit=limit,
    )
    values, digits = concrete(matrices)
    T, N, _ = values.shape
    every = _checks.integer(every, "every", 1, T)
    if _checks.flag(reverse, "reverse"):
        values = np.swapaxes(values[::-1], 1, 2)
    copies = _checks.integer(copies, "copies", 1)
    allowed = seconds(limit)
    balls, records = arithmetic("sensitivity")
    good = finite_records(values, every)
    values = values[: good * every]
    rng = np.random.default_rng(0)
    found = np.full((T // every, N), np.nan)
    found[:good] = 0.0
    with Progress("sensitivity", allowed, runs=copies + 1) as progress:
        factors = balls.Factors(values)
        rank, logs = records.enclosures(factors, every, DIFFERENCE_RADIUS, progress)
        for _ in range(copies):
            signs = rng.choice([-1, 1], values.shape)
            copy = factors._replace(signs=signs, digits=digits)
            copy_rank, moved = records.enclosures(
                copy, every, DIFFERENCE_RADIUS, progress
            )
            for r in range(good):
                low, high = sorted((int(rank[r]), int(copy_rank[r])))
                found[r, low:high] = np.inf
                for i in range(low):
                    change = balls.reach(moved[r][i] - logs[r][i])
                    found[r, i] = max(found[r, i], change)
    return found
