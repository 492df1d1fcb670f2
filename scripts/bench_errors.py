"""Whether `Spectrum.error` holds on real networks, how tight it is, what it costs.

Every network of `tests/networks.py` goes through `product_spectrum` forward and in
reverse, some also in float32, and each value is compared with the truth for the same
factors by ball arithmetic. A violation is a value that is off by more than its error
says, or -inf for a finite value, or the other way round, without an infinite error.
"""

import hashlib
import inspect
import math
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _measure import call, in_turn, start, verdict

CACHE = Path(__file__).resolve().parents[1] / ".bench-cache"
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
    """One row of values of one product; `error` is None where there is none."""

    network: Any
    reverse: bool
    t: int
    value: np.ndarray
    truth: np.ndarray
    error: np.ndarray | None

    @property
    def off(self):
        """True errors; infinite where only one of value and truth is -inf, or NaN."""
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.value - self.truth)
        difference = np.where(np.isnan(difference), np.inf, difference)
        return np.where(self.value == self.truth, 0, difference)


def report(toy, truth):
    """Print errors by family, violations and costs; exit with 1 if there are any."""
    try:
        call("errors", toy, truth and str(Path(truth).resolve()), threads="1")
    except subprocess.CalledProcessError:
        sys.exit(1)
    finally:
        call("error_costs", toy, threads="1")


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
        for row in rows(precision, toy, Path(truth or CACHE)):
            network = row.network
            families[f"{network.family}, {network.gain:g}"].append(row)
        violations += print_table(families, precision)
    if violations:
        sys.exit(1)


def rows(precision, toy, cache) -> Iterator[Values]:
    """Every record of every network, forward and in reverse."""
    import balls
    import jax.numpy as jnp
    import networks

    import vgjax

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
            error = getattr(found, "error", None)
            picked = np.searchsorted(np.asarray(found.steps), times)
            values = np.asarray(found.log_singular_values, float)[picked]
            error = None if error is None else np.asarray(error, float)[picked]
            factors = balls.reverse(chain) if reverse else chain
            for r, answer in enumerate(cached_truth(factors, times, cache)):
                bar = None if error is None else error[r]
                yield Values(network, reverse, int(times[r]), values[r], answer, bar)


def cached_truth(chain, times, cache):
    """(R, N) log singular values by the oracle, or as it once found them."""
    import balls

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
    no_error = rows[0].error is None
    error = (
        np.zeros_like(off) if no_error else np.concatenate([row.error for row in rows])
    )
    flagged = np.isposinf(error)
    right = (off <= precision.right) & np.isfinite(truth)
    floor = np.finfo(precision.dtype).eps * np.maximum(1, np.abs(truth))
    shown = right & ~flagged
    return Summary(
        len(off),
        tuple(int((off > limit).sum()) for limit in precision.wrong),
        tuple(int((flagged & (off > limit)).sum()) for limit in precision.wrong[1:]),
        0 if no_error else int(violating(off, error).sum()),
        int(right.sum()),
        int((right & flagged).sum()),
        np.zeros(0) if no_error else error[shown] / np.maximum(off, floor)[shown],
    )


def violating(off, error):
    """Not <=, so that a NaN violates."""
    return ~(off <= error) & ~np.isposinf(error)


def print_table(families, precision):
    """Print one line a family, the violations and the verdicts; return their number."""
    limits = [f"{limit:.0e}".replace("e-0", "e-") for limit in precision.wrong]
    limits[-1] = "1"
    print(
        f"\n{precision.dtype}: truth for the given factors, nats. Share of values off"
        f" by more than a limit;\nflagged (infinite error) of those over"
        f" {', '.join(limits[1:])}; violations; of values right to"
        f" {precision.right:.0e}:\nmedian of error / true error, share flagged\n"
    )
    print(
        f"{'family, gain':22s}{'values':>8s}"
        + "".join(f"{'>' + limit:>9s}" for limit in limits)
        + "".join(f"{'of >' + limit:>13s}" for limit in limits[1:])
        + f"{'violations':>12s}{'median':>9s}{'flagged':>9s}"
    )
    everything = [row for rows in families.values() for row in rows]
    for name, rows in families.items():
        print_line(name, summary(rows, precision))
    total = summary(everything, precision)
    print_line("all", total)
    print(f"{total.values} comparisons on {counted(everything)} networks.")
    if everything[0].error is None:
        print("\n`Spectrum.error` does not exist yet: nothing to hold it against.")
        return 0
    print_violations(everything)
    median = np.median(total.ratios) if total.ratios.size else math.nan
    share = total.right_flagged / max(1, total.right)
    print(
        f"\nviolations {total.violations} (bound 0: {verdict(total.violations, 0)}), "
        f"median error / true error {median:.0f} "
        f"(bound {MEDIAN_RATIO}: {verdict(median, MEDIAN_RATIO)}), "
        f"right and flagged {share:.2%} "
        f"(bound {RIGHT_FLAGGED:.0%}: {verdict(share, RIGHT_FLAGGED)})",
        flush=True,
    )
    return total.violations


def print_line(name, found):
    median = f"{np.median(found.ratios):.0f}" if found.ratios.size else "-"
    flagged = found.right_flagged / max(1, found.right)
    print(
        f"{name:22s}{found.values:8d}"
        + "".join(f"{wrong / found.values:9.2%}" for wrong in found.wrong)
        + "".join(
            f"{f'{flagged}/{wrong}':>13s}"
            for flagged, wrong in zip(found.flagged, found.wrong[1:], strict=True)
        )
        + f"{found.violations:12d}{median:>9s}{flagged:9.2%}",
        flush=True,
    )


def counted(rows):
    return len({id(row.network) for row in rows})


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


def error_costs(toy):
    """Warm time with errors as a ratio to that without."""
    start()
    import jax.numpy as jnp
    import systems

    import vgjax

    spectrum = vgjax.products.product_spectrum
    if "errors" not in inspect.signature(spectrum).parameters:
        print("\n`product_spectrum(errors=)` does not exist yet: no cost to measure.")
        return
    T = 20 if toy else 200
    print(f"\nTime with errors / without, tanh chain, T = {T}, float64")
    print(f"    N   every step   last only   (aim {COST_AIM}, at most {COST_LIMIT})")
    for N in (8,) if toy else (16, 64, 128):
        chain = jnp.asarray(systems.tanh_chain(1, N, 1.2, T))
        functions = [
            partial(spectrum, chain, every=every, errors=wanted)
            for every in (1, T)
            for wanted in (False, True)
        ]
        seconds = in_turn(functions, 5 if N >= 128 else 11)
        ratios = seconds[1] / seconds[0], seconds[3] / seconds[2]
        worst = max(ratios)
        print(
            f"{N:5d} {ratios[0]:12.2f} {ratios[1]:11.2f}   "
            f"aim {verdict(worst, COST_AIM)}, limit {verdict(worst, COST_LIMIT)}",
            flush=True,
        )


PARTS = (errors, error_costs)
