"""Singular values of products with a proof, in as many digits as that takes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from vgjax import _checks
from vgjax.products._host import (
    Progress,
    arithmetic,
    concrete,
    finite_records,
    refuse_traced,
    seconds,
)

__all__ = ["CertifiedSpectrum", "certified_spectrum"]


def __dir__() -> list[str]:
    return __all__


class CertifiedSpectrum(NamedTuple):
    """Singular values of a growing product, in logs, each with a proved radius.

    Attributes:
      steps: (R,) int32, the number of factors in each product.
      log_singular_values: (R, N) float64, nats, descending.
      radius: (R, N) float64, nats: the truth is at most so far away.
      rank: (R,) int32, how many values are not -inf; -1: not finite.
    """

    steps: np.ndarray
    log_singular_values: np.ndarray
    radius: np.ndarray
    rank: np.ndarray


def certified_spectrum(
    matrices: ArrayLike,
    *,
    every: int = 1,
    reverse: bool = False,
    radius: float = 1e-12,
    limit: float | None = 60.0,
) -> CertifiedSpectrum:
    r"""Return log singular values of every product of leading matrices, proved.

    The truth is that of the matrices as they are given, each float64 or float32 taken
    for the exact number it is. Whatever the condition of the matrices, and however far
    the values are apart, ``|value - truth| <= radius``. `product_spectrum` is the fast
    one; this one tells where that is wrong.

    Args:
      matrices: (T, N, N), row = output, first factor first; float32 or float64.
        Concrete: this runs on the host, without JAX, and cannot be traced.
      every: record the product after every so many factors, from 1 to T.
      reverse: multiply from the other end, as `product_spectrum` does.
      radius: nats, above 0. What the enclosures are to have; see Returns.
      limit: seconds. What is estimated to take longer is refused, with that estimate.
        None: take as long as it takes.

    Returns:
      `CertifiedSpectrum` of NumPy arrays with R = T // every rows. A finite value is a
      float64: its own rounding, half an ulp (2e-13 at 4,000 nats), is part of its
      radius, which exceeds the one asked for where half an ulp does. Otherwise it is
      mostly far below it. -inf stands exactly where the product has lost rank, with
      radius 0. From a factor with NaN or inf on, values and radii are NaN and the rank
      is -1.

    Raises:
      ImportError: python-flint is not installed.
      ValueError: a shape is not (T, N, N) or has a zero, `every` is outside 1..T,
        `radius` or `limit` is not above 0, or the estimate exceeds `limit`.
      TypeError: the matrices are traced, or not float32 or float64.

    Notes:
      What is proved is about the given matrices. That the Jacobians are rounded
      themselves is another error: `sensitivity` measures what that does.

      The rank is that of the product modulo a prime. Floats are integers times powers
      of two, so this is exact arithmetic. Minors that are zero stay zero modulo a
      prime, so that a wrong prime can only lower the rank. A full rank is proved; a
      lower one is what two primes drawn at random find, and wrong with a chance below
      1e-20. All else is proof: the product is multiplied in balls that hold every
      rounding; approximate left vectors U and values S then make
      $Z = \Phi^T U S^{-1}$; and how far U and Z are from orthonormal bounds the error.

      p is the spread of the values in bits plus some 400, estimated by a QR chain in
      float64 and doubled until the proof succeeds. Costs O(T N^3) products of numbers
      of up to p bits, and about eight products of matrices of p bits a record: 0.1 s
      for N = 8 and T = 500, 1 s for N = 24, 7 s for N = 64, with one record. Memory is
      some (12 + log2 T) N^2 p / 8 bytes. On a terminal a line tells how far it is,
      after two seconds. Ctrl-C ends it between two products.

    Source:
      Ball arithmetic: Johansson, IEEE Trans. Comput. 66, 1281 (2017). Multiplicative
      perturbation: Ostrowski; Eisenstat & Ipsen, SIAM J. Numer. Anal. 32, 1972 (1995).
      The enclosure is derived in `vgjax/products/_enclosures.py`.

    Examples:
      >>> import numpy as np
      >>> shear = np.array([[0.5, 1.0], [0.0, 0.5]])
      >>> spectrum = certified_spectrum(np.stack([shear] * 400), every=200)
      >>> spectrum.log_singular_values.round(1)
      array([[-132.6, -144.6],
             [-270.6, -283.9]])
      >>> bool(spectrum.radius.max() < 1e-12)
      True
    """
    refuse_traced(
        "certified_spectrum",
        matrices=matrices,
        every=every,
        reverse=reverse,
        radius=radius,
        limit=limit,
    )
    values, _ = concrete(matrices)
    every = _checks.integer(every, "every", 1, len(values))
    if _checks.flag(reverse, "reverse"):
        # Suffixes of A are prefixes of the transposed factors in reversed order.
        values = np.swapaxes(values[::-1], 1, 2)
    radius = float(_checks.positive(radius, "radius"))
    allowed = seconds(limit)
    balls, records = arithmetic("certified_spectrum")
    T, N, _ = values.shape
    R, good = T // every, finite_records(values, every)
    factors = balls.Factors(values[: good * every])
    with Progress("certified_spectrum", allowed) as progress:
        ranks, logs = records.enclosures(factors, every, radius, progress)

    # What follows a factor that is not finite keeps these.
    found = np.full((R, N), np.nan)
    radii = np.full((R, N), np.nan)
    rank = np.full(R, -1, np.int32)
    rank[:good] = ranks
    for r, row in enumerate(logs):
        found[r], radii[r] = -np.inf, 0.0
        for i, ball in enumerate(row):
            found[r, i], radii[r, i] = balls.rounded(ball)
    steps = every * np.arange(1, R + 1, dtype=np.int32)
    return CertifiedSpectrum(steps, found, radii, rank)
