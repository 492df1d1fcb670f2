"""Linear networks follow their eigenvalues: at once if normal, else in the long run.

Question:   in a linear network s_t = W s_(t-1) + x_t, how close are the rates at which
            the singular values of Phi(t, 0) = W^t grow or die to the rates log|lambda|
            of the eigenvalues?
Prediction: theory.eigenvalue_rates, in nats per step; for the shear the closed form
            a^t (sqrt(1 + tau^2/4) +- tau/2) with tau = t b / a.
Expect:     1. Normal and symmetric W: the least-squares rate of every singular value is
               log|lambda_i| to 1e-10 nats per step.
            2. Gaussian W: log sigma_i / t comes closer to log|lambda_i| as 1/t: ten
               times as many steps bring the root mean square gap down by a factor
               between 5 and 20, in each of two decades.
            3. Gaussian W: it starts far away: sigma_1(W) is at least 1.5 times the
               spectral radius (2 for large N, by the circular law).
            4. The shear [[0.9, 5], [0, 0.9]] has radius 0.9, yet sigma_1(W^200) is 1111
               times 0.9^200; every sigma_1 and sigma_2 on the way is the closed form's
               to 1e-10 nats.
            5. The inputs x_t change no singular value, to 1e-10 nats.
Runs in:    about 30 s on 2 CPU cores.

A rate is a slope over all recorded steps. Slopes of the Gaussian and shear matrices are
shown too; they are expected to differ from log|lambda|.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _results
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from _results import Expectation
from matplotlib.figure import Figure

import vgjax

jax.config.update("jax_enable_x64", True)


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


TOY = Config(size=4, long_steps=2000)

MATRICES = ("normal", "symmetric", "Gaussian", "shear")


def linear(W, state, x):
    """Take a step of a linear network."""
    return W @ state + x, state


def matrices(config: Config) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(config.seed), 3)
    radii = jnp.linspace(config.smallest, 1.0, config.size // 2)
    turns = radii * jnp.exp(1j * jnp.linspace(0.3, 2.8, config.size // 2))
    real = jnp.linspace(config.smallest, 1.0, config.size)
    real = real * (-1.0) ** jnp.arange(config.size)
    return {
        "normal": vgjax.matrices.normal(
            keys[0], jnp.concatenate([turns, turns.conj()])
        ),
        "symmetric": vgjax.matrices.symmetric(keys[1], real),
        "Gaussian": vgjax.matrices.gaussian(keys[2], config.size, gain=config.gain),
        "shear": vgjax.matrices.shear(config.a, config.b),
    }


def measure(config: Config) -> dict[str, Any]:
    """Run every network, and measure its rates beside its eigenvalues."""
    keys = jax.random.split(jax.random.key(config.seed + 1), 2)
    measured = {}
    for name, W in matrices(config).items():
        step = vgjax.steps.from_function(linear, W)
        state = jax.random.normal(keys[0], (len(W),))
        inputs = jax.random.normal(keys[1], (config.steps, len(W)))
        spectrum = vgjax.jacobian_spectrum(step, state, inputs)
        without = vgjax.jacobian_spectrum(step, state, jnp.zeros_like(inputs))
        rates = vgjax.growth_rates(spectrum)
        measured[name] = {
            "matrix": W,
            "steps": spectrum.steps,
            "log_singular_values": spectrum.log_singular_values,  # (steps, N) nats
            "rates": rates.rate,  # (N,) nats per step
            "predicted_rates": vgjax.theory.eigenvalue_rates(W),  # (N,)
            "moved_by_inputs": jnp.max(
                jnp.abs(spectrum.log_singular_values - without.log_singular_values)
            ),
        }
    long = config.long_steps
    W = measured["Gaussian"]["matrix"]
    step = vgjax.steps.from_function(linear, W)
    spectrum = vgjax.jacobian_spectrum(
        step, jnp.zeros(len(W)), jnp.zeros((long, len(W))), every=long // 100
    )
    # Two decades: every step to `steps`, then every hundredth of all of them.
    early, late = measured["Gaussian"]["log_singular_values"], spectrum
    steps = np.concatenate([measured["Gaussian"]["steps"], late.steps])
    values = np.concatenate([early, late.log_singular_values])
    steps, first = np.unique(steps, return_index=True)
    gap = values[first] / steps[:, None] - measured["Gaussian"]["predicted_rates"]
    measured["Gaussian"]["gap_steps"] = steps
    measured["Gaussian"]["gap"] = np.sqrt(np.mean(gap**2, axis=1))  # nats per step
    measured["Gaussian"]["norm_over_radius"] = jnp.exp(
        early[0, 0] - measured["Gaussian"]["predicted_rates"][0]
    )

    shear = measured["shear"]
    t = np.asarray(shear["steps"], float)
    half = t * config.b / config.a / 2
    # arcsinh(x) = log(x + sqrt(1 + x^2)), and minus that for the smaller one.
    growth = np.arcsinh(half)
    closed = t * np.log(config.a) + np.stack([growth, -growth])
    shear["closed_form"] = closed.T
    shear["log_ratio"] = shear["log_singular_values"][:, 0] - t * np.log(config.a)
    shear["ratio"] = np.exp(shear["log_ratio"][-1])
    return measured


def check(measured: dict[str, Any], config: Config) -> list[Expectation]:
    """Compare what was measured with what the docstring expects."""
    off = {
        name: float(np.max(np.abs(of["rates"] - of["predicted_rates"])))
        for name, of in measured.items()
    }
    gaussian, shear = measured["Gaussian"], measured["shear"]
    last = config.long_steps
    at = [last // 100, last // 10, last]
    gaps = [float(gaussian["gap"][gaussian["gap_steps"] == t][0]) for t in at]
    falls = [gaps[0] / gaps[1], gaps[1] / gaps[2]]
    ratio = float(shear["ratio"])
    half = config.steps * config.b / config.a / 2
    expected = half + np.hypot(1, half)
    away = float(np.max(np.abs(shear["log_singular_values"] - shear["closed_form"])))
    moved = max(float(of["moved_by_inputs"]) for of in measured.values())
    norm = float(gaussian["norm_over_radius"])
    return [
        Expectation(
            "1. normal and symmetric W: rates are log|lambda| to 1e-10",
            max(off["normal"], off["symmetric"]) < 1e-10,
            f"furthest off: normal {off['normal']:.1e}, symmetric "
            f"{off['symmetric']:.1e} nats per step",
        ),
        Expectation(
            "2. Gaussian W: the gap falls as 1/t, by 5 to 20 a decade",
            all(5 <= fall <= 20 for fall in falls),
            ", ".join(f"{g:.1e} at t = {t}" for g, t in zip(gaps, at, strict=True))
            + f": by {falls[0]:.1f} and {falls[1]:.1f}",
        ),
        Expectation(
            "3. Gaussian W: sigma_1(W) is at least 1.5 times its radius",
            norm >= 1.5,
            f"{norm:.2f} times",
        ),
        Expectation(
            f"4. shear: sigma_1(W^t) / a^t = {expected:.0f} at t = {config.steps}",
            bool(abs(ratio / expected - 1) < 1e-6 and away < 1e-10),
            f"{ratio:.4f}; furthest from the closed form: {away:.1e} nats",
        ),
        Expectation(
            "5. the inputs change no singular value",
            moved < 1e-10,
            f"furthest: {moved:.1e} nats",
        ),
    ]


def print_tables(measured: dict[str, Any], config: Config) -> None:
    rows = []
    for name, of in measured.items():
        N = len(of["rates"])
        for role, i in (("largest", 0), ("median", (N - 1) // 2), ("smallest", N - 1)):
            if N == 2 and role == "median":
                continue
            slope, predicted = float(of["rates"][i]), float(of["predicted_rates"][i])
            mean = float(of["log_singular_values"][-1, i]) / config.steps
            numbers = (
                f"{predicted:+.6f}",
                f"{slope:+.6f}",
                f"{slope - predicted:+.1e}",
                f"{mean:+.6f}",
                f"{mean - predicted:+.1e}",
            )
            rows.append([f"{name}, {role}", *numbers])
    _results.table(
        "Rates of the singular values of W^t, nats per step",
        ["W", "log|λ|", "slope", "off by", "log σ / t", "off by"],
        rows,
        f"Slope by least squares over t = 1 to {config.steps}; "
        f"log σ / t at t = {config.steps}.",
    )


_SHADES = {
    "normal": "#111111",
    "symmetric": "#6b6b6b",
    "Gaussian": "#2f7fbc",
    "shear": "#b2560d",
}
_MARKERS = {"normal": "o", "symmetric": "x", "Gaussian": "^", "shear": "s"}


def draw(measured: dict[str, Any], config: Config) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for name, of in measured.items():
        colour = _SHADES[name]
        axes[0].plot(
            of["predicted_rates"],
            of["rates"],
            linestyle="",
            color=colour,
            marker=_MARKERS[name],
            markerfacecolor="none",
            label=name,
        )
    low, high = axes[0].get_xlim()
    axes[0].axline(
        (low, low),
        slope=1,
        color="0.6",
        linewidth=1,
        linestyle="--",
        label="measured = predicted",
        zorder=0,
    )
    axes[0].set(
        title="Rates of every singular value",
        xlabel="predicted log|λ| (nats per step)",
        ylabel="measured slope of log σ (nats per step)",
        xlim=(low, high),
    )
    axes[0].legend(frameon=False, loc="upper left")

    gaussian = measured["Gaussian"]
    t, gap = gaussian["gap_steps"], gaussian["gap"]
    axes[1].loglog(t, gap, color=_SHADES["Gaussian"], linewidth=2.2, label="measured")
    axes[1].loglog(
        t,
        gap[-1] * t[-1] / t,
        color="black",
        linestyle="--",
        linewidth=1,
        label="1/t through the last point",
    )
    axes[1].set(
        title="Gaussian W: distance from its eigenvalues",
        xlabel="t (steps)",
        ylabel="r.m.s. of log σᵢ/t − log|λᵢ| (nats per step)",
    )
    axes[1].legend(frameon=False, loc="lower left")

    shear = measured["shear"]
    t = np.asarray(shear["steps"])
    values = np.asarray(shear["log_singular_values"])
    axes[2].axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for i, marker in enumerate(("^", "v")):
        axes[2].plot(
            t,
            values[:, i],
            color=_SHADES["shear"],
            alpha=0.6,
            linewidth=2.4,
            marker=marker,
            markevery=max(1, len(t) // 8),
            label=f"log σ{'₁₂'[i]}",
        )
        axes[2].plot(
            t,
            shear["closed_form"][:, i],
            color="black",
            linewidth=1,
            linestyle="--",
            label="closed form" if i == 0 else None,
        )
    axes[2].plot(
        t, t * np.log(config.a), color="black", linestyle=":", label="t log|λ|"
    )
    axes[2].annotate(
        f"σ₁ = {float(shear['ratio']):.0f} aᵗ at t = {t[-1]}",
        (t[-1], values[-1, 0]),
        xytext=(t[-1], values[:, 0].max()),
        ha="right",
        va="top",
        arrowprops={"arrowstyle": "->", "color": "0.3"},
    )
    axes[2].set(
        title=f"Shear, a = {config.a:g}, b = {config.b:g}: the transient",
        xlabel="t (steps)",
        ylabel="log σ (nats)",
    )
    axes[2].legend(frameon=False, loc="lower left")
    return figure


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    measured = measure(config)
    print_tables(measured, config)
    expectations = check(measured, config)
    figure = draw(measured, config)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(main, default=Config(), toy=TOY, description=__doc__)
