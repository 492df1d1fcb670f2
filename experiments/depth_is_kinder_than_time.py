"""Depth is kinder than time: own weights walk at random, shared ones grow or die.

Question:   a cotangent is carried back through 1000 layers at the gain where its norm
            neither grows nor dies on average. What becomes of it if every layer has a
            matrix of its own, and what if all layers share one, as the steps of a
            recurrent network do?
Prediction: own weights: log||.|| is a random walk without drift; the variance of
            log||.||^2 per layer is theory.random_walk_variance, for N = 100: 0.020201
            (linear) and 0.051940 (ReLU). Shared: log||.|| has the slope
            log|lambda_1(W)|, theory.eigenvalue_rates.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true, the 5th narrowly: 10.2 times the
            spread of ReLU layers, 16.4 times that of linear ones. With other random
            numbers it was 9.8 and 16.4 times.

A complex leading pair makes log||.|| beat; a beat of 1 nat up and down tilts a
least-squares line over 500 layers by at most 3 * 1 / 500 = 0.006 nats per layer, hence
the tolerance of 0.01. Linear and ReLU trials share their random numbers. The layers of
one trial are 80 MB, so trials of own weights run one after another.
"""

from lab import Lab, at_least, at_most, track, within

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import vgjax


@dataclass(frozen=True)
class Config:
    width: int = 100  # N of every layer, units
    depth: int = 1000  # D, an even number; layers
    trials: int = 40  # networks of each kind
    seed: int = 1  # of the weights, the states and the cotangents


TOY = Config(width=20, depth=200, trials=12)
lab = Lab(__file__, __doc__, default=Config(), toy=TOY, columns=2)

OWN = {"own linear": "linear", "own ReLU": "relu"}
SHARED = "shared linear"


def measure(config: Config) -> dict[str, Any]:
    """Carry cotangents back through networks of every kind."""
    keys = jax.random.split(jax.random.key(config.seed), config.trials + 1)
    measured = {}
    for name, activation in OWN.items():
        # One network will do: its weights are drawn anew in every trial.
        cell = network("layers", activation, config, keys[0])
        trials = track(keys[1:], name)
        changes = [log_changes(cell, key, config.depth) for key in trials]
        variance = vgjax.theory.random_walk_variance(config.width, activation)
        measured[name] = own_weights(np.stack(changes), variance)

    def shared(key):
        keys = jax.random.split(key)
        cell = network("shared_layers", "linear", config, keys[0])
        rates = vgjax.theory.eigenvalue_rates(cell.layer.W[...])
        return log_changes(cell, keys[1], config.depth), rates[0]

    changes, rates = jax.jit(jax.vmap(shared))(keys[1:])
    measured[SHARED] = shared_weights(np.asarray(changes), np.asarray(rates))
    return measured


def network(name: str, activation: str, config: Config, key: Array) -> Any:
    """One of the zoo, at its default gain: that of the walk without drift."""
    return vgjax.cells.build(name, 0, config.width, key=key, activation=activation)


@partial(jax.jit, static_argnames="depth")
def log_changes(cell: Any, key: Array, depth: int) -> Array:
    """(depth,) changes of log||cotangent||, nats, from the last layer to the first."""
    keys = jax.random.split(key, 3)
    layers = cell.random_inputs(keys[0], depth)  # None if they share their weights
    h = cell.initialize_carry(rngs=keys[1])
    last = jax.random.normal(keys[2], h.shape)
    read = jnp.zeros((depth + 1, h.size)).at[-1].set(last)
    log_norm = vgjax.gradients.log_cotangents(cell, h, layers, read, length=depth)
    return jnp.diff(log_norm)


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
        "predicted_spread": len(layers) * rates.std(ddof=1),
    }


def standard_errors(measured: dict[str, Any], what: str, predicted: str = "") -> dict:
    """Check that a number is within 4 of them of its prediction, or of 0."""
    own = {name: measured[name] for name in OWN}
    off = {name: of[what] - of.get(predicted, 0) for name, of in own.items()}
    return {k: within(off[k] / of[f"{what}_error"], -4, 4) for k, of in own.items()}


@lab.claim("Own: the mean log||.|| after the last layer is 0, to 4 standard errors.")
def no_drift(measured):
    return standard_errors(measured, "mean")


@lab.claim("Own: the variance per layer is the predicted one, to 4 standard errors.")
def variance_as_predicted(measured):
    return standard_errors(measured, "variance", "predicted_variance")


@lab.claim(
    "Own: changes at neighbouring layers are uncorrelated, to 4 standard errors, so "
    "that variances add and the walk is one."
)
def uncorrelated(measured):
    return standard_errors(measured, "correlation")


@lab.claim(
    "Shared: the slope of log||.|| over the later half of the layers is log|lambda_1| "
    "to 0.01 nats per layer, in every trial."
)
def slopes_are_rates(measured):
    off = measured[SHARED]["slope"] - measured[SHARED]["predicted_slope"]
    return at_most(np.abs(off).max(), 0.01)


@lab.claim(
    "Shared: the spread between trials is at least 10 times that of own weights."
)
def wider(measured):
    spread = measured[SHARED]["spread"]
    return {name: at_least(spread / measured[name]["spread"], 10) for name in OWN}


@lab.table(
    "log‖·‖ after {depth} layers of width {width}, over {trials} trials, nats",
    *("layers", "mean", "variance per layer", "predicted", "correlation"),
    *("spread", "predicted"),
    note="Variance of log‖·‖² per layer, nats², and correlation of neighbouring layers;"
    "\n± is one standard error. Spread between trials, predicted as √(D variance)/2 for"
    "\nown weights, D times the spread of log|λ₁| for shared ones.",
)
def walks(measured):
    for name, of in measured.items():
        row = ["–"] * 4
        if name in OWN:
            row = [
                f"{of['mean']:+.2f} ± {of['mean_error']:.2f}",
                f"{of['variance']:.6f} ± {of['variance_error']:.6f}",
                f"{of['predicted_variance']:.6f}",
                f"{of['correlation']:+.4f} ± {of['correlation_error']:.4f}",
            ]
        yield [name, *row, f"{of['spread']:.2f}", f"{of['predicted_spread']:.2f}"]


LAYERS, LOG_NORM = "d, layers passed backwards", "log‖cotangent‖ (nats)"
BLUE = "#2f7fbc"


def cone(own: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Layers, and the predicted standard deviation of log||.|| after each."""
    layers = np.arange(1, own["log_norm"].shape[1] + 1)
    return layers, np.sqrt(layers * own["predicted_variance"]) / 2


@lab.panel("Own weights: a walk at random?", LAYERS, LOG_NORM, legend="upper left")
def draw_walks(ax, measured):
    layers, sigma = cone(own := measured["own linear"])
    style = {"color": BLUE, "alpha": 0.5, "linewidth": 0.7}
    for k, walk in enumerate(own["log_norm"]):
        ax.plot(layers, walk, label=None if k else "linear layers, trials", **style)
    for times, line in ((1, "k--"), (2, "k:")):
        ax.plot(layers, times * sigma, line, label=f"predicted ± {times} std")
        ax.plot(layers, -times * sigma, line)
    high = max(2 * sigma[-1], np.abs(own["log_norm"]).max())
    ax.set_ylim(-1.1 * high, 1.7 * high)


@lab.panel("Shared weights: straight lines?", LAYERS, LOG_NORM, legend="upper left")
def draw_lines(ax, measured):
    layers, sigma = cone(measured["own linear"])
    of = measured[SHARED]
    both = zip(of["log_norm"], of["predicted_slope"], strict=True)
    for k, (found, rate) in enumerate(both):
        labels = (None, None) if k else ("linear, trials", "predicted d log|λ₁|")
        ax.plot(layers, found, color="0.6", linewidth=2.2, label=labels[0])
        ax.plot(layers, layers * rate, color="black", linestyle=":", label=labels[1])
    style = {"color": BLUE, "alpha": 0.6, "zorder": 3}
    label = "own weights, predicted ± 2 std"
    ax.fill_between(layers, -2 * sigma, 2 * sigma, label=label, **style)


@lab.panel("How far apart are trials?", LAYERS, "spread of log‖cotangent‖ (nats)")
def draw_spreads(ax, measured):
    colours = {"own linear": BLUE, "own ReLU": "#b2560d", SHARED: "#111111"}
    for name, colour in colours.items():
        of = measured[name]
        spread = of["log_norm"].std(axis=0, ddof=1)
        layers = np.arange(1, len(spread) + 1)
        ax.loglog(layers, spread, color=colour, linewidth=2.2, label=name)
        power, line = (0.5, "k--") if name in OWN else (1, "k:")
        predicted = of["predicted_spread"] * (layers / len(layers)) ** power
        label = {"own linear": "predicted, ∝ √d", SHARED: "predicted, ∝ d"}.get(name)
        ax.loglog(layers, predicted, line, linewidth=1, label=label)


@lab.panel(
    "Shared weights: slopes of eigenvalues?",
    *("predicted log|λ₁| (nats per layer)", "slope (nats per layer)"),
)
def draw_slopes(ax, measured):
    x, y = measured[SHARED]["predicted_slope"], measured[SHARED]["slope"]
    ax.plot(x, y, "o", color="black", markerfacecolor="none", label="trials")
    style = {"color": "0.6", "linestyle": "--", "linewidth": 1, "zorder": 0}
    ax.axline((x[0], x[0]), slope=1, label="measured = predicted", **style)


if __name__ == "__main__":
    lab.main(measure)
