"""Whether `Spectrum.error` holds on real networks, how tight it is, what it costs.

Every network of `tests/networks.py` goes through `product_spectrum` forward and in
reverse, some also in float32, and each value is compared with the truth for the same
factors by ball arithmetic. A violation is a value that is off by more than its error
says, or -inf for a finite value, or the other way round, without an infinite error.
"""

import hashlib
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import balls
import jax.numpy as jnp
import networks
import numpy as np
import systems

import vgjax

from . import ROOT
from ._measure import alone, in_turn, start
from ._table import Bounded, Table

CACHE = ROOT / ".bench-cache"
RECORDS = 16

# Bounds of the whole table, and of the ratio of times.
MEDIAN_RATIO, RIGHT_FLAGGED, COST_AIM, COST_LIMIT = 100, 0.01, 1.6, 2.5


class Precision(NamedTuple):
    """What counts as wrong and as right, in nats."""

    dtype: str
    wrong: tuple[float, ...]
    right: float
    every: int  # look at every so many networks


PRECISIONS = (
    Precision("float64", (1e-10, 1e-6, 1e-2, 1), 1e-9, 1),
    Precision("float32", (1e-4, 1e-2, 1e-1, 1), 1e-3, 6),
)


class Values(NamedTuple):
    """One row of values of one product."""

    network: Any
    reverse: bool
    t: int
    value: np.ndarray
    truth: np.ndarray
    error: np.ndarray

    @property
    def off(self):
        """True errors; infinite where only one of value and truth is -inf, or NaN."""
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.value - self.truth)
        difference = np.where(np.isnan(difference), np.inf, difference)
        return np.where(self.value == self.truth, 0, difference)


def report(toy, truth=None):
    """Print errors by family, violations and costs; return how many violations."""
    truth = Path(truth).resolve() if truth else CACHE
    violations = alone(errors, toy, truth, threads="1")
    report_costs(toy)
    return violations


# Errors -----------------------------------------------------------------------------


def errors(toy, truth):
    start()
    # The table counts undecided values; a warning a record would bury it.
    warnings.filterwarnings(
        "ignore", "[0-9]+ of [0-9]+ log singular values", RuntimeWarning
    )
    violations = 0
    for precision in PRECISIONS:
        families = defaultdict(list)
        for row in rows(precision, toy, truth):
            network = row.network
            families[f"{network.family}, {network.gain:g}"].append(row)
        violations += print_table(families, precision)
    return violations


def rows(precision, toy, cache) -> Iterator[Values]:
    """Every record of every network, forward and in reverse."""
    recipes = networks.recipes()[:: precision.every]
    if toy:
        # Of one size and length, that is two programs to compile.
        small = [r for r in networks.recipes() if (r.N, r.T) == (4, 496)]
        recipes = small[:: 12 * precision.every]
    for turn, recipe in enumerate(recipes):
        network = networks.network(recipe)
        chain = network.jacobians.astype(precision.dtype)
        # As documented: subnormal numbers count as zero.
        chain[np.abs(chain) < np.finfo(chain.dtype).tiny] = 0
        interval = network.T // RECORDS
        times = interval * np.arange(1, RECORDS + 1)
        for reverse in (False, True):
            # Records at every step, or only at those of the table.
            every = interval if toy or (turn + reverse) % 2 else 1
            found = vgjax.products.product_spectrum(
                jnp.asarray(chain), every=every, reverse=reverse
            )
            picked = np.searchsorted(np.asarray(found.steps), times)
            values = np.asarray(found.log_singular_values, float)[picked]
            error = np.asarray(found.error, float)[picked]
            factors = balls.reverse(chain) if reverse else chain
            for r, answer in enumerate(cached_truth(factors, times, cache)):
                t = int(times[r])
                yield Values(network, reverse, t, values[r], answer, error[r])


def cached_truth(chain, times, cache):
    """(R, N) log singular values by the oracle, or as it once found them."""
    chain = np.ascontiguousarray(chain, float)
    key = hashlib.sha256(chain.tobytes() + np.asarray(times).tobytes()).hexdigest()
    path = cache / f"{key[:32]}.npy"
    if path.exists():
        return np.load(path)
    found = balls.log_singular_values(chain, times)
    answer = np.array([found[t] for t in times.tolist()])
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npy")
    np.save(unfinished, answer)
    unfinished.rename(path)
    return answer


class Summary(NamedTuple):
    """What one line of the table says."""

    values: int
    wrong: tuple[int, ...]  # by the limits of the precision
    flagged: tuple[int, ...]  # of those, with an infinite error; not of the first
    violations: int
    right: int
    right_flagged: int
    ratios: np.ndarray  # error by true error, of right values that are not flagged


def summary(rows, precision):
    """Count over the rows of a family."""
    off = np.concatenate([row.off for row in rows])
    truth = np.concatenate([row.truth for row in rows])
    error = np.concatenate([row.error for row in rows])
    flagged = np.isposinf(error)
    right = (off <= precision.right) & np.isfinite(truth)
    floor = np.finfo(precision.dtype).eps * np.maximum(1, np.abs(truth))
    shown = right & ~flagged
    return Summary(
        len(off),
        tuple(int((off > limit).sum()) for limit in precision.wrong),
        tuple(int((flagged & (off > limit)).sum()) for limit in precision.wrong[1:]),
        int(violating(off, error).sum()),
        int(right.sum()),
        int((right & flagged).sum()),
        error[shown] / np.maximum(off, floor)[shown],
    )


def violating(off, error):
    """Not <=, so that a NaN violates."""
    return ~(off <= error) & ~np.isposinf(error)


def print_table(families, precision):
    """Print one line a family, the violations and the verdicts; return their number."""
    limits = [f"{limit:.0e}".replace("e-0", "e-") for limit in precision.wrong]
    limits[-1] = "1"
    print()
    table = Table(
        f"{precision.dtype}: truth for the given factors, nats. Share of values off"
        f" by more than a limit;\nflagged (infinite error) of those over"
        f" {', '.join(limits[1:])}; violations; of values right to"
        f" {precision.right:.0e}:\nmedian of error / true error, share flagged\n",
        "family, gain 20s | values 6d | "
        + "".join(f">{limit} 7.2% | " for limit in limits)
        + "".join(f"of >{limit} >11s | " for limit in limits[1:])
        + "violations 8d | median 6.0f | flagged 7.2%",
    )
    everything = [row for rows in families.values() for row in rows]
    for name, rows in families.items():
        table.row(name, *shown(summary(rows, precision)))
    total = summary(everything, precision)
    *_, median, share = shown(total)
    table.row("all", *shown(total))
    networks = len({id(row.network) for row in everything})
    print(f"{total.values} comparisons on {networks} networks.")
    print_violations(everything)
    violations = Bounded(total.violations, 0)
    median = Bounded(math.nan if median is None else median, MEDIAN_RATIO)
    share = Bounded(share, RIGHT_FLAGGED)
    print(
        f"\nviolations {violations.value} ({violations}), "
        f"median error / true error {median.value:.0f} ({median}), "
        f"right and flagged {share.value:.2%} ({share})",
        flush=True,
    )
    return total.violations


def shown(found):
    """Return the cells of a summary, after the family."""
    of = zip(found.flagged, found.wrong[1:], strict=True)
    return (
        found.values,
        *(wrong / found.values for wrong in found.wrong),
        *(f"{flagged}/{wrong}" for flagged, wrong in of),
        found.violations,
        np.median(found.ratios) if found.ratios.size else None,
        found.right_flagged / max(1, found.right),
    )


def print_violations(rows):
    header = "family, gain, N, driver, direction, t, i: value, truth, error"
    for row in rows:
        off = row.off
        for i in np.flatnonzero(violating(off, row.error)):
            if header:
                print(f"\nViolations: {header}")
                header = ""
            network, side = row.network, "reverse" if row.reverse else "forward"
            print(
                f"{network.family}, {network.gain:g}, {network.N}, {network.driver}, "
                f"{side}, {row.t}, {i}: {row.value[i]:.17g}, {row.truth[i]:.17g}, "
                f"{row.error[i]:.3g} (off by {off[i]:.3g})"
            )


# Cost -------------------------------------------------------------------------------


def report_costs(toy):
    """Print warm times with errors as ratios to those without."""
    T = 20 if toy else 200
    print()
    table = Table(
        f"Time with errors / without, tanh chain, T = {T}, float64; the worse of both"
        f" beside aim and limit",
        "N 5d | every step 8.2f | last only 8.2f | aim 8.2f | limit 8.2f",
    )
    for N in (8,) if toy else (16, 64, 128):
        ratios = alone(costs, N, T, threads="1")
        worst = max(ratios)
        table.row(N, *ratios, Bounded(worst, COST_AIM), Bounded(worst, COST_LIMIT))
    print()


def costs(N, T):
    """Two ratios: records at every step, and the last alone."""
    start()
    chain = jnp.asarray(systems.tanh_chain(1, N, 1.2, T))
    spectrum = vgjax.products.product_spectrum
    functions = [
        partial(spectrum, chain, every=every, errors=wanted)
        for every in (1, T)
        for wanted in (False, True)
    ]
    seconds = in_turn(functions, 5 if N >= 128 else 11)
    return seconds[1] / seconds[0], seconds[3] / seconds[2]
