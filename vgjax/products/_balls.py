"""Exact products of float matrices: in balls of python-flint, and modulo primes.

A number of FLINT is a ball: a midpoint of any precision and a radius that holds all
that was rounded.
"""

from collections.abc import Callable
from random import SystemRandom
from typing import Any, NamedTuple

import numpy as np
from flint import arb, arb_mat, ctx, fmpz, nmod_mat


class Factors(NamedTuple):
    """Exact factors: floats, or floats times 1 + sign 2^-digits, entry by entry."""

    values: np.ndarray  # (T, N, N) float64, of one of at most 53 digits
    signs: np.ndarray | None = None  # (T, N, N) of +-1
    digits: int = 53  # 24: float32

    def balls(self, t: int) -> Any:
        """Return factor t as a matrix of exact balls."""
        N = self.values.shape[1]
        entries = self.values[t].ravel().tolist()
        if self.signs is not None:
            with ctx.workprec(128):  # enough for all of 53 + 54 bits
                half = arb(2) ** -self.digits
                moved = {1: 1 + half, -1: 1 - half}
                signs = self.signs[t].ravel().tolist()
                entries = [a * moved[s] for a, s in zip(entries, signs, strict=True)]
        return arb_mat(N, N, entries)

    def residues(self, t: int, prime: int, powers: dict[int, int]) -> Any:
        """Return factor t modulo a prime; `powers` keeps the residues of 2^e."""
        fractions, exponents = np.frexp(self.values[t].ravel())
        whole = np.ldexp(fractions, 53).astype(np.int64).tolist()
        if self.signs is not None:
            unit = 2**self.digits
            signs = self.signs[t].ravel().tolist()
            whole = [m * (unit + s) for m, s in zip(whole, signs, strict=True)]
            exponents = exponents - self.digits
        exponents = (exponents - 53).tolist()
        for e in set(exponents) - powers.keys():
            powers[e] = pow(2, e, prime)
        N = self.values.shape[1]
        entries = [m * powers[e] % prime for m, e in zip(whole, exponents, strict=True)]
        return nmod_mat(N, N, entries, prime)


def product(factors: Factors, start: int, stop: int) -> Any:
    """Balls of ``A_(stop-1) ... A_start``, at the precision of the context.

    A binary tree: most of its products are of few digits, and exact.
    """
    if stop - start == 1:
        return factors.balls(start)
    middle = (start + stop) // 2
    return product(factors, middle, stop) * product(factors, start, middle)


def ranks(factors: Factors, every: int, tell: Callable[[int], None]) -> np.ndarray:
    """Ranks of the product of every so many factors, by two primes.

    Floats are integers times powers of two, and 2 has an inverse modulo an odd prime.
    What is dependent stays so modulo any prime: a prime can only lower the rank, and
    does so where it divides all minors of that size. So a full rank is proved. A lower
    one is the higher of those by two primes, drawn at random for each call out of 2e16:
    the chance that both lower it is below 1e-20 for 1,000 factors of 8 x 8.
    """
    found = _ranks_modulo(_random_prime(), factors, every, tell)
    if np.all(found == factors.values.shape[1]):
        return found
    return np.maximum(found, _ranks_modulo(_random_prime(), factors, every, tell))


def _ranks_modulo(prime, factors, every, tell):
    T, N, _ = factors.values.shape
    powers = {}
    found = np.zeros(T // every, np.int32)
    total = nmod_mat(N, N, [int(i == j) for i in range(N) for j in range(N)], prime)
    for t in range(len(found) * every):
        total = factors.residues(t, prime, powers) * total
        tell(t)
        if (t + 1) % every == 0:
            found[t // every] = total.rank()
            if found[t // every] == 0:
                break  # so are all later ones
    return found


def _random_prime():
    draw = SystemRandom()
    while True:
        n = draw.getrandbits(61) | 2**60 | 1
        if fmpz(n).is_prime():
            return n


def rounded(ball: Any) -> tuple[float, float]:
    """Return the nearest float64, and a radius around it that holds the whole ball."""
    value = float(ball.mid())
    return value, reach(ball - arb(value))


def reach(ball: Any) -> float:
    """Return the largest absolute value in a ball, rounded up."""
    exact = ball.abs_upper()
    bound = float(exact)
    return bound if arb(bound) >= exact else float(np.nextafter(bound, np.inf))
