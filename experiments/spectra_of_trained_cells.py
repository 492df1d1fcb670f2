"""How the gradients of trained networks vanish: every singular value, on real input.

Question:   a tanh network, a GRU and an LSTM learn to read handwritten digits pixel by
            pixel, 64 steps an image. How does every singular value of the products of
            their state Jacobians grow or die over time, before and after training, and
            how much of it do eigenvalues predict?
Prediction: rates log|lambda|, in nats per step: for the tanh network of its recurrent
            matrix W, for the gated ones of the state Jacobian at the trajectory's end.
Expect:     1. Every network reads at least 3 times as many test images as the constant
               guess, and the gated ones read more than the tanh network.
            2. Before training the largest singular value of Phi(t, 0) shrinks, in all.
            3. Training raises the rate of the largest singular value, in all.
            4. In the trained tanh network the largest, median and smallest singular
               value all fall faster than the eigenvalues of W say, because tanh' < 1.
            5. For the trained gated networks the prediction is within 0.1 nats per step
               of the measured rate for the largest singular value.
            6. The trained tanh network's lag-63 gradient, relative to its lag-0 one, is
               at least 2 orders of magnitude below those of the gated ones.
            7. At every lag, for every image, the gradient shrinks by a factor between
               the smallest and the largest singular value of Phi(T, T-k): a theorem.
Runs in:    about 2 minutes on 2 CPU cores.
Outcome:    at the default configuration all came true but the 6th. Training taught the
            tanh network to carry its gradient too: of 12 orders of magnitude lost over
            63 steps before, less than 1 was lost after.

The digits are those of scikit-learn (1,797 images of 8 x 8), split once, stratified,
into training and test images. Pixels are scaled to mean 0 and variance 1 over the
training images. Training is in float32, spectra are in float64 for those very weights.
Learning rate, batch size and number of epochs were chosen on the split of seed 0; the
default seed is 1.
"""

import _results
from _results import Expectation

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import vgjax

jax.config.update("jax_enable_x64", True)

CELLS = {"tanh": nnx.SimpleCell, "GRU": nnx.GRUCell, "LSTM": nnx.LSTMCell}
ROLES = ("largest", "median", "smallest")
WHEN = ("before", "after")
CLASSES = 10


@dataclass(frozen=True)
class Config:
    features: int = 64  # hidden features of each cell, units
    epochs: int = 40  # passes over the training images
    batch_size: int = 32  # images per gradient step
    learning_rate: float = 0.005  # Adam's first, per step; falls to 0 as a cosine
    max_norm: float = 1.0  # global gradient norm to clip to, nats per unit of weight
    test_images: int = 360  # images kept from training, of 1,797
    spectrum_images: int = 16  # test images whose spectra are averaged
    seed: int = 1  # of the split, the weights and the order of the images


TOY = Config(features=6, epochs=2, batch_size=256, spectrum_images=3)


class Network(NamedTuple):
    """A PyTree: a cell, and what reads its last hidden state."""

    cell: nnx.Module
    readout: nnx.Linear


class Digits(NamedTuple):
    train_images: Array  # (n, 64, 1) pixels in reading order, scaled, float32
    train_labels: Array  # (n,)
    test_images: Array  # (m, 64, 1)
    test_labels: Array  # (m,)


Report = Callable[
    [str, int, int], None
]  # what is being done, how much of it, of how much


def measure(config: Config, report: Report = lambda *_: None) -> dict[str, Any]:
    """Train every network, and measure it before and after."""
    digits = load(config)
    guess = np.bincount(digits.train_labels).argmax()
    measured = {"guess_accuracy": np.mean(np.asarray(digits.test_labels) == guess)}
    for name in CELLS:
        before = build(name, config)
        after, training = train(before, digits, config, partial(report, name))
        measured[name] = {"training": training}
        for k, (when, network) in enumerate(zip(WHEN, (before, after), strict=True)):
            report(name, config.epochs + k, config.epochs + len(WHEN))
            measured[name][when] = analyse(name, network, digits, config)
        report(name, config.epochs + len(WHEN), config.epochs + len(WHEN))
    return measured


def load(config: Config) -> Digits:
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images,
        labels,
        test_size=config.test_images,
        stratify=labels,
        random_state=config.seed,
    )
    # Black pixels must not be 0. From its zero carry an LSTM would not move, and while
    # c = 0 the rows of its Jacobian for h are multiples of those for c: half of all
    # directions would be annihilated by the margin of the image.
    mean, deviation = train.mean(), train.std()

    def scaled(pixels):
        return jnp.asarray((pixels - mean) / deviation, jnp.float32)[..., None]

    return Digits(
        scaled(train), jnp.asarray(train_labels), scaled(test), jnp.asarray(test_labels)
    )


def build(name: str, config: Config) -> Network:
    rngs = nnx.Rngs(config.seed)
    # dtype=None: compute in whatever dtype weights and inputs have.
    cell = CELLS[name](1, config.features, dtype=None, rngs=rngs)
    return Network(cell, nnx.Linear(config.features, CLASSES, rngs=rngs))


def start(network: Network, dtype: jnp.dtype) -> Any:
    """Return the carry Flax starts from, for one image: zeros."""
    carry = network.cell.initialize_carry((1,), nnx.Rngs(0))
    return jax.tree.map(lambda a: a.astype(dtype), carry)


def loss_of_image(network: Network, pushes: Any, image: Array, label: Array):
    """Cross-entropy of one image, in nats, and the logits.

    `pushes` has the structure of the carry, with time along a leading axis of T + 1;
    each is added to the state of its time. At zeros it changes nothing, and the
    gradient by it is dL/ds_t for every t at once.
    """

    def step(carry, push_and_pixel):
        push, pixel = push_and_pixel
        carry, _ = network.cell(carry, pixel)
        return jax.tree.map(jnp.add, carry, push), None

    carry = jax.tree.map(lambda a: a[0], pushes)  # from zeros
    rest = jax.tree.map(lambda a: a[1:], pushes)
    carry, _ = jax.lax.scan(step, carry, (rest, image))
    hidden = jax.tree.leaves(carry)[-1]  # of an LSTM's (c, h), h
    logits = network.readout(hidden)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss, logits


def no_pushes(network: Network, image: Array) -> Any:
    carry = start(network, image.dtype)
    T = len(image)
    return jax.tree.map(lambda a: jnp.zeros((T + 1, *a.shape), a.dtype), carry)


def losses(network: Network, images: Array, labels: Array):
    pushes = no_pushes(network, images[0])
    return jax.vmap(loss_of_image, (None, None, 0, 0))(network, pushes, images, labels)


def train(network: Network, digits: Digits, config: Config, report: Callable):
    """Return the trained network, and how training went."""
    n = len(digits.train_labels)
    steps = n // config.batch_size
    decay = optax.cosine_decay_schedule(config.learning_rate, steps * config.epochs)
    optimiser = optax.named_chain(
        ("unclipped", optax.snapshot("norm_before_clip", optax.tree.norm)),
        ("clip", optax.clip_by_global_norm(config.max_norm)),
        ("clipped", optax.snapshot("norm_after_clip", optax.tree.norm)),
        ("adam", optax.adam(decay)),
    )

    def mean_loss(network, images, labels):
        return losses(network, images, labels)[0].mean()

    @jax.jit
    def epoch(network, state, batches):
        def step(network_and_state, batch):
            network, state = network_and_state
            images, labels = digits.train_images[batch], digits.train_labels[batch]
            loss, gradient = jax.value_and_grad(mean_loss)(network, images, labels)
            updates, state = optimiser.update(gradient, state, network)
            norms = [
                optax.tree.get(state, f"norm_{when}_clip")
                for when in ("before", "after")
            ]
            return (optax.apply_updates(network, updates), state), (loss, *norms)

        return jax.lax.scan(step, (network, state), batches)

    rng = np.random.default_rng(config.seed)
    state = optimiser.init(network)
    history = []
    for done in range(config.epochs):
        report(done, config.epochs + len(WHEN))
        order = rng.permutation(n)[: steps * config.batch_size]
        batches = jnp.asarray(order.reshape(steps, config.batch_size))
        (network, state), recorded = epoch(network, state, batches)
        history.append(jax.device_get(recorded))
    loss, before, after = (np.concatenate(x) for x in zip(*history, strict=True))
    training = {
        "loss": loss,
        "norm_before_clip": before,
        "norm_after_clip": after,
        "median_norm_before_clip": np.median(before),
        "median_norm_after_clip": np.median(after),
        "clip_fired": np.mean(before > config.max_norm),
    }
    return network, training


def analyse(name: str, network: Network, digits: Digits, config: Config) -> dict:
    """Return everything measured of one network as it stands."""
    _, logits = jax.jit(losses)(network, digits.test_images, digits.test_labels)
    right = np.asarray(logits.argmax(-1) == digits.test_labels)

    network = jax.tree.map(lambda a: a.astype(jnp.float64), network)
    images = digits.test_images[: config.spectrum_images].astype(jnp.float64)
    labels = digits.test_labels[: config.spectrum_images]
    forward = spectra(network, images, False)
    lag = spectra(network, images, True)
    rates = jax.vmap(vgjax.growth_rates)(forward).rate
    if name == "tanh":
        W = network.cell.dense_h.kernel[...].T  # Flax multiplies h @ kernel
        predicted = jnp.tile(vgjax.theory.eigenvalue_rates(W), (len(images), 1))
    else:
        predicted = rates_at_end(network, images)
    return {
        "accuracy": right.mean(),
        "accuracy_standard_error": right.std() / np.sqrt(len(right)),
        "steps": forward.steps[0],
        "forward": forward.log_singular_values,  # (images, T, N) nats, of Phi(t, 0)
        "lag": lag.log_singular_values,  # (images, T, N) nats, of Phi(T, T-k)
        "rates": rates,  # (images, N) nats per step, of Phi(t, 0)
        "predicted_rates": predicted,  # (images, N) nats per step
        "log_gradient": log_gradient_by_lag(network, images, labels),
    }


@partial(jax.jit, static_argnums=2)
def spectra(network: Network, images: Array, reverse: bool) -> Any:
    """Return the spectrum of every image, one image after the other."""
    carry = start(network, images.dtype)

    def of_image(image):
        return vgjax.jacobian_spectrum(network.cell, carry, image, reverse=reverse)

    return jax.lax.map(of_image, images)


@jax.jit
def rates_at_end(network: Network, images: Array) -> Array:
    """(images, N) log|lambda| of the last state Jacobian of each trajectory."""
    carry = start(network, images.dtype)

    def of_image(image):
        before = vgjax.rollout(network.cell, carry, image[:-1]).carry
        J = vgjax.jacobians.state_jacobian(network.cell, before, image[-1])
        return vgjax.theory.eigenvalue_rates(J)

    return jax.lax.map(of_image, images)


@jax.jit
def log_gradient_by_lag(network: Network, images: Array, labels: Array) -> Array:
    """(images, T+1) log of the norm of dL/ds_{T-k}, in nats, k from 0 on."""
    pushes = no_pushes(network, images[0])

    def of_image(image, label):
        gradient, _ = jax.grad(loss_of_image, 1, has_aux=True)(
            network, pushes, image, label
        )
        squares = [(a**2).sum(1) for a in jax.tree.leaves(gradient)]
        return 0.5 * jnp.log(sum(squares))[::-1]

    return jax.vmap(of_image)(images, labels)


def summary(values: Array) -> np.ndarray:
    """(..., 3): the largest, the median and the smallest of the last axis."""
    N = values.shape[-1]
    return np.asarray(values)[..., [0, (N - 1) // 2, N - 1]]


def over_images(values: Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over images, -inf left out; NaN where all are."""
    values = np.asarray(values)
    finite = np.isfinite(values)
    count = np.where(finite.any(0), finite.sum(0), np.nan)
    mean = np.sum(values, axis=0, where=finite) / count
    squares = np.square(values - mean, where=finite, out=np.zeros_like(values))
    return mean, np.sqrt(squares.sum(0) / count)


def annihilated(values: Array) -> float:
    """How many directions the whole product annihilates, on average over images."""
    return float(np.mean(np.sum(np.asarray(values)[:, -1] == -np.inf, axis=-1)))


def lost_by_lag(result: dict) -> np.ndarray:
    """(T+1,) mean over images of the log10 of the gradient, relative to lag 0."""
    log_gradient = np.asarray(result["log_gradient"])
    return over_images(log_gradient - log_gradient[:, :1])[0] / np.log(10)


def check(measured: dict[str, Any]) -> list[Expectation]:
    """Compare what was measured with what the docstring expects."""
    before, after = ({c: measured[c][when] for c in CELLS} for when in WHEN)
    accuracy = {c: float(after[c]["accuracy"]) for c in CELLS}
    guess = float(measured["guess_accuracy"])
    gated = ("GRU", "LSTM")
    rates = {
        when: {c: over_images(summary(of[c]["rates"]))[0] for c in CELLS}
        for when, of in zip(WHEN, (before, after), strict=True)
    }
    predicted = {c: over_images(summary(after[c]["predicted_rates"]))[0] for c in CELLS}
    largest = {when: {c: rates[when][c][0] for c in CELLS} for when in WHEN}
    gap = {c: rates["after"][c] - predicted[c] for c in CELLS}
    lag = len(after["tanh"]["steps"]) - 1
    lost = {c: lost_by_lag(after[c])[lag] for c in CELLS}
    outside = max(outside_bounds(of[c]) for of in (before, after) for c in CELLS)
    return [
        Expectation(
            "1. all read 3 times as much as the guess, gated ones most",
            min(accuracy.values()) >= 3 * guess
            and min(accuracy[c] for c in gated) > accuracy["tanh"],
            f"{_list(accuracy, '.1%')}; guess {guess:.1%}",
        ),
        Expectation(
            "2. before training the largest singular value shrinks",
            max(largest["before"].values()) < 0,
            f"{_list(largest['before'], '+.3f')} nats per step",
        ),
        Expectation(
            "3. training raises the rate of the largest singular value",
            all(largest["after"][c] > largest["before"][c] for c in CELLS),
            f"{_list(largest['after'], '+.3f')} nats per step",
        ),
        Expectation(
            "4. trained tanh network: all three fall faster than W's eigenvalues",
            bool(np.all(gap["tanh"] < 0)),
            "measured - predicted: "
            + _list(dict(zip(ROLES, gap["tanh"], strict=True)), "+.3f"),
        ),
        Expectation(
            "5. trained gated networks: the largest within 0.1 of its prediction",
            all(abs(gap[c][0]) <= 0.1 for c in gated),
            "measured - predicted: " + _list({c: gap[c][0] for c in gated}, "+.3f"),
        ),
        Expectation(
            f"6. trained tanh network: lag-{lag} gradient 2 orders below the gated",
            lost["tanh"] <= min(lost[c] for c in gated) - 2,
            f"log10 of what is left: {_list(lost, '+.2f')}",
        ),
        Expectation(
            "7. every gradient shrinks within the bounds of its singular values",
            outside < 1e-9,
            f"furthest outside: {max(outside, 0):.1e} nats",
        ),
    ]


def outside_bounds(result: dict) -> float:
    """How far, in nats, any gradient leaves what its singular values allow."""
    log_gradient = np.asarray(result["log_gradient"])
    shrunk = log_gradient[:, 1:] - log_gradient[:, :1]
    values = np.asarray(result["lag"])
    return float(np.max(np.maximum(shrunk - values[..., 0], values[..., -1] - shrunk)))


def _list(numbers: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {x:{form}}" for name, x in numbers.items())


def print_tables(measured: dict[str, Any], config: Config) -> None:
    rows = []
    for c in CELLS:
        training, after = measured[c]["training"], measured[c]["after"]
        last_epoch = np.split(training["loss"], config.epochs)[-1]
        rows.append(
            [
                c,
                f"{measured[c]['before']['accuracy']:.1%}",
                f"{after['accuracy']:.1%} ± {after['accuracy_standard_error']:.1%}",
                f"{last_epoch.mean():.3f}",
                f"{training['median_norm_before_clip']:.3f}",
                f"{training['median_norm_after_clip']:.3f}",
                f"{training['clip_fired']:.0%}",
            ]
        )
    _results.table(
        f"Training: {config.epochs} epochs of Adam, gradient clipped to global norm "
        f"{config.max_norm:g}",
        [
            "cell",
            "untrained",
            "test accuracy",
            "train loss",
            "norm before clip",
            "after clip",
            "clip fired",
        ],
        rows,
        f"{config.test_images} test images; always saying the most frequent digit "
        f"reads {measured['guess_accuracy']:.1%}. Norms are medians over steps.",
    )
    rows = []
    for c in CELLS:
        for when in WHEN:
            of = measured[c][when]
            mean, deviation = over_images(summary(of["rates"]))
            predicted, _ = over_images(summary(of["predicted_rates"]))
            cells = [
                text
                for m, d, p in zip(mean, deviation, predicted, strict=True)
                for text in (f"{m:+.3f} ±{d:.3f}", f"{p:+.3f}")
            ]
            rows.append([f"{c} {when}", *cells, f"{annihilated(of['forward']):g}"])
    _results.table(
        "Rates of the singular values of Phi(t, 0), nats per step",
        ["cell", *(f for role in ROLES for f in (role, "log|λ|")), "σ = 0"],
        rows,
        f"Mean ± standard deviation over {config.spectrum_images} test images. "
        "Predicted, log|λ|: of W (tanh), of the last state Jacobian (GRU, LSTM). "
        "σ = 0: directions annihilated, left out of the means.",
    )
    rows = []
    T = len(measured["tanh"]["after"]["steps"])
    lags = (1, T // 8, T // 4, T // 2, T - 1)
    for c in CELLS:
        for when in WHEN:
            lost = lost_by_lag(measured[c][when])
            norm = over_images(measured[c][when]["log_gradient"][:, 0])[0]
            rows.append(
                [
                    f"{c} {when}",
                    f"{np.exp(norm):.2e}",
                    *(f"{lost[k]:+.2f}" for k in lags),
                ]
            )
    _results.table(
        "Gradient by lag: log10 of |dL/ds_(T-k)| / |dL/ds_T|",
        ["cell", "|dL/ds_T|", *(f"k = {k}" for k in lags)],
        rows,
        "Means of logs over the same images.",
    )


# Legible without colour: marker and shade say which value, dashes say when.
_SHADES = {"largest": "#08306b", "median": "#2f7fbc", "smallest": "#8fc0de"}
_MARKERS = {"largest": "^", "median": "o", "smallest": "v"}
_LINES = {"tanh": ("#111111", "s"), "GRU": ("#b2560d", "D"), "LSTM": ("#6aa84f", "P")}


def draw(measured: dict[str, Any]) -> Figure:
    figure = plt.figure(figsize=(14, 7), layout="constrained")
    axes = figure.subplots(2, 4, width_ratios=(1, 1, 1, 1.15))
    for column, c in enumerate(CELLS):
        for row, products in enumerate(("forward", "lag")):
            _draw_spectrum(axes[row, column], measured[c], products)
            axes[row, column].sharey(axes[0, column])
        N = measured[c]["after"]["forward"].shape[-1]
        axes[0, column].set_title(f"{c}, N = {N}: products Φ(t, 0)")
        axes[0, column].set_xlabel("t (steps)")
        axes[1, column].set_title(f"{c}: lags Φ(T, T−k)")
        axes[1, column].set_xlabel("lag k (steps)")
    for ax in axes[:, 0]:
        ax.set_ylabel("log σ (nats)")
    _draw_gradients(axes[0, 3], measured)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[1, 3].axis("off")
    axes[1, 3].legend(
        handles,
        labels,
        loc="upper left",
        frameon=False,
        alignment="left",
        borderaxespad=0,
        title="Singular values: mean over images,\nband ± 1 standard deviation;\n"
        "prediction: steps times log|λ|",
    )
    return figure


def _draw_spectrum(ax: Axes, of: dict[str, Any], products: str) -> None:
    steps = np.asarray(of["after"]["steps"])
    gap = max(1, len(steps) // 6)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    means = {when: over_images(summary(of[when][products])) for when in WHEN}
    predicted, _ = over_images(summary(of["after"]["predicted_rates"]))
    for i, role in enumerate(ROLES):
        mean, deviation = (x[:, i] for x in means["after"])
        shade = _SHADES[role]
        ax.fill_between(
            steps,
            mean - deviation,
            mean + deviation,
            color=shade,
            alpha=0.3,
            linewidth=0,
        )
        ax.plot(
            steps,
            mean,
            color=shade,
            marker=_MARKERS[role],
            markevery=(gap, gap),
            label=f"{role}, trained",
        )
    for i, role in enumerate(ROLES):
        ax.plot(
            steps,
            means["before"][0][:, i],
            color="0.45",
            linestyle="--",
            marker=_MARKERS[role],
            markevery=(gap + gap // 2, gap),
            markerfacecolor="white",
            linewidth=1.2,
            label=f"{role}, before training",
        )
    for i, role in enumerate(ROLES):
        ax.plot(
            steps,
            predicted[i] * steps,
            color="black",
            linestyle=":",
            marker=_MARKERS[role],
            markevery=[len(steps) - 1],
            markersize=5,
            linewidth=1.3,
            label=f"{role}, predicted for trained",
        )


def _draw_gradients(ax: Axes, measured: dict[str, Any]) -> None:
    for c in CELLS:
        colour, marker = _LINES[c]
        for when in WHEN:
            values = np.asarray(measured[c][when]["log_gradient"])
            mean, deviation = over_images((values - values[:, :1]) / np.log(10))
            lags = np.arange(len(mean))
            gap = max(1, len(lags) // 6)
            style = {"color": colour, "marker": marker, "markevery": (gap, gap)}
            if when == "after":
                ax.fill_between(
                    lags,
                    mean - deviation,
                    mean + deviation,
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
                ax.plot(lags, mean, label=f"{c}, trained", **style)
            else:
                ax.plot(
                    lags,
                    mean,
                    label=f"{c}, before",
                    linestyle="--",
                    markerfacecolor="white",
                    linewidth=1.2,
                    **style,
                )
    ax.set(
        title="Gradient by lag",
        xlabel="lag k (steps)",
        ylabel="log₁₀ of |∂L/∂s(T−k)| / |∂L/∂s(T)|",
    )
    ax.legend(loc="lower left", frameon=False, fontsize=9)


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    with Progress(console=_results.console()) as progress:
        tasks = {c: progress.add_task(f"{c:>4}", total=None) for c in CELLS}

        def report(name: str, done: int, total: int) -> None:
            doing = "training" if done < config.epochs else "spectra"
            progress.update(
                tasks[name],
                completed=done,
                total=total,
                description=f"{name:>4} {'done' if done == total else doing:>8}",
            )

        measured = measure(config, report)
    print_tables(measured, config)
    expectations = check(measured)
    figure = draw(measured)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(main, default=Config(), toy=TOY, description=__doc__)
