"""Random networks turn chaotic at gain 1, late and gently where they are small.

Question:   the network h <- J tanh(h), J_ij ~ N(0, g^2/N), dies out at small gain g and
            is chaotic at large. Where does the largest Lyapunov exponent cross zero,
            what are all the others, and of what dimension is the attractor?
Prediction: lambda_1 = log(chi_1)/2, theory.leading_exponent: log g up to g = 1. The
            whole spectrum, derived below: at the share x = i/N of the exponents

                lambda(x) = log(g^2 x / s)/2,  with E[s d^2 / (1 + s d^2)] = x,

            d = tanh'(sqrt(q*) z) and z ~ N(0, 1). Its Kaplan-Yorke dimension and
            entropy are proportional to N. The dimension peaks at 0.288 N near g = 2.9.
Expect:     1. Where the spectral radius of J is below 0.95, the network dies out and
               lambda_1 is log|eigenvalue| of its own J to 0.01 nats per step.
            2. N = 300: the mean of lambda_1 over seeds is that of mean field within
               0.010 at g = 2 and 0.015 at g = 3.
            3. Small networks are late: at g = 1.25 and 1.5 the mean of lambda_1 is
               below that of mean field, and further below at N = 100 than at 300.
            4. Whole spectra, N = 200, g >= 2: the upper 90 % of the exponents, averaged
               over seeds, are within 0.05 nats per step (r.m.s.) of lambda(x).
            5. g >= 2.5: D/N at N = 100 and at 200 agree within 10 %, and with the
               prediction.
            6. Nowhere does the dimension exceed 0.3 N, while the entropy grows with
               every gain.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true but the 2nd: at N = 300, g = 2
            lambda_1 is 0.142 with a standard error of 0.004, 0.012 below mean field; at
            g = 3 it is 0.301, 0.009 below. Above g = 1 it is below mean field at every
            gain, at g >= 3 by 3/N to 4/N. The whole spectra follow lambda(x) to 0.021
            nats (r.m.s., upper 90 %) at N = 200.

Where lambda(x) comes from: in mean field, activities at different times are independent
(their correlation has the fixed point 0), and so are then the Jacobians J diag(d_t) in
all that counts. Exponents of products of independent isotropic matrices A are those
of -log S(-x)/2, with S the S-transform of A A^T in free probability; it multiplies,
1/(g^2 (1 + y)) for J and (1 - x) s / x at y = -x for diag(d^2). For tanh' = 1 that is
log(g^2 (1 - x))/2, the exponents of Newman, and the circular law of the eigenvalues of
one J; at x = 0 it is log(chi_1)/2. Near the edge a finite network is not typical:
it may have settled at a fixed point (lambda_1 below 0) or on a cycle (at 0).
"""

import _results
from _results import Expectation

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import expit

import vgjax

jax.config.update("jax_enable_x64", True)

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
        step = vgjax.cells.from_function(network, J)
        return vgjax.lyapunov_spectrum(step, h, **options)

    return jax.vmap(one)(keys)


@partial(jax.jit, static_argnames="N")
def log_radii(keys: Array, *, N: int) -> Array:
    """log|eigenvalue| of the largest of each J at gain 1, nats per step."""

    def one(key):
        J = vgjax.matrices.gaussian(jax.random.split(key)[0], N)
        return vgjax.theory.eigenvalue_rates(J)[0]

    return jax.lax.map(one, keys)


def measure(config: Config, report: Callable = lambda tasks: tasks) -> dict[str, Any]:
    """Measure every size and gain; ``report(tasks)`` passes them on, one at a time."""
    tasks = [("leading", N, g) for N in config.sizes for g in config.gains]
    tasks += [("whole", N, g) for N in config.whole_sizes for g in config.whole_gains]
    found = {task: measure_one(*task, config) for task in report(tasks)}
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
    share = (np.arange(400) + 0.5) / 400
    some = np.linspace(1.02, max(config.whole_gains), 40)
    spectra = {g: predicted_spectrum(g, share) for g in (*config.whole_gains, *some)}
    dimension = {
        g: of_share(vgjax.lyapunov.kaplan_yorke_dimension, spectra[g]) for g in spectra
    }
    return {
        "gains": fine,
        "exponent": vgjax.theory.leading_exponent(fine),  # (141,) nats per step
        "exponent_at_gains": vgjax.theory.leading_exponent(np.array(config.gains)),
        "share": share,  # (400,) i/N
        "spectra": np.stack([spectra[g] for g in config.whole_gains]),
        "dimension": np.array([dimension[g] for g in config.whole_gains]),
        "entropy": np.array(
            [of_share(vgjax.lyapunov.entropy, spectra[g]) for g in config.whole_gains]
        ),
        "dimension_gains": some,
        "dimension_curve": np.array([dimension[g] for g in some]),
    }


def of_share(summary: Callable, spectrum: np.ndarray) -> float:
    """A dimension or an entropy, per unit."""
    return float(summary(jnp.asarray(spectrum))) / len(spectrum)


def predicted_spectrum(gain: float, share: np.ndarray) -> np.ndarray:
    """lambda(x) at shares x of the exponents, nats per step, for N to infinity."""
    q = vgjax.theory.fixed_point("tanh", weight_gain=gain)
    # The trapezoidal rule is exact to rounding for what is smooth and dies out.
    z = np.linspace(-9, 9, 2001)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    h = np.sqrt(q) * np.abs(z)
    log_slope = 2 * (np.log(2) - h - np.log1p(np.exp(-2 * h)))  # log tanh'(h)

    def surplus(log_s, x):
        return weight @ expit(log_s + 2 * log_slope) - x

    # Wide enough for shares from 1e-13 to 0.999.
    high = 8 - 4 * log_slope.min()
    log_s = np.array([brentq(surplus, -30, high, args=(x,)) for x in share])
    return (2 * np.log(gain) + np.log(share) - log_s) / 2


def check(measured: dict[str, Any], config: Config) -> list[Expectation]:
    """Compare what was measured with what the docstring expects."""
    return [
        _check_dying(measured),
        _check_mean_field(measured, config),
        _check_late(measured, config),
        _check_spectra(measured, config),
        _check_extensive(measured, config),
        _check_bounded(measured, config),
    ]


def _check_dying(measured: dict[str, Any]) -> Expectation:
    off, count = 0.0, 0
    for of in measured["leading"].values():
        dying = of["log_radius"] < np.log(SETTLED)
        away = np.abs(of["exponent"] - of["log_radius"])[dying]
        off, count = max(off, away.max(initial=0)), count + away.size
    return Expectation(
        f"1. radius of J below {SETTLED:g}: λ₁ is log|eigenvalue| to 0.01",
        bool(off <= 0.01),
        f"furthest off: {off:.4f} nats per step, of {count} networks",
    )


def _check_mean_field(measured: dict[str, Any], config: Config) -> Expectation:
    N = config.sizes[-1]
    off = {g: below_mean_field(measured, config, N, g) * -1 for g in (2.0, 3.0)}
    return Expectation(
        f"2. N = {N}: λ₁ is that of mean field within 0.010 (g = 2), 0.015 (g = 3)",
        abs(off[2.0]) <= 0.010 and abs(off[3.0]) <= 0.015,
        f"off by {off[2.0]:+.4f} and {off[3.0]:+.4f} nats per step",
    )


def _check_late(measured: dict[str, Any], config: Config) -> Expectation:
    small, large = config.sizes[0], config.sizes[-1]
    below = {
        g: [below_mean_field(measured, config, N, g) for N in (small, large)]
        for g in (1.25, 1.5)
    }
    return Expectation(
        f"3. g = 1.25, 1.5: λ₁ below mean field, further at N = {small} than {large}",
        all(of[0] > of[1] > 0 for of in below.values()),
        "; ".join(
            f"g = {g:g}: below by {of[0]:.4f} and {of[1]:.4f}"
            for g, of in below.items()
        )
        + " nats per step",
    )


def below_mean_field(
    measured: dict[str, Any], config: Config, N: int, gain: float
) -> float:
    """How far the mean of lambda_1 is below its prediction, nats per step."""
    at = config.gains.index(gain)
    mean = measured["leading"][f"N={N}"]["mean"][at]
    return float(measured["mean_field"]["exponent_at_gains"][at] - mean)


def _check_spectra(measured: dict[str, Any], config: Config) -> Expectation:
    N = config.whole_sizes[-1]
    off = {}
    for i, gain in enumerate(config.whole_gains):
        if gain >= 2:
            found = measured["whole"][f"N={N}"]["exponents"][i].mean(0)
            share = shares(N)
            away = (found - predicted_spectrum(gain, share))[share <= NOT_LOWEST]
            off[gain] = float(np.sqrt(np.mean(away**2)))
    return Expectation(
        f"4. N = {N}, g >= 2: the upper 90 % of the exponents as predicted to 0.05",
        max(off.values()) <= 0.05,
        "r.m.s. off: "
        + ", ".join(f"{x:.3f} (g = {g:g})" for g, x in off.items())
        + " nats per step",
    )


def shares(N: int) -> np.ndarray:
    """(N,) where exponent i of N is drawn, and compared."""
    return (np.arange(N) + 0.5) / N


def _check_extensive(measured: dict[str, Any], config: Config) -> Expectation:
    strong = np.array(config.whole_gains) >= 2.5
    found = {
        name: of["dimension"].mean(1)[strong] for name, of in measured["whole"].items()
    }
    predicted = measured["mean_field"]["dimension"][strong]
    first, last = (
        found[f"N={config.whole_sizes[0]}"],
        found[f"N={config.whole_sizes[-1]}"],
    )
    apart = float(np.max(np.abs(first / last - 1)))
    off = {
        name: float(np.max(np.abs(of / predicted - 1))) for name, of in found.items()
    }
    return Expectation(
        "5. g >= 2.5: D/N is the same for both N within 10 %, and as predicted",
        max(apart, *off.values()) <= 0.1,
        f"{100 * apart:.1f} % apart; furthest from the prediction: "
        + ", ".join(f"{100 * x:.1f} % ({name})" for name, x in off.items()),
    )


def _check_bounded(measured: dict[str, Any], _: Config) -> Expectation:
    every = measured["whole"].values()
    highest = max(float(of["dimension"].mean(1).max()) for of in every)
    growing = all(np.all(np.diff(of["entropy"].mean(1)) > 0) for of in every)
    predicted = measured["mean_field"]
    gains, curve = predicted["dimension_gains"], predicted["dimension_curve"]
    return Expectation(
        "6. the dimension is at most 0.3 N everywhere, and the entropy grows with g",
        bool(highest <= 0.3 and growing),
        f"highest: {highest:.3f} N, predicted {curve.max():.3f} N at "
        f"g = {gains[curve.argmax()]:.1f}; the entropy grows "
        + ("at every gain" if growing else "not everywhere"),
    )


def print_tables(measured: dict[str, Any], config: Config) -> None:
    rows = []
    for i, gain in enumerate(config.gains):
        found = [
            f"{of['mean'][i]:+.4f} ± {of['error'][i]:.4f}"
            for of in measured["leading"].values()
        ]
        predicted = f"{measured['mean_field']['exponent_at_gains'][i]:+.4f}"
        rows.append([f"{gain:.2f}", *found, predicted])
    _results.table(
        "Largest Lyapunov exponent, nats per step",
        ["g", *(f"N = {N}" for N in config.sizes), "mean field"],
        rows,
        f"Mean over {config.seeds} networks, ± one standard error of it;\n"
        f"{config.steps} steps after {config.burn_in}.",
    )
    rows = []
    for i, gain in enumerate(config.whole_gains):
        row = [f"{gain:.2f}"]
        for what, digits in (("dimension", 3), ("entropy", 4)):
            for of in measured["whole"].values():
                row.append(_with_error(of[what][i], digits))
            row.append(f"{measured['mean_field'][what][i]:.{digits}f}")
        rows.append(row)
    sizes = [f"N = {N}" for N in config.whole_sizes]
    _results.table(
        "Whole spectra: Kaplan-Yorke dimension D and Pesin's entropy H, per unit",
        [
            "g",
            *(f"D/N, {N}" for N in sizes),
            "theory",
            *(f"H/N, {N}" for N in sizes),
            "theory",
        ],
        rows,
        f"Mean over {config.whole_seeds} networks, ± one standard error; H in nats per "
        f"step. {config.whole_steps} steps after {config.whole_burn_in}.",
    )


def _with_error(values: np.ndarray, digits: int) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


_COLOURS = ("#8fc0de", "#b2560d")  # of small and of large networks
_MARKERS = ("o", "s")
_PREDICTED = {"color": "black", "linestyle": "--", "linewidth": 1.3}


def draw(measured: dict[str, Any], config: Config) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    _draw_leading(axes[0, 0], measured, config)
    _draw_edge(axes[0, 1], measured, config)
    _draw_spectra(axes[1, 0], measured, config)
    _draw_dimension(axes[1, 1], measured, config)
    return figure


def _draw_leading(ax: Axes, measured: dict[str, Any], config: Config) -> None:
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for colour, marker, (name, of) in _styled(measured["leading"]):
        ax.errorbar(
            config.gains,
            of["mean"],
            of["exponent"].std(1, ddof=1),
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="",
            capsize=2.5,
            label=f"{name.replace('=', ' = ')}, mean ± spread of networks",
        )
    predicted = measured["mean_field"]
    label = "mean field, log(χ₁)/2"
    ax.plot(predicted["gains"], predicted["exponent"], label=label, **_PREDICTED)
    ax.set(
        title="The largest exponent crosses zero at the edge of chaos",
        xlabel="gain g",
        ylabel="λ₁ (nats per step)",
    )
    ax.legend(frameon=False, loc="lower right")


def _draw_edge(ax: Axes, measured: dict[str, Any], config: Config) -> None:
    """Draw every network near gain 1."""
    gains = np.array(config.gains)
    near = (gains >= 0.9) & (gains <= 2)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    both = zip((-0.012, 0.012), _styled(measured["leading"]), strict=False)
    for aside, (colour, marker, (name, of)) in both:
        each = np.broadcast_to(gains[near, None] + aside, of["exponent"][near].shape)
        style = {"color": colour, "marker": marker, "linestyle": "", "markersize": 4}
        ax.plot(each.ravel(), of["exponent"][near].ravel(), alpha=0.6, **style)
        ax.plot([], [], label=f"networks of {name.replace('=', ' = ')}", **style)
    predicted = measured["mean_field"]
    inside = (predicted["gains"] >= 0.9) & (predicted["gains"] <= 2)
    at = predicted["gains"][inside], predicted["exponent"][inside]
    ax.plot(*at, label="mean field", **_PREDICTED)
    ax.set(
        title="Near the edge: every network",
        xlabel="gain g",
        ylabel="λ₁ (nats per step)",
    )
    ax.legend(frameon=False, loc="upper left")


def _draw_spectra(ax: Axes, measured: dict[str, Any], config: Config) -> None:
    N = config.whole_sizes[-1]
    shades = plt.get_cmap("viridis")(np.linspace(0.85, 0.1, len(config.whole_gains)))
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    share = measured["mean_field"]["share"]
    for i, gain in enumerate(config.whole_gains):
        found = measured["whole"][f"N={N}"]["exponents"][i].mean(0)
        ax.plot(shares(N), found, color=shades[i], linewidth=3, label=f"g = {gain:g}")
        ax.plot(share, measured["mean_field"]["spectra"][i], **_PREDICTED)
    ax.plot([], [], label="predicted", **_PREDICTED)
    ax.set(
        title=f"Whole spectra, N = {N}",
        xlabel="i/N, share of the exponents",
        ylabel="λᵢ (nats per step)",
        xlim=(0, 1),
        ylim=(-6, 0.9),
    )
    ax.legend(frameon=False, loc="lower left")


def _draw_dimension(ax: Axes, measured: dict[str, Any], config: Config) -> None:
    both = zip((-0.02, 0.02), _styled(measured["whole"]), strict=False)
    for aside, (colour, marker, (name, of)) in both:
        ax.errorbar(
            np.array(config.whole_gains) + aside,
            of["dimension"].mean(1),
            of["dimension"].std(1, ddof=1),
            color=colour,
            marker=marker,
            markersize=6,
            linestyle="",
            capsize=2.5,
            label=f"{name.replace('=', ' = ')}, mean ± spread of networks",
        )
    predicted = measured["mean_field"]
    at = predicted["dimension_gains"], predicted["dimension_curve"]
    ax.plot(*at, label="predicted", **_PREDICTED)
    ax.set(
        title="Kaplan-Yorke dimension of the attractor",
        xlabel="gain g",
        ylabel="D/N",
        ylim=(0, None),
    )
    ax.legend(frameon=False, loc="lower right")


def _styled(of: dict[str, Any]):
    return zip(_COLOURS, _MARKERS, of.items(), strict=False)


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    report = partial(_results.track, doing="Measuring")
    measured = measure(config, report)
    print_tables(measured, config)
    expectations = check(measured, config)
    figure = draw(measured, config)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(main, default=Config(), toy=TOY, description=__doc__)
