"""Random networks turn chaotic at gain 1, late and gently where they are small.

Question:   the network h <- J tanh(h), J_ij ~ N(0, g^2/N), dies out at small gain g and
            is chaotic at large. Where does the largest Lyapunov exponent cross zero,
            what are all the others, and of what dimension is the attractor?
Prediction: lambda_1 = log(chi_1)/2, theory.leading_exponent: log g up to g = 1. The
            whole spectrum lambda(x), at the share x = i/N of the exponents, is
            theory.lyapunov_density. Its Kaplan-Yorke dimension and entropy are
            proportional to N. The dimension peaks at 0.288 N near g = 2.9.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true but the 2nd: at N = 300, g = 2
            lambda_1 is 0.142 with a standard error of 0.004, 0.012 below mean field; at
            g = 3 it is 0.301, 0.009 below. Above g = 1 it is below mean field at every
            gain, at g >= 3 by 3/N to 4/N. The whole spectra follow lambda(x) to 0.021
            nats (r.m.s., upper 90 %) at N = 200.

Near the edge a finite network is not typical: it may have settled at a fixed point
(lambda_1 below 0) or on a cycle (at 0).
"""

from lab import Lab, at_least, at_most, track, within

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array

import vgjax

SWEEP = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)


@dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (100, 300)  # N where only lambda_1 is measured, units
    gains: tuple[float, ...] = SWEEP  # g there; dimensionless
    seeds: int = 10  # networks of each size and gain
    steps: int = 1000  # T, measured; time steps
    burn_in: int = 300  # before them; time steps
    whole_sizes: tuple[int, ...] = (100, 200)  # N of whole spectra, units
    whole_gains: tuple[float, ...] = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)  # g there
    whole_seeds: int = 3  # networks of each of these
    whole_steps: int = 500  # T, measured; time steps
    whole_burn_in: int = 200  # before them; time steps
    seed: int = 1  # of the matrices and of the first states


TOY = Config(
    sizes=(20, 40),
    gains=(0.6, 1.25, 1.5, 2.0, 3.0),
    seeds=3,
    steps=200,
    burn_in=100,
    whole_sizes=(24,),
    whole_gains=(2.0, 3.0),
    whole_seeds=2,
    whole_steps=100,
    whole_burn_in=50,
)

lab = Lab(__file__, __doc__, default=Config(), toy=TOY, columns=2)

SETTLED = 0.95  # spectral radius below which the burn-in kills the network
NOT_LOWEST = 0.9  # the share of a spectrum that is held to the prediction


def network(J: Array, h: Array, _: None) -> tuple[Array, None]:
    """Take a step."""
    return J @ vgjax.activations.tanh(h), None


@partial(jax.jit, static_argnames=("N", "k", "length", "burn_in", "qr_every"))
def exponents(keys: Array, gain: Array, *, N: int, **options: int) -> Any:
    """Lyapunov exponents of one network for each key."""

    def one(key):
        keys = jax.random.split(key)
        J = vgjax.matrices.gaussian(keys[0], N, gain=gain)
        h = jax.random.normal(keys[1], (N,))
        step = vgjax.steps.from_function(network, J)
        return vgjax.lyapunov_spectrum(step, h, **options)

    return jax.vmap(one)(keys)


@partial(jax.jit, static_argnames="N")
def log_radii(keys: Array, *, N: int) -> Array:
    """log|eigenvalue| of the largest of each J at gain 1, nats per step."""

    def one(key):
        J = vgjax.matrices.gaussian(jax.random.split(key)[0], N)
        return vgjax.theory.eigenvalue_rates(J)[0]

    return jax.lax.map(one, keys)


def measure(config: Config) -> dict[str, Any]:
    """Measure every size and gain."""
    tasks = [("leading", N, g) for N in config.sizes for g in config.gains]
    tasks += [("whole", N, g) for N in config.whole_sizes for g in config.whole_gains]
    found = {task: measure_one(*task, config) for task in track(tasks, "Measuring")}
    return {
        "leading": {
            f"N={N}": leading([found["leading", N, g] for g in config.gains])
            | {"log_radius": radii_of_all_gains(N, config)}
            for N in config.sizes
        },
        "whole": {
            f"N={N}": whole([found["whole", N, g] for g in config.whole_gains])
            for N in config.whole_sizes
        },
        "mean_field": mean_field(config),
    }


def measure_one(what: str, N: int, gain: float, config: Config) -> Any:
    """What `vgjax.lyapunov_spectrum` returns, over seeds along the leading axis."""
    if what == "leading":
        seeds, steps, burn_in = config.seeds, config.steps, config.burn_in
        # One vector has no other to stay clear of.
        options = {"k": 1, "qr_every": 10}
    else:
        seeds = config.whole_seeds
        steps, burn_in = config.whole_steps, config.whole_burn_in
        options = {"k": N, "qr_every": 1}
    keys = seeds_of(N, seeds, config)
    options |= {"N": N, "length": burn_in + steps, "burn_in": burn_in}
    return jax.block_until_ready(exponents(keys, jnp.asarray(gain), **options))


def seeds_of(N: int, count: int, config: Config) -> Array:
    """Keys, the same for all gains: those matrices differ only by their scale."""
    return jax.random.split(jax.random.key(config.seed + N), count)


def radii_of_all_gains(N: int, config: Config) -> np.ndarray:
    """log|eigenvalue| of the largest of every J, (gains, seeds) nats per step."""
    at_one = np.asarray(log_radii(seeds_of(N, config.seeds, config), N=N))
    return np.log(config.gains)[:, None] + at_one


def leading(found: list[Any]) -> dict[str, np.ndarray]:
    """Put the largest exponents of all gains together."""
    exponent = np.stack([np.asarray(of.exponents[:, 0]) for of in found])
    return {
        "exponent": exponent,  # (gains, seeds) nats per step
        "mean": exponent.mean(1),  # (gains,)
        "error": exponent.std(1, ddof=1) / np.sqrt(exponent.shape[1]),  # standard
    }


def whole(found: list[Any]) -> dict[str, np.ndarray]:
    """Put the spectra of all gains together, with what follows from them."""
    spectra = jnp.stack([of.exponents for of in found])
    N = spectra.shape[-1]
    per_network = partial(jnp.vectorize, signature="(n)->()")
    return {
        "exponents": np.asarray(spectra),  # (gains, seeds, N) nats per step
        "resolved": np.stack([np.asarray(of.resolved) for of in found]),
        "dimension": np.asarray(  # (gains, seeds) per unit
            per_network(vgjax.lyapunov.kaplan_yorke_dimension)(spectra) / N
        ),
        "entropy": np.asarray(  # (gains, seeds) nats per step and unit
            per_network(vgjax.lyapunov.entropy)(spectra) / N
        ),
    }


def mean_field(config: Config) -> dict[str, np.ndarray]:
    """What is predicted for all sizes at once."""
    fine = np.linspace(min(config.gains), max(config.gains), 141)
    share = shares(400)
    some = np.linspace(1.02, max(config.whole_gains), 40)
    exponents = partial(vgjax.theory.lyapunov_density, share)
    spectra = np.stack([exponents(g) for g in config.whole_gains])
    dimension = partial(of_share, vgjax.lyapunov.kaplan_yorke_dimension)
    return {
        "gains": fine,
        "exponent": vgjax.theory.leading_exponent(fine),  # (141,) nats per step
        "exponent_at_gains": vgjax.theory.leading_exponent(np.array(config.gains)),
        "share": share,  # (400,) i/N
        "spectra": spectra,
        "dimension": np.array([dimension(of) for of in spectra]),
        "entropy": np.array([of_share(vgjax.lyapunov.entropy, of) for of in spectra]),
        "dimension_gains": some,
        "dimension_curve": np.array([dimension(exponents(g)) for g in some]),
    }


def shares(N: int) -> np.ndarray:
    """(N,) where exponent i of N is drawn, and compared."""
    return (np.arange(N) + 0.5) / N


def of_share(summary: Callable, spectrum: np.ndarray) -> float:
    """A dimension or an entropy, per unit."""
    return float(summary(jnp.asarray(spectrum))) / len(spectrum)


def below_mean_field(measured: dict, config: Config, N: int, gain: float) -> float:
    """How far the mean of lambda_1 is below its prediction, nats per step."""
    at = config.gains.index(gain)
    mean = measured["leading"][f"N={N}"]["mean"][at]
    return float(measured["mean_field"]["exponent_at_gains"][at] - mean)


@lab.claim(
    "Where the spectral radius of J is below 0.95, the network dies out and lambda_1 "
    "is log|eigenvalue| of its own J to 0.01 nats per step."
)
def dying(measured):
    off = [
        np.abs(of["exponent"] - of["log_radius"])[of["log_radius"] < np.log(SETTLED)]
        for of in measured["leading"].values()
    ]
    return at_most(np.concatenate(off).max(initial=0), 0.01)


@lab.claim(
    "N = 300: the mean of lambda_1 over seeds is that of mean field within "
    "0.010 at g = 2 and 0.015 at g = 3."
)
def as_by_mean_field(measured, config):
    below = partial(below_mean_field, measured, config, config.sizes[-1])
    bounds = {2.0: 0.010, 3.0: 0.015}
    return {f"g = {g:g}": within(-below(g), -x, x) for g, x in bounds.items()}


@lab.claim(
    "Small networks are late: at g = 1.25 and 1.5 the mean of lambda_1 is below that "
    "of mean field, and further below at N = 100 than at 300."
)
def late(measured, config):
    checks = {}
    for g in (1.25, 1.5):
        below = partial(below_mean_field, measured, config, gain=g)
        small, large = below(config.sizes[0]), below(config.sizes[-1])
        checks[f"g = {g:g}, below"] = at_least(large, 0)
        checks[f"g = {g:g}, by more for the small"] = at_least(small - large, 0)
    return checks


@lab.claim(
    "Whole spectra, N = 200, g >= 2: the upper 90 % of the exponents, averaged "
    "over seeds, are within 0.05 nats per step (r.m.s.) of lambda(x)."
)
def spectra_as_predicted(measured, config):
    N = config.whole_sizes[-1]
    upper, off = shares(N) <= NOT_LOWEST, {}
    for i, g in enumerate(config.whole_gains):
        found = measured["whole"][f"N={N}"]["exponents"][i].mean(0)
        away = (found - vgjax.theory.lyapunov_density(shares(N), g))[upper]
        off[g] = np.sqrt(np.mean(away**2))
    return {f"g = {g:g}": at_most(off[g], 0.05) for g in off if g >= 2}


@lab.claim(
    "g >= 2.5: D/N at N = 100 and at 200 agree within 10 %, and with the prediction."
)
def extensive(measured, config):
    strong = np.array(config.whole_gains) >= 2.5
    found = {N: of["dimension"].mean(1)[strong] for N, of in measured["whole"].items()}
    predicted = measured["mean_field"]["dimension"][strong]
    first, last = (found[f"N={config.whole_sizes[k]}"] for k in (0, -1))
    apart = {"apart": first / last} | {N: of / predicted for N, of in found.items()}
    return {name: at_most(np.abs(x - 1).max(), 0.1) for name, x in apart.items()}


@lab.claim("The dimension is at most 0.3 N everywhere, and the entropy grows with g.")
def bounded(measured):
    every = measured["whole"].values()
    stalls = sum(np.sum(np.diff(of["entropy"].mean(1)) <= 0) for of in every)
    highest = max(of["dimension"].mean(1).max() for of in every)
    return {"D/N": at_most(highest, 0.3), "gains where it does not": at_most(stalls, 0)}


def with_error(values: np.ndarray, digits: int) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


@lab.table(
    "Largest Lyapunov exponent, nats per step",
    *("g", "smallest N", "largest N", "mean field"),
    note="Mean over {seeds} networks of N in {sizes}, ± one standard error of it;\n"
    "{steps} steps after {burn_in}.",
)
def largest(measured, config):
    ends = [measured["leading"][f"N={config.sizes[k]}"]["exponent"] for k in (0, -1)]
    for i, gain in enumerate(config.gains):
        predicted = measured["mean_field"]["exponent_at_gains"][i]
        found = [with_error(exponent[i], 4) for exponent in ends]
        yield [f"{gain:.2f}", *found, f"{predicted:.4f}"]


@lab.table(
    "Whole spectra: Kaplan-Yorke dimension D and Pesin's entropy H, per unit",
    *("network", "D/N", "theory", "H/N", "theory"),
    note="Mean over {whole_seeds} networks, ± one standard error; H in nats per step.\n"
    "{whole_steps} steps after {whole_burn_in}.",
)
def dimensions(measured, config):
    for i, gain in enumerate(config.whole_gains):
        for N, of in measured["whole"].items():
            row = [f"g = {gain:g}, {N}"]
            for what, digits in (("dimension", 3), ("entropy", 4)):
                predicted = measured["mean_field"][what][i]
                row += [with_error(of[what][i], digits), f"{predicted:.{digits}f}"]
            yield row


SMALL = {"color": "#8fc0de", "marker": "o", "linestyle": ""}
LARGE = {"color": "#b2560d", "marker": "s", "linestyle": ""}
PREDICTED = {"color": "black", "linestyle": "--", "linewidth": 1.3}
GAIN, EXPONENT = "gain g", "λ₁ (nats per step)"


def by_size(of: dict[str, Any]):
    """Style, sign, name and results of the smallest and the largest networks."""
    both = zip((SMALL, LARGE), (-1, 1), of.items(), strict=False)
    return [(style, sign, name, found) for style, sign, (name, found) in both]


def draw_bars(ax, x, of: np.ndarray, name: str, style: dict[str, Any]) -> None:
    label = f"{name}, mean ± spread"
    ax.errorbar(x, of.mean(1), of.std(1, ddof=1), capsize=2.5, label=label, **style)


@lab.panel("Where does the largest exponent cross zero?", GAIN, EXPONENT)
def draw_leading(ax, measured, config):
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for style, _, name, of in by_size(measured["leading"]):
        draw_bars(ax, config.gains, of["exponent"], name, style)
    predicted = measured["mean_field"]
    ax.plot(predicted["gains"], predicted["exponent"], label="mean field", **PREDICTED)


@lab.panel("Near the edge: how late is each network?", GAIN, EXPONENT)
def draw_edge(ax, measured, config):
    gains, predicted = np.array(config.gains), measured["mean_field"]
    near, inside = ((g >= 0.9) & (g <= 2) for g in (gains, predicted["gains"]))
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for style, sign, name, of in by_size(measured["leading"]):
        every = of["exponent"][near]
        at = np.broadcast_to(gains[near, None] + 0.012 * sign, every.shape)
        ax.plot(at.ravel(), every.ravel(), markersize=4, alpha=0.6, **style, label=name)
    at = predicted["gains"][inside], predicted["exponent"][inside]
    ax.plot(*at, label="mean field", **PREDICTED)


@lab.panel(
    "Whole spectra of the largest: as predicted?",
    *("i/N, share of the exponents", "λᵢ (nats per step)"),
    legend="lower left",
)
def draw_spectra(ax, measured, config):
    N, predicted = config.whole_sizes[-1], measured["mean_field"]
    shades = plt.get_cmap("viridis")(np.linspace(0.85, 0.1, len(config.whole_gains)))
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for i, gain in enumerate(config.whole_gains):
        found = measured["whole"][f"N={N}"]["exponents"][i].mean(0)
        label = None if i % 2 else f"g = {gain:g}"  # those between are shaded between
        ax.plot(shares(N), found, color=shades[i], linewidth=3, label=label)
        label = None if i else "predicted"
        ax.plot(predicted["share"], predicted["spectra"][i], label=label, **PREDICTED)
    ax.set(xlim=(0, 1), ylim=(-6, 0.9))


@lab.panel("Kaplan-Yorke dimension: extensive?", GAIN, "D/N", legend="lower right")
def draw_dimension(ax, measured, config):
    for style, sign, name, of in by_size(measured["whole"]):
        gains = np.array(config.whole_gains) + 0.02 * sign
        draw_bars(ax, gains, of["dimension"], name, style)
    predicted = measured["mean_field"]
    at = predicted["dimension_gains"], predicted["dimension_curve"]
    ax.plot(*at, label="predicted", **PREDICTED)
    ax.set_ylim(0, None)


if __name__ == "__main__":
    lab.main(measure)
