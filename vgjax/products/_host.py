"""What a function on the host needs: concrete arrays, python-flint, and patience."""

import sys
import time
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from vgjax import _checks


def refuse_traced(function: str, **given: Any) -> None:
    """Refuse what has no numbers yet, by its name."""
    for name, x in given.items():
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x)):
            msg = (
                f"Argument `{name}` must be concrete, but is traced by jit, grad or "
                f"vmap: call {function} outside of them."
            )
            raise TypeError(msg)


def concrete(matrices: Any) -> tuple[np.ndarray, int]:
    """Return the factors in float64, and the digits of the dtype that they had."""
    try:
        given = np.asarray(matrices)
    except (TypeError, ValueError):
        msg = (
            "Argument `matrices` must be an array, or a list of equal shapes, "
            f"but is {type(matrices).__name__}."
        )
        raise TypeError(msg) from None
    _checks.shape(given, "matrices", "T N N")
    if given.dtype not in (np.float32, np.float64):
        msg = (
            "Argument `matrices` must be real with dtype float32 or float64, "
            f"but has dtype {given.dtype}."
        )
        raise TypeError(msg)
    return given.astype(np.float64), 53 if given.dtype == np.float64 else 24


def arithmetic(function: str) -> tuple[ModuleType, ModuleType]:
    """Return the modules `_balls` and `_records`, which need python-flint."""
    try:
        from vgjax.products import _balls, _records
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "flint":
            raise
        msg = f'{function} needs python-flint: pip install "vgjax[certified]"'
        raise ImportError(msg) from None
    return _balls, _records


def seconds(limit: Any) -> float:
    """Return `limit`, infinite where it is None."""
    if limit is None:
        return np.inf
    number = np.ndim(limit) == 0 and np.asarray(limit).dtype.kind in "iuf"
    if not (number and limit > 0):
        msg = (
            "Argument `limit` must be a number of seconds above 0, or None, "
            f"but is {limit!r}."
        )
        raise ValueError(msg)
    return float(limit)


def finite_records(values: np.ndarray, every: int) -> int:
    """Count the records before the first factor with NaN or inf."""
    bad = np.flatnonzero(~np.isfinite(values).all((1, 2)))
    return (int(bad[0]) if bad.size else len(values)) // every


class Progress:
    """A line on a terminal, from the third second on, and the refusal of too much."""

    def __init__(self, function: str, limit: float, runs: int = 1):
        self.function, self.limit, self.runs = function, limit, runs
        self.began = self.last = time.monotonic()
        self.shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            sys.stderr.write("\n")

    def tell(self, what: str, done: int, of: int) -> None:
        """Show how far it is, five times a second at most."""
        now = time.monotonic()
        if now - self.began < 2 or now - self.last < 0.2 or not sys.stderr.isatty():
            return
        self.last, self.shown = now, True
        line = f"{self.function}: {what} {done + 1} of {of}, {now - self.began:.0f} s"
        sys.stderr.write(f"\r{line:78s}")
        sys.stderr.flush()

    def refuse_beyond_limit(self, N: int, T: int, bits: np.ndarray) -> None:
        """Raise where numbers of so many bits, for each record, take too long."""
        estimate = self.runs * _estimated_seconds(N, T, bits)
        if estimate <= self.limit:
            return
        held = N * N * (bits.max() / 8 + 64) * (np.log2(T) + 12) + 48 * T * N * N
        msg = (
            f"Argument `limit` must be at least the seconds that {self.function} "
            f"takes, here about {_short(estimate)} and {_short(held / 1e9)} GB for "
            f"N={N}, {T} factors and R={len(bits)} of {bits.max():.0f} bits or more, "
            f"or None, but is {self.limit:g}."
        )
        raise ValueError(msg)


def _short(x):
    return f"{float(f'{x:.2g}'):g}"


def _estimated_seconds(N, T, bits):
    """Estimate the time from that of FLINT's products, measured once; within 3."""

    def times(bits):  # seconds of one product of numbers in a matrix product
        return 3e-8 + 1.8e-9 * (bits / 64) ** 1.585

    R = len(bits)
    levels = 2 ** np.arange(1, max(2, np.ceil(np.log2(T / R)) + 1))
    tree = sum(T / k * N**3 * times(np.minimum(60 * k, bits.max())) for k in levels)
    records = np.sum(5 * N**3 * times(bits) + 2e-5 * N**2 * (6 + N / 20))
    return tree + records + T * (2e-6 * N**2 + 2e-8 * N**3 + 3e-5)
