"""What every remedy for vanishing gradients does before any training.

Question:   the field has many remedies for vanishing and exploding gradients. Measured
            by one protocol, state of one size, as their papers initialise them: how
            fast does each singular value of the products over the last k steps,
            Phi(T, T-k), grow or die with the lag k, and what survives 200 steps?
Prediction: rates log|lambda|, nats per step, of the eigenvalues of the state Jacobian
            at rest (state and input zero; over one period of all clocks for the
            clockwork network), where the cell is smooth there; 0 for matrices that
            are orthogonal by construction; 0 for the largest value of layers with
            weights of their own at the random-walk gain. None for the others.
Expect:     1. Linear recurrence on the complex plane (lru): every rate is log|lambda|
               to 1e-10 nats per step, whatever the inputs.
            2. Orthogonal by construction (cayley, expm): every log singular value that
               is not -inf is 0 to 1e-9 nats at every lag.
            3. Attention over a cache: exactly all but 2 features k of the directions
               are at 0 at lag k, to 1e-9, until its window ends; then none is.
            4. Of the plain networks (tanh, sigmoid, relu, leaky_relu, linear) none
               carries a direction over 200 steps; chrono_lstm, lru and antisymmetric
               carry some.
            5. The chrono initialisation keeps more directions than a forget bias of 1.
            6. Layers with weights of their own: the mean over seeds of the log norm of
               the gradient at lag 200 is within 4 standard errors of 0, ...
            7. ... and its spread over seeds is less than half that of shared weights.
            8. Nowhere does a saturating network (tanh, sigmoid, smart_tanh) beat its
               prediction: the measured rate of the largest value is below it.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true but the 4th: by chance some
            Gaussian matrices of 28 x 28 have eigenvalues outside the unit circle, so
            that linear networks carry up to 7 directions; and with Tmax = 100 the
            slowest unit of some chrono LSTM, as the slowest of some ring, has fallen
            below a tenth after 200 steps.

Inputs are independent standard normal numbers, the same for all cells of a seed; the
first steps are left out. A cell whose state is not its features (an LSTM has two
numbers for each) has fewer of them, so that the state is of one size. A direction
carries if its singular value at the last lag is above a tenth. Networks over depth take
their layers for steps. --list prints the zoo: parameters, size of the state, and what
each cell is checked against in the tests.
"""

import _results
from _results import Expectation

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vgjax
from vgjax import cells

jax.config.update("jax_enable_x64", True)

ROLES = ("largest", "median", "smallest")
PLAIN = ("linear", "tanh", "relu", "leaky_relu", "sigmoid")
SATURATING = ("tanh", "sigmoid", "smart_tanh")
ORTHOGONAL = ("cayley", "expm")
CARRYING = ("chrono_lstm", "lru", "antisymmetric")


@dataclass(frozen=True)
class Config:
    state: int = 28  # N of every cell, numbers; a multiple of 28
    inputs: int = 4  # D, numbers in an input
    steps: int = 200  # T, largest lag; time steps or layers
    washout: int = 50  # first steps left out, except over depth
    seeds: int = 8  # of weights and inputs
    every: int = 10  # a record of the singular values every so many lags
    carrying: float = 0.1  # a singular value above it carries; dimensionless
    seed: int = 1  # the first of the seeds
    cells: tuple[str, ...] = ()  # names of the zoo to measure; none means all


TOY = Config(
    steps=24,
    washout=4,
    seeds=2,
    every=4,
    cells=("tanh", "lstm", "chrono_lstm", "cayley", "lru", "attention"),
)


@dataclass(frozen=True)
class Remedy:
    """How a cell of the zoo enters the comparison."""

    predicted: str = ""  # "rest", "orthogonal", "walk", or nothing
    options: dict[str, Any] = field(default_factory=dict)
    period: int = 1  # steps after which the Jacobian at rest repeats


SMOOTH = (
    *("linear", "tanh", "sigmoid", "smart_tanh", "leaky", "skip", "dilated"),
    *("gru", "mgu", "minimal_rnn", "lstm", "chrono_lstm", "residual", "antisymmetric"),
    *("frozen_batch_norm_rnn", "frozen_batch_norm_lstm", "lru"),
)


def remedies(state: int) -> dict[str, Remedy]:
    """Every cell of the zoo; those that are not named here have no prediction."""
    layers = {"tokens": 4, "heads": 1}
    of = {
        **dict.fromkeys(SMOOTH, Remedy("rest")),
        "clockwork": Remedy("rest", period=8),
        "attention": Remedy("rest", {"window": state // 2}),
        **dict.fromkeys(ORTHOGONAL, Remedy("orthogonal")),
        "layers": Remedy("walk"),
        "batch_norm_rnn": Remedy(options={"batch": 4}),
        "batch_norm_lstm": Remedy(options={"batch": 2}),
        "batch_norm_layers": Remedy(options={"batch": 4}),
        "shared_batch_norm_layers": Remedy(options={"batch": 4}),
        "transformer": Remedy(options=layers),
        "shared_transformer": Remedy(options=layers),
    }
    return {name: of.get(name, Remedy()) for name in cells.names()}


@cache
def per_feature(name: str, state: int) -> int:
    """Numbers of the state for each feature."""

    def first_carry(key):
        cell = of_features(name, state, key, Config(state=state))
        return cell.initialize_carry(rngs=key)

    leaves = jax.tree.leaves(jax.eval_shape(first_carry, jax.random.key(0)))
    return sum(a.size for a in leaves if a.dtype == float) // state


def build(name: str, seed: int, config: Config) -> Any:
    """A cell of the zoo whose state has ``config.state`` numbers."""
    features = config.state // per_feature(name, config.state)
    return of_features(name, features, jax.random.key(seed), config)


def of_features(name: str, features: int, key: Array, config: Config) -> Any:
    inputs = 0 if cells.is_over_depth(name) else config.inputs
    options = remedies(config.state)[name].options
    return cells.build(name, inputs, features, key=key, **options)


def measure(config: Config, report: Callable = lambda names: names) -> dict[str, Any]:
    """Measure every remedy; ``report(names)`` passes them on, one at a time."""
    names = chosen(config)
    spectra = jax.jit(
        jax.vmap(
            partial(vgjax.products.product_spectrum, every=config.every, reverse=True)
        )
    )
    return {name: measure_one(name, config, spectra) for name in report(names)}


def chosen(config: Config) -> tuple[str, ...]:
    """Names that are to be measured."""
    every = tuple(remedies(config.state))
    unknown = [name for name in config.cells if name not in every]
    if unknown:
        msg = f"--cells must be of {', '.join(every)}, but has {', '.join(unknown)}."
        raise SystemExit(msg)
    if config.state % 28 != 0:
        msg = f"--state must be a multiple of 28, but is {config.state}."
        raise SystemExit(msg)
    return config.cells or every


def measure_one(name: str, config: Config, spectra: Callable) -> dict[str, Any]:
    seeds = range(config.seed, config.seed + config.seeds)
    networks = [build(name, seed, config) for seed in seeds]
    J = jnp.stack(
        [
            jacobians(network, seed, config, cells.is_over_depth(name))
            for network, seed in zip(networks, seeds, strict=True)
        ]
    )
    spectrum = spectra(J)
    values = spectrum.log_singular_values  # (seeds, R, N) nats
    rates = jax.vmap(vgjax.growth_rates)(spectrum).rate
    remedy = remedies(config.state)[name]
    return {
        "lags": spectrum.steps[0],
        "log_singular_values": values,
        "rates": three(rates),  # (seeds, 3) nats per step
        "predicted": np.stack(
            [three(predict(n, remedy, config.state)) for n in networks]
        ),
        "carrying": jnp.sum(values[:, -1] > np.log(config.carrying), axis=1),
        "log_gradient": log_gradients(J, seeds),  # (seeds, T) nats, by lag from 1
    }


def jacobians(cell: Any, seed: int, config: Config, over_depth: bool) -> Array:
    """State Jacobians of the last T steps, (T, N, N)."""
    T = config.steps + (0 if over_depth else config.washout)
    keys = jax.random.split(jax.random.key(seed + 1000))
    carry = cell.initialize_carry(rngs=keys[0])
    inputs = cell.random_inputs(keys[1], T)
    return vgjax.state_jacobians(cell, carry, inputs, length=T)[-config.steps :]


def three(values: Array) -> np.ndarray:
    """Largest, median and smallest of the last axis, which descends."""
    N = values.shape[-1]
    return np.asarray(values)[..., [0, (N - 1) // 2, N - 1]]


def predict(cell: Any, remedy: Remedy, state: int) -> Array:
    """Rates that theory gives, (N,) nats per step, NaN where it gives none."""
    unknown = jnp.full(state, jnp.nan)
    if remedy.predicted == "":
        return unknown
    if remedy.predicted == "orthogonal":
        return jnp.zeros_like(unknown)
    if remedy.predicted == "walk":
        return unknown.at[0].set(0.0)
    carry = cell.initialize_carry(rngs=nnx.Rngs(0))
    still = jax.tree.map(jnp.zeros_like, cell.random_inputs(jax.random.key(0), 1))
    still = jax.tree.map(lambda a: jnp.repeat(a, remedy.period, 0), still)
    at_rest = vgjax.propagator(cell, carry, still)
    return vgjax.theory.eigenvalue_rates(at_rest) / remedy.period


def pulled_back(J: Array, cotangent: Array) -> Array:
    """Log norms of Phi(T, T-k)^T cotangent for k = 1..T, (T,) nats."""

    def linear(h, J):
        return J @ h, None

    T, N = J.shape[:2]
    read = jnp.zeros((T + 1, N)).at[-1].set(cotangent)
    return vgjax.gradients.log_cotangents(linear, jnp.zeros(N), J, read)[1:]


def log_gradients(J: Array, seeds: range) -> Array:
    """Of a random unit cotangent for each seed, (seeds, T) nats."""
    N = J.shape[-1]
    keys = [jax.random.key(seed + 2000) for seed in seeds]
    random = jnp.stack([jax.random.normal(key, (N,)) for key in keys])
    unit = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    return jnp.stack([pulled_back(*given) for given in zip(J, unit, strict=True)])


def check(measured: dict[str, Any], config: Config) -> list[Expectation]:
    """Compare what was measured with what the docstring expects of these cells."""
    of = {
        _check_lru: ("lru",),
        _check_orthogonal: ORTHOGONAL,
        _check_attention: ("attention",),
        _check_who_carries: (*PLAIN, *CARRYING),
        _check_chrono: ("chrono_lstm", "lstm"),
        _check_walk: ("layers",),
        _check_spread: ("layers", "shared_layers"),
        _check_saturating: SATURATING,
    }
    return [
        examine(measured, config)
        for examine, names in of.items()
        if set(names) <= set(measured)
    ]


def _check_lru(measured: dict[str, Any], config: Config) -> Expectation:
    of = measured["lru"]
    seeds = range(config.seed, config.seed + config.seeds)
    radii = [np.exp(-np.exp(build("lru", s, config).log_nu[...])) for s in seeds]
    rates = np.sort(np.log(np.repeat(radii, 2, axis=1)))[:, ::-1]
    lags = np.asarray(of["lags"])[None, :, None]
    off = np.abs(of["log_singular_values"] / lags - rates[:, None, :]).max()
    return Expectation(
        "1. lru: every rate is log|lambda| to 1e-10",
        bool(off < 1e-10),
        f"furthest off: {off:.1e} nats per step",
    )


def _check_orthogonal(measured: dict[str, Any], _: Config) -> Expectation:
    off, lost = {}, {}
    for name in ORTHOGONAL:
        values = np.asarray(measured[name]["log_singular_values"])
        finite = np.isfinite(values)
        off[name] = np.abs(values[finite]).max(initial=0)
        lost[name] = 1 - finite[:, -1].mean()
    return Expectation(
        "2. cayley, expm: every finite log singular value is 0 to 1e-9",
        max(off.values()) < 1e-9,
        ", ".join(
            f"{name}: furthest {off[name]:.1e}, {100 * lost[name]:.0f} % are -inf"
            for name in ORTHOGONAL
        ),
    )


def _check_attention(measured: dict[str, Any], config: Config) -> Expectation:
    of = measured["attention"]
    values, lags = np.asarray(of["log_singular_values"]), np.asarray(of["lags"])
    features = config.state // per_feature("attention", config.state)
    kept = np.maximum(0, config.state - 2 * features * lags)
    expected = np.where(np.arange(config.state) < kept[:, None], 0, -np.inf)
    same = np.isfinite(values) == np.isfinite(expected)
    off = np.abs(values[np.isfinite(values)]).max(initial=0)
    return Expectation(
        "3. attention: all but 2 features k directions at 0 at lag k, then none",
        bool(same.all() and off < 1e-9),
        f"{kept[0]} of {config.state} at lag {lags[0]}, furthest {off:.1e}; "
        f"{100 * same.mean():.0f} % of the directions as expected",
    )


def _check_who_carries(measured: dict[str, Any], config: Config) -> Expectation:
    plain = {name: int(measured[name]["carrying"].max()) for name in PLAIN}
    some = {name: int(measured[name]["carrying"].min()) for name in CARRYING}
    return Expectation(
        f"4. over {config.steps} steps no plain network carries; chrono, lru, "
        "antisymmetric do",
        max(plain.values()) == 0 and min(some.values()) > 0,
        "at most "
        + ", ".join(f"{name} {n}" for name, n in plain.items())
        + "; at least "
        + ", ".join(f"{name} {n}" for name, n in some.items()),
    )


def _check_chrono(measured: dict[str, Any], _: Config) -> Expectation:
    chrono, one = (
        float(measured[name]["carrying"].mean()) for name in ("chrono_lstm", "lstm")
    )
    return Expectation(
        "5. the chrono initialisation keeps more directions than forget bias 1",
        chrono > one,
        f"{chrono:.1f} against {one:.1f}",
    )


def _check_walk(measured: dict[str, Any], config: Config) -> Expectation:
    last = np.asarray(measured["layers"]["log_gradient"])[:, -1]
    error = last.std(ddof=1) / np.sqrt(config.seeds)
    return Expectation(
        f"6. own layers: log gradient at lag {config.steps} within 4 standard errors "
        "of 0",
        bool(abs(last.mean()) < 4 * error),
        f"mean {last.mean():+.2f}, standard error {error:.2f} nats",
    )


def _check_spread(measured: dict[str, Any], _: Config) -> Expectation:
    own, shared = (
        np.asarray(measured[name]["log_gradient"])[:, -1].std(ddof=1)
        for name in ("layers", "shared_layers")
    )
    return Expectation(
        "7. and its spread is less than half that of shared layers",
        bool(own < shared / 2),
        f"{own:.2f} against {shared:.2f} nats",
    )


def _check_saturating(measured: dict[str, Any], _: Config) -> Expectation:
    above = {
        name: float((measured[name]["rates"] - measured[name]["predicted"])[:, 0].max())
        for name in SATURATING
    }
    return Expectation(
        "8. saturating networks: the largest value stays below its prediction",
        max(above.values()) < 0,
        "above it by at most "
        + ", ".join(f"{name} {x:+.3f}" for name, x in above.items())
        + " nats per step",
    )


def ranked(measured: dict[str, Any]) -> list[str]:
    """Names, what survives first."""

    def survives(name):
        of = measured[name]
        # Without NaN, and with -inf last.
        gradient = np.nan_to_num(np.median(of["log_gradient"][:, -1]), neginf=-1e9)
        return -float(of["carrying"].mean()), -float(gradient)

    return sorted(measured, key=survives)


def print_tables(measured: dict[str, Any], config: Config) -> None:
    rows = []
    for name in ranked(measured):
        of = measured[name]
        log10 = np.median(of["log_gradient"][:, -1]) / np.log(10)
        rows.append(
            [
                name,
                *(_rate(of, i) for i in range(3)),
                f"{float(of['carrying'].mean()):.1f}",
                f"{log10:+.0f}",
            ]
        )
    _results.table(
        f"State of {config.state} numbers, {config.seeds} seeds: rates over lags to "
        f"{config.steps}, nats per step",
        ["cell", *ROLES, "carry", "lg|g|"],
        rows,
        "± one standard deviation over seeds, in brackets the prediction; 5/8: of the "
        "5 seeds of 8 in which the value is not -inf. carry: directions above "
        f"{config.carrying:g} at lag {config.steps}. lg|g|: log10 of the norm there of "
        "a gradient that was 1 at lag 0, median.",
    )


def _rate(of: dict[str, Any], i: int) -> str:
    rates = np.asarray(of["rates"])[:, i]
    kept = rates[np.isfinite(rates)]
    if kept.size == 0:
        measured = "-inf"
    else:
        measured = f"{_short(kept.mean())}±{_short(kept.std())}"
    if 0 < kept.size < rates.size:
        return f"{measured} {kept.size}/{rates.size}"
    predicted = np.asarray(of["predicted"])[:, i].mean()
    return measured if np.isnan(predicted) else f"{measured} ({_short(predicted)})"


def _short(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 9.995 or np.isinf(x) else f"{x:.1f}"


_SHADES = {"largest": "#08306b", "median": "#2f7fbc", "smallest": "#8fc0de"}
_COLUMNS = 7


def draw(measured: dict[str, Any], config: Config) -> Figure:
    names = ranked(measured)
    columns = min(_COLUMNS, len(names))
    rows = -(-(len(names) + 1) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        squeeze=False,
        figsize=(2.3 * columns + 0.4, 2.0 * rows + 0.6),
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for ax, name in zip(axes.flat, names, strict=False):
        _draw_one(ax, name, measured[name], config)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes.flat[len(names) - columns : len(names)]:
        ax.tick_params(labelbottom=True)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="lower right", frameon=False, fontsize=9)
    axes.flat[0].set(xlim=(0, config.steps), ylim=(-60, 20))
    figure.supxlabel("lag k (steps or layers)")
    figure.supylabel("log σ of Φ(T, T−k), and log norm of the gradient (nats)")
    return figure


def _draw_one(ax: Axes, name: str, of: dict[str, Any], config: Config) -> None:
    lags = np.concatenate([[0], of["lags"]])
    values = three(of["log_singular_values"])  # (seeds, R, 3)
    ax.axhline(np.log(config.carrying), color="0.75", linewidth=0.8, zorder=0)
    for i, role in enumerate(ROLES):
        mean = np.concatenate([[0], values[:, :, i].mean(0)])
        with np.errstate(invalid="ignore"):
            spread = np.concatenate([[0], values[:, :, i].std(0)])
        ax.plot(lags, mean, color=_SHADES[role], linewidth=1.8, label=f"{role} σ")
        ax.fill_between(
            lags, mean - spread, mean + spread, color=_SHADES[role], alpha=0.25, lw=0
        )
        predicted = np.asarray(of["predicted"])[:, i].mean()
        ax.plot(
            lags,
            predicted * lags if np.isfinite(predicted) else np.nan * lags,
            color="black",
            linestyle="--",
            linewidth=0.9,
            label="predicted" if i == 0 else None,
        )
    gradient = np.asarray(of["log_gradient"]).mean(0)
    ax.plot(
        np.arange(1, len(gradient) + 1),
        gradient,
        color="#b2560d",
        linestyle=":",
        linewidth=1.6,
        label="gradient",
    )
    ax.set_title(name, fontsize=8)
    ax.tick_params(labelsize=7)


def show_zoo(config: Config) -> None:
    """Print every cell with its size."""
    _results.table(
        "The zoo at a state of "
        f"{config.state} numbers and {config.inputs} inputs (of layers: for each)",
        ["name", "parameters", "state", "checked against"],
        [list(row) for row in zoo_table(config)],
        "All are also held to central differences, exact arithmetic, training, "
        "float32 and float64, vmap over keys.",
    )


def zoo_table(config: Config) -> list[tuple[str, str, str, str]]:
    """Name, parameters, numbers in the state, what it is checked against."""
    return [
        (
            name,
            f"{parameters(name, config):,}",
            size(per_feature(name, config.state), config.state),
            cells.about(name).checked,
        )
        for name in cells.names()
    ]


def size(n: int, state: int) -> str:
    """Numbers in the state, and of how many features they are made."""
    return f"{state} = {n} x {state // n}" if n > 1 else f"{state}"


def parameters(name: str, config: Config) -> int:
    """Number of trained numbers; of a layer, where layers have their own."""

    def weights():
        cell = build(name, 0, config)
        if cells.is_over_depth(name):
            return cell.make_layer(jax.random.key(0))
        return nnx.state(cell, nnx.Param)

    return sum(a.size for a in jax.tree.leaves(jax.eval_shape(weights)))


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    report = partial(_results.track, doing="Measuring")
    measured = measure(config, report)
    print_tables(measured, config)
    expectations = check(measured, config)
    figure = draw(measured, config)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(
        main, default=Config(), toy=TOY, description=__doc__, listing=show_zoo
    )
