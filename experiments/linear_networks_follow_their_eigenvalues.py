"""Linear networks follow their eigenvalues: at once if normal, else in the long run.

Question:   in a linear network s_t = W s_(t-1) + x_t, how close are the rates at which
            the singular values of Phi(t, 0) = W^t grow or die to the rates log|lambda|
            of the eigenvalues?
Prediction: theory.eigenvalue_rates, in nats per step; for the shear the closed form
            a^t (sqrt(1 + tau^2/4) +- tau/2) with tau = t b / a.
Runs in:    about 30 s on 2 CPU cores.

A rate is a slope over all recorded steps. Slopes of the Gaussian and shear matrices are
shown too; they are expected to differ from log|lambda|.
"""

from lab import Lab, at_least, at_most, track, within

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vgjax


@dataclass(frozen=True)
class Config:
    size: int = 16  # N of the normal, symmetric and Gaussian matrices, even; units
    steps: int = 200  # recorded, of every matrix; time steps
    long_steps: int = 10_000  # of the Gaussian one, a multiple of 100; time steps
    gain: float = 0.9  # of the Gaussian matrix, its spectral radius for large N
    smallest: float = 0.5  # smallest |eigenvalue| of the normal and symmetric matrices
    a: float = 0.9  # eigenvalue of the shear, twice; dimensionless
    b: float = 5.0  # strength of the shear; dimensionless
    seed: int = 1  # of the matrices, the inputs and the first state


lab = Lab(__file__, __doc__, default=Config(), toy=Config(size=4, long_steps=2000))


def linear(W, state, x):
    """Take a step of a linear network."""
    return W @ state + x, state


def matrices(config: Config) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(config.seed), 3)
    radii = jnp.linspace(config.smallest, 1.0, config.size // 2)
    turns = radii * jnp.exp(1j * jnp.linspace(0.3, 2.8, config.size // 2))
    pairs = jnp.concatenate([turns, turns.conj()])
    real = jnp.linspace(config.smallest, 1.0, config.size)
    real = real * (-1.0) ** jnp.arange(config.size)
    return {
        "normal": vgjax.matrices.normal(keys[0], pairs),
        "symmetric": vgjax.matrices.symmetric(keys[1], real),
        "Gaussian": vgjax.matrices.gaussian(keys[2], config.size, gain=config.gain),
        "shear": vgjax.matrices.shear(config.a, config.b),
    }


def measure(config: Config) -> dict[str, Any]:
    """Run every network, and measure its rates beside its eigenvalues."""
    pairs = track(matrices(config).items(), "Measuring")
    measured = {name: along_inputs(W, config) for name, W in pairs}
    measured["Gaussian"] |= gap_over_two_decades(measured["Gaussian"], config)
    measured["shear"] |= beside_closed_form(measured["shear"], config)
    return measured


def along_inputs(W: jax.Array, config: Config) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(config.seed + 1), 2)
    step = vgjax.steps.from_function(linear, W)
    state = jax.random.normal(keys[0], (len(W),))
    inputs = jax.random.normal(keys[1], (config.steps, len(W)))
    spectrum = vgjax.jacobian_spectrum(step, state, inputs)
    without = vgjax.jacobian_spectrum(step, state, jnp.zeros_like(inputs))
    moved = spectrum.log_singular_values - without.log_singular_values
    return {
        "matrix": W,
        "steps": spectrum.steps,
        "log_singular_values": spectrum.log_singular_values,  # (steps, N) nats
        "rates": vgjax.growth_rates(spectrum).rate,  # (N,) nats per step
        "predicted_rates": vgjax.theory.eigenvalue_rates(W),  # (N,)
        "moved_by_inputs": jnp.max(jnp.abs(moved)),  # nats
    }


def gap_over_two_decades(of: dict[str, Any], config: Config) -> dict[str, Any]:
    """Every step to `steps`, then every hundredth of all `long_steps`."""
    W, predicted = of["matrix"], of["predicted_rates"]
    step = vgjax.steps.from_function(linear, W)
    inputs = jnp.zeros((config.long_steps, len(W)))
    every = config.long_steps // 100
    late = vgjax.jacobian_spectrum(step, inputs[0], inputs, every=every)
    steps = np.concatenate([of["steps"], late.steps])
    values = np.concatenate([of["log_singular_values"], late.log_singular_values])
    steps, first = np.unique(steps, return_index=True)
    gap = values[first] / steps[:, None] - predicted
    return {
        "gap_steps": steps,
        "gap": np.sqrt(np.mean(gap**2, axis=1)),  # nats per step
        "norm_over_radius": np.exp(values[0, 0] - predicted[0]),
    }


def beside_closed_form(of: dict[str, Any], config: Config) -> dict[str, Any]:
    t = np.asarray(of["steps"], float)
    # arcsinh(x) = log(x + sqrt(1 + x^2)), and minus that for the smaller one.
    growth = np.arcsinh(t * config.b / config.a / 2)
    log_ratio = of["log_singular_values"][:, 0] - t * np.log(config.a)
    return {
        "closed_form": (t * np.log(config.a) + np.stack([growth, -growth])).T,
        "log_ratio": log_ratio,
        "ratio": np.exp(log_ratio[-1]),
        "predicted_ratio": np.exp(growth[-1]),
    }


def furthest(of: dict[str, Any], what: str, expected: str) -> float:
    return float(np.max(np.abs(of[what] - of[expected])))


@lab.claim("Normal, symmetric W: the slope of log sigma_i is log|lambda_i| to 1e-10.")
def slopes_are_rates(measured):
    both = {name: measured[name] for name in ("normal", "symmetric")}
    away = {k: furthest(of, "rates", "predicted_rates") for k, of in both.items()}
    return {name: at_most(off, 1e-10) for name, off in away.items()}


@lab.claim(
    "Gaussian W: the r.m.s. gap of log sigma_i / t to log|lambda_i| falls as 1/t: by 5 "
    "to 20 in each of two decades of t."
)
def gap_falls(measured, config):
    of, last = measured["Gaussian"], config.long_steps
    gaps = [of["gap"][of["gap_steps"] == last // n][0] for n in (100, 10, 1)]
    falls = {"first decade": gaps[0] / gaps[1], "second": gaps[1] / gaps[2]}
    return {name: within(fall, 5, 20) for name, fall in falls.items()}


@lab.claim("Gaussian W: sigma_1(W) is at least 1.5 times the radius (2 for large N).")
def starts_far_away(measured):
    return at_least(measured["Gaussian"]["norm_over_radius"], 1.5)


@lab.claim(
    "The shear [[0.9, 5], [0, 0.9]] has radius 0.9, yet sigma_1(W^200) is 1111 times "
    "0.9^200; every sigma on the way is the closed form's to 1e-10 nats."
)
def shear_outgrows(measured):
    of = measured["shear"]
    return {
        "ratio / 1111": at_most(abs(of["ratio"] / of["predicted_ratio"] - 1), 1e-6),
        "off": at_most(furthest(of, "log_singular_values", "closed_form"), 1e-10),
    }


@lab.claim("The inputs x_t change no singular value, to 1e-10 nats.")
def inputs_change_nothing(measured):
    return at_most(max(of["moved_by_inputs"] for of in measured.values()), 1e-10)


@lab.table(
    "Rates of the singular values of W^t, nats per step",
    *("W", "log|λ|", "slope", "off by", "log σ / t", "off by"),
    note="Slope by least squares over t = 1 to {steps}; log σ / t at t = {steps}.",
)
def rates(measured, config):
    for name, of in measured.items():
        N = len(of["rates"])
        for i in sorted({0, (N - 1) // 2, N - 1}):
            predicted = float(of["predicted_rates"][i])
            slope = float(of["rates"][i])
            mean = float(of["log_singular_values"][-1, i]) / config.steps
            off = [f"{slope - predicted:+.1e}", f"{mean - predicted:+.1e}"]
            shown = f"{predicted:+.6f}", f"{slope:+.6f}", off[0], f"{mean:+.6f}", off[1]
            yield [f"{name}, {i + 1} of {N}", *shown]


STYLES = {  # colour and marker
    "normal": ("#111111", "o"),
    "symmetric": ("#6b6b6b", "x"),
    "Gaussian": ("#2f7fbc", "^"),
    "shear": ("#b2560d", "s"),
}
PREDICTED = {"color": "black", "linestyle": "--", "linewidth": 1}


@lab.panel(
    "Which singular values grow as eigenvalues?",
    *("predicted log|λ| (nats per step)", "slope of log σ (nats per step)"),
)
def draw_rates(ax, measured):
    for name, of in measured.items():
        colour, marker = STYLES[name]
        style = {"color": colour, "marker": marker, "markerfacecolor": "none"}
        ax.plot(of["predicted_rates"], of["rates"], linestyle="", label=name, **style)
    ax.axline((0, 0), slope=1, label="measured = predicted", zorder=0, **PREDICTED)


@lab.panel(
    "Gaussian W: how fast do its rates come closer?",
    *("t (steps)", "r.m.s. of log σᵢ/t − log|λᵢ| (nats per step)"),
)
def draw_gap(ax, measured):
    t, gap = measured["Gaussian"]["gap_steps"], measured["Gaussian"]["gap"]
    style = {"color": STYLES["Gaussian"][0], "linewidth": 2.2}
    ax.loglog(t, gap, label="measured", **style)
    ax.loglog(t, gap[-1] * t[-1] / t, label="1/t through the last point", **PREDICTED)


@lab.panel(
    "Shear, a = {a:g}, b = {b:g}: for how long does it grow?",
    *("t (steps)", "log σ (nats)"),
    legend="lower left",
)
def draw_shear(ax, measured, config):
    of, style = measured["shear"], {"color": STYLES["shear"][0], "alpha": 0.6}
    t, values = np.asarray(of["steps"]), np.asarray(of["log_singular_values"])
    style |= {"linewidth": 2.4, "markevery": max(1, len(t) // 8)}
    for i, marker in enumerate("^v"):
        ax.plot(t, values[:, i], marker=marker, label=f"log σ{'₁₂'[i]}", **style)
        label = "closed form" if i == 0 else None
        ax.plot(t, of["closed_form"][:, i], label=label, **PREDICTED)
    ax.plot(t, t * np.log(config.a), "k:", label="t log|λ|")
    note = f"σ₁ = {float(of['ratio']):.0f} aᵗ at t = {t[-1]}"
    place = {"xytext": (t[-1], values[:, 0].max()), "ha": "right", "va": "top"}
    arrow = {"arrowstyle": "->", "color": "0.3"}
    ax.annotate(note, (t[-1], values[-1, 0]), arrowprops=arrow, **place)


if __name__ == "__main__":
    lab.main(measure)
