"""Depth is kinder than time: own weights walk at random, shared ones grow or die.

Question:   a cotangent is carried back through 1000 layers at the gain where its norm
            neither grows nor dies on average. What becomes of it if every layer has a
            matrix of its own, and what if all layers share one, as the steps of a
            recurrent network do?
Prediction: own weights: log||.|| is a random walk without drift, and the variance of
            log||.||^2 per layer is psi'(N/2) for linear layers; for ReLU that of
            log chi^2_K with K ~ Bin(N, 1/2) units on. N = 100: 0.020201 and 0.051940
            (Sussillo & Abbott 2014). Shared: log||.|| has the slope log|lambda_1(W)|,
            theory.eigenvalue_rates.
Expect:     1. Own weights, linear and ReLU: the mean over trials of log||.|| after the
               last layer is within 4 standard errors of 0.
            2. Own weights: the variance per layer is the predicted one, within 4
               standard errors of a variance estimate.
            3. Own weights: the changes at neighbouring layers are uncorrelated, within
               4 standard errors, so that variances add and the walk is one.
            4. Shared linear: the slope of log||.|| over the later half of the layers is
               log|lambda_1| to 0.01 nats per layer, in every trial.
            5. Shared linear: the spread between trials after the last layer is at least
               10 times that of own weights.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true, the 5th narrowly: 10.2 times the
            spread of ReLU layers, 16.4 times that of linear ones. With other random
            numbers it was 9.8 and 16.4 times.

The norm is taken out at every layer, and its logarithm kept. A complex leading pair
makes log||.|| beat; a beat of 1 nat up and down tilts a least-squares line over 500
layers by at most 3 * 1 / 500 = 0.006 nats per layer, hence the tolerance of 0.01. The
state is scaled to norm 1 at every layer too: without biases that changes no sign, hence
no mask of a ReLU. Linear and ReLU trials share their random numbers. The layers of one
trial are 80 MB, so trials of own weights run one after another.
"""

import _results
from _results import Expectation

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
from scipy.special import digamma, polygamma
from scipy.stats import binom

import vgjax

jax.config.update("jax_enable_x64", True)


@dataclass(frozen=True)
class Config:
    width: int = 100  # N of every layer, units
    depth: int = 1000  # D, an even number; layers
    trials: int = 40  # networks of each kind
    seed: int = 1  # of the weights, the states and the cotangents


TOY = Config(width=20, depth=200, trials=12)

OWN = {"own linear": "linear", "own ReLU": "relu"}
SHARED = "shared linear"


def measure(config: Config) -> dict[str, Any]:
    """Carry cotangents back through networks of every kind."""
    keys = jax.random.split(jax.random.key(config.seed), config.trials + 1)
    measured = {}
    for name, activation in OWN.items():
        # One network will do: its weights are drawn anew in every trial.
        cell = network("layers", activation, config, keys[0])
        changes = [log_changes(cell, key, config.depth) for key in keys[1:]]
        variance = predicted_variance(config.width, activation)
        measured[name] = own_weights(np.stack(changes), variance)

    def shared(key):
        keys = jax.random.split(key)
        cell = network("shared_layers", "linear", config, keys[0])
        rates = vgjax.theory.eigenvalue_rates(cell.layer.W[...])
        return log_changes(cell, keys[1], config.depth), rates[0]

    found = jax.jit(jax.vmap(shared))(keys[1:])
    measured[SHARED] = shared_weights(*map(np.asarray, found))
    return measured


def network(name: str, activation: str, config: Config, key: Array) -> Any:
    """One of the zoo, at its default gain: that of the walk without drift."""
    return vgjax.cells.build(name, 0, config.width, key=key, activation=activation)


@partial(jax.jit, static_argnames="depth")
def log_changes(cell: Any, key: Array, depth: int) -> Array:
    """(depth,) changes of log||cotangent||, nats, from the last layer to the first."""
    keys = jax.random.split(key, 3)
    layers = cell.random_inputs(keys[0], depth)  # None if they share their weights

    def forward(h, layer):
        new, _ = cell(h, layer)
        return new / jnp.linalg.norm(new), h

    def backward(cotangent, at):
        h, layer = at
        _, pull = jax.vjp(lambda h: cell(h, layer)[0], h)
        (cotangent,) = pull(cotangent)
        norm = jnp.linalg.norm(cotangent)
        return cotangent / norm, jnp.log(norm)

    h = cell.initialize_carry(rngs=keys[1])
    _, states = jax.lax.scan(forward, h, layers, length=depth)
    last = jax.random.normal(keys[2], h.shape)
    last = last / jnp.linalg.norm(last)
    _, changes = jax.lax.scan(backward, last, (states, layers), reverse=True)
    return changes[::-1]


def predicted_variance(N: int, activation: str) -> float:
    """Variance of log||.||^2 per layer with weights of its own, nats^2."""
    if activation == "linear":
        return float(polygamma(1, N / 2))
    K = np.arange(1, N + 1)
    chance = binom.pmf(K, N, 0.5)
    chance /= chance.sum()
    mean = (chance * digamma(K / 2)).sum()
    return float((chance * (polygamma(1, K / 2) + (digamma(K / 2) - mean) ** 2)).sum())


def own_weights(changes: np.ndarray, predicted: float) -> dict[str, Any]:
    """Measure a walk, (trials, depth), beside the predicted variance of its layers."""
    walks = np.cumsum(changes, axis=1)
    centred = 2 * (changes - changes.mean())  # of log||.||^2
    variance = np.mean(centred**2)
    spread_of_square = np.sqrt(np.mean(centred**4) - variance**2)
    neighbours = centred[:, 1:] * centred[:, :-1]
    return {
        "log_norm": walks,  # (trials, depth) nats
        "mean": walks[:, -1].mean(),  # nats
        "mean_error": walks[:, -1].std(ddof=1) / np.sqrt(len(walks)),  # standard
        "variance": variance,  # of log||.||^2, nats^2 per layer
        "variance_error": spread_of_square / np.sqrt(changes.size),
        "predicted_variance": predicted,
        "correlation": neighbours.mean() / variance,  # of neighbouring layers
        "correlation_error": 1 / np.sqrt(neighbours.size),
        "spread": walks[:, -1].std(ddof=1),  # between trials, nats
        "predicted_spread": np.sqrt(changes.shape[1] * predicted) / 2,
    }


def shared_weights(changes: np.ndarray, rates: np.ndarray) -> dict[str, Any]:
    """Measure the slopes of trials, (trials, depth), beside log|lambda_1|."""
    log_norm = np.cumsum(changes, axis=1)
    layers = np.arange(1, log_norm.shape[1] + 1)
    later = layers > len(layers) // 2
    return {
        "log_norm": log_norm,  # (trials, depth) nats
        "slope": np.polyfit(layers[later], log_norm[:, later].T, 1)[0],  # (trials,)
        "predicted_slope": rates,  # (trials,) nats per layer
        "spread": log_norm[:, -1].std(ddof=1),  # between trials, nats
    }


def check(measured: dict[str, Any], config: Config) -> list[Expectation]:
    """Compare what was measured with what the docstring expects."""
    own = {name: measured[name] for name in OWN}
    shared = measured[SHARED]
    off = {
        "mean": {name: of["mean"] / of["mean_error"] for name, of in own.items()},
        "variance": {
            name: (of["variance"] - of["predicted_variance"]) / of["variance_error"]
            for name, of in own.items()
        },
        "correlation": {
            name: of["correlation"] / of["correlation_error"]
            for name, of in own.items()
        },
    }
    furthest = float(np.max(np.abs(shared["slope"] - shared["predicted_slope"])))
    wider = {name: float(shared["spread"] / of["spread"]) for name, of in own.items()}

    def expectation(statement, what):
        within = all(abs(x) <= 4 for x in off[what].values())
        return Expectation(statement, within, listed(off[what], "+.1f") + " std errors")

    return [
        expectation(f"1. own: mean log‖·‖ after {config.depth} layers is 0", "mean"),
        expectation("2. own: variance per layer as predicted", "variance"),
        expectation("3. own: neighbouring layers are uncorrelated", "correlation"),
        Expectation(
            "4. shared: slopes are log|λ₁| to 0.01 nats per layer, in every trial",
            furthest <= 0.01,
            f"furthest off: {furthest:.4f} nats per layer",
        ),
        Expectation(
            "5. shared: at least 10 times the spread of own weights",
            min(wider.values()) >= 10,
            listed(wider, ".1f") + " times",
        ),
    ]


def listed(numbers: dict[str, float], form: str) -> str:
    """Return "own linear +0.3, own ReLU -1.2"."""
    return ", ".join(f"{name} {float(x):{form}}" for name, x in numbers.items())


def print_tables(measured: dict[str, Any], config: Config) -> None:
    rows = []
    for name in OWN:
        of = measured[name]
        mean = f"{of['mean']:+.2f} ± {of['mean_error']:.2f}"
        variance = f"{of['variance']:.6f} ± {of['variance_error']:.6f}"
        predicted = f"{of['predicted_variance']:.6f}"
        correlation = f"{of['correlation']:+.4f} ± {of['correlation_error']:.4f}"
        rows.append([name, mean, variance, predicted, correlation])
    _results.table(
        f"Own weights, N = {config.width}: a walk of {config.depth} layers",
        ["layers", "mean log‖·‖", "variance per layer", "predicted", "correlation"],
        rows,
        f"Mean of log‖·‖ after the last layer, over {config.trials} trials, nats;\n"
        "variance of log‖·‖² per layer, nats²; correlation of neighbouring layers.\n"
        "± is one standard error.",
    )
    print_rates(measured[SHARED], config)
    rows = []
    for name in (*OWN, SHARED):
        of = measured[name]
        predicted = of.get("predicted_spread")
        if predicted is None:
            predicted = config.depth * np.std(of["predicted_slope"], ddof=1)
        rows.append([name, f"{of['spread']:.2f}", f"{predicted:.2f}"])
    _results.table(
        "Spread of log‖·‖ between trials, nats",
        ["layers", "standard deviation", "predicted"],
        rows,
        f"After {config.depth} layers. Predicted:\n"
        "√(D variance)/2 for own weights,\n"
        "D times that of log|λ₁| for shared ones.",
    )


def print_rates(shared: dict[str, Any], config: Config) -> None:
    order = np.argsort(shared["predicted_slope"])
    rows = []
    for role, k in (("least", 0), ("median", len(order) // 2), ("greatest", -1)):
        slope = shared["slope"][order[k]]
        predicted = shared["predicted_slope"][order[k]]
        end = shared["log_norm"][order[k], -1]
        numbers = f"{predicted:+.5f}", f"{slope:+.5f}", f"{slope - predicted:+.1e}"
        rows.append([f"trial of {role} |λ₁|", *numbers, f"{end:+.1f}"])
    _results.table(
        "Shared weights, linear: rates in nats per layer",
        ["trial", "log|λ₁|", "slope", "off by", "log‖·‖ at the end"],
        rows,
        f"Slope over layers {config.depth // 2 + 1} to {config.depth}; "
        "log‖·‖ after the last layer, nats.",
    )


_LINES = {  # colour and width
    "own linear": ("#2f7fbc", 2.2),
    "own ReLU": ("#b2560d", 2.2),
    SHARED: ("#111111", 1.0),
}


def draw(measured: dict[str, Any], config: Config) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    own = measured["own linear"]
    layers = np.arange(1, config.depth + 1)
    sigma = np.sqrt(layers * own["predicted_variance"]) / 2
    _draw_walks(axes[0, 0], layers, own["log_norm"], sigma)
    _draw_lines(axes[0, 1], layers, measured[SHARED], sigma)
    _draw_spreads(axes[1, 0], layers, measured)
    _draw_slopes(axes[1, 1], measured[SHARED])
    return figure


def _draw_walks(
    ax: Axes, layers: np.ndarray, walks: np.ndarray, sigma: np.ndarray
) -> None:
    for k, walk in enumerate(walks):
        label = "trials" if k == 0 else None
        ax.plot(layers, walk, color="#2f7fbc", alpha=0.5, linewidth=0.7, label=label)
    cones = ((1, "--", "√(d ψ′(N/2))/2"), (2, ":", "twice that"))
    for times, style, label in cones:
        ax.plot(layers, times * sigma, f"k{style}", label=f"predicted ± {label}")
        ax.plot(layers, -times * sigma, f"k{style}")
    high = max(2 * sigma[-1], np.abs(walks).max())
    ax.set(
        title="Own weights, linear: a random walk",
        xlabel="d, layers passed backwards",
        ylabel="log‖cotangent‖ (nats)",
        ylim=(-1.1 * high, 1.7 * high),
    )
    ax.legend(frameon=False, loc="upper left")


def _draw_lines(
    ax: Axes, layers: np.ndarray, shared: dict[str, Any], sigma: np.ndarray
) -> None:
    both = zip(shared["log_norm"], shared["predicted_slope"], strict=True)
    for k, (found, rate) in enumerate(both):
        labels = ("trials", "predicted d log|λ₁|") if k == 0 else (None, None)
        ax.plot(layers, found, color="0.6", linewidth=2.2, label=labels[0])
        ax.plot(layers, layers * rate, color="black", linestyle=":", label=labels[1])
    cone = {"color": "#2f7fbc", "alpha": 0.6, "zorder": 3}
    label = "own weights, predicted ± √(d ψ′(N/2))"
    ax.fill_between(layers, -2 * sigma, 2 * sigma, label=label, **cone)
    ax.set(
        title="Shared weights, linear: straight lines",
        xlabel="d, layers passed backwards",
        ylabel="log‖cotangent‖ (nats)",
    )
    ax.legend(frameon=False, loc="upper left")


def _draw_spreads(ax: Axes, layers: np.ndarray, measured: dict[str, Any]) -> None:
    for name, (colour, width) in _LINES.items():
        of = measured[name]
        spread = of["log_norm"].std(axis=0, ddof=1)
        ax.loglog(layers, spread, color=colour, linewidth=width, label=name)
        if name in OWN:
            predicted, style = np.sqrt(layers * of["predicted_variance"]) / 2, "k--"
        else:
            predicted, style = layers * of["predicted_slope"].std(ddof=1), "k:"
        ax.loglog(layers, predicted, style, linewidth=1)
    ax.plot([], [], "k--", linewidth=1, label="predicted √(d variance)/2")
    ax.plot([], [], "k:", linewidth=1, label="predicted d std(log|λ₁|)")
    ax.set(
        title="Spread between trials",
        xlabel="d, layers passed backwards",
        ylabel="standard deviation of log‖cotangent‖ (nats)",
        ylim=(spread[0] / 5, None),
    )
    ax.legend(frameon=False, loc="lower right")


def _draw_slopes(ax: Axes, shared: dict[str, Any]) -> None:
    x, y = shared["predicted_slope"], shared["slope"]
    ax.plot(x, y, "o", color="black", markerfacecolor="none", label="trials")
    style = {"color": "0.6", "linestyle": "--", "linewidth": 1}
    ax.axline((x[0], x[0]), slope=1, zorder=0, label="measured = predicted", **style)
    ax.set(
        title="Shared weights: slopes and eigenvalues",
        xlabel="predicted log|λ₁| (nats per layer)",
        ylabel="slope over the later half (nats per layer)",
    )
    ax.legend(frameon=False, loc="upper left")


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    measured = measure(config)
    print_tables(measured, config)
    expectations = check(measured, config)
    figure = draw(measured, config)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(main, default=Config(), toy=TOY, description=__doc__)
