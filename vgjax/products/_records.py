"""Enclosures of all records of a product, in the precision that each needs."""

from typing import Any

import numpy as np
from flint import ctx

from vgjax.products._balls import Factors, product, ranks
from vgjax.products._enclosures import enclosed_logs, working_bits
from vgjax.products._host import Progress


def enclosures(
    factors: Factors, every: int, radius: float, progress: Progress
) -> tuple[np.ndarray, list[list[Any]]]:
    """Rank of each record, and balls of the logs of its nonzero singular values."""
    T, N, _ = factors.values.shape
    R = T // every
    if R == 0:
        return np.zeros(0, np.int32), []
    progress.refuse_beyond_limit(N, T, np.full(R, 64.0))
    rank = ranks(factors, every, lambda t: progress.tell("rank, factor", t, T))
    work = working_bits(N, radius)
    bits = 1.05 * _spreads_in_bits(factors.values, every, rank) + 2 * work + 100
    progress.refuse_beyond_limit(N, T, bits)

    found: list[list[Any]] = []
    total, precision = None, 0
    while len(found) < R:
        r = len(found)
        if bits[r] > precision:
            # From the start again: ahead of what is needed, if later records need it.
            precision, total = int(min(1.5 * bits[r], bits[r:].max())) + 1, None
        with ctx.workprec(precision):
            latest = product(
                factors, 0 if total is None else r * every, (r + 1) * every
            )
            total = latest if total is None else latest * total
            logs = enclosed_logs(total, int(rank[r]), radius, work)
        progress.tell(f"{precision} bits, record", r, R)
        if logs is not None:
            found.append(logs)
            continue
        work *= 2
        bits = np.maximum(bits, 2.0 * precision)
        progress.refuse_beyond_limit(N, T, bits)
    return rank, found


def _spreads_in_bits(values, every, rank):
    """Estimate, in float64, how far apart the values of each record ever were."""
    T, N, _ = values.shape
    Q, logs = np.eye(N), np.zeros(N)
    spreads, widest = np.zeros(T // every), 0.0
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        for t in range(len(spreads) * every):
            shift = np.frexp(np.abs(values[t]).max())[1]
            Q, R = np.linalg.qr(np.ldexp(values[t], -shift) @ Q)
            logs = logs + np.log2(np.abs(np.diag(R))) + shift
            known = -np.sort(-logs[np.isfinite(logs)])[: rank[t // every]]
            widest = max(widest, np.ptp(known)) if known.size else widest
            spreads[t // every] = widest
    return spreads
