"""Saturation is where automatic differentiation goes blind, and need not.

Question:   how many rows of the state Jacobians, and which singular values of their
            product, are lost when the activations of a recurrent cell saturate, because
            tanh' is taken as 1 - tanh^2? How many with exact derivatives?
Prediction: the fraction of rows lost or wrong in the tanh network, by mean field: the
            arguments of tanh are N(0, q), q = g^2 E tanh^2(sqrt(q) z) + 1 at gain g,
            and JAX's derivative of tanh is zero, or off by 1 %, where it is. The sum of
            all log sigma, from log tanh' in closed form.
Runs in:    about a minute on 2 CPU cores.
Outcome:    at the default configuration all came true but the 4th and half of the 7th.
            In the median tanh network one direction of 8 was left, and one LSTM lost 1
            row of 800. What no activation can mend is float32 itself: the true
            Jacobians of the LSTM at gain 16, rounded to float32, are off by 0.12 nats.

Truth is what exact derivatives in float64 give at the very states of the trajectory
that was run, in float32 or float64, so that it is derivatives that are compared and not
trajectories that chaos has torn apart. Exact derivatives in float64 are then the truth
itself, of which only the sum in 6. is an independent check. Products are multiplied out
in float64 always. Plain derivatives are those of a Flax cell as it stands, exact ones
those of vgjax.steps.exact. Weights are the same in both dtypes; gain is that of the
recurrent matrices. Sizes and expectations were chosen on one network of each kind, of
seed 0; the default seed is 1.
"""

from lab import Lab, at_least, at_most, track

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree

import vgjax


@dataclass(frozen=True)
class Config:
    features: int = 8  # hidden features of each cell, units
    inputs: int = 4  # D, numbers in an input
    steps: int = 50  # T, time steps
    gains: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)  # W_ij ~ N(0, gain^2/N)
    networks: int = 15  # of each cell at each gain
    seed: int = 1  # of the weights and the inputs


TOY = Config(features=2, steps=20, gains=(1.0, 16.0), networks=4)
lab = Lab(__file__, __doc__, default=Config(), toy=TOY, columns=2)

CELLS = {"tanh": nnx.SimpleCell, "LSTM": nnx.LSTMCell}
DTYPES = ("float32", "float64")
ROLES = ("largest", "median", "smallest")


def measure(config: Config) -> dict[str, Any]:
    """Differentiate every cell along its own trajectory, plainly and exactly."""
    measured = {"predicted": predicted_fractions(config)} | {name: {} for name in CELLS}
    cases = [(name, dtype) for name in CELLS for dtype in DTYPES]
    for name, dtype in track(cases, "Measuring"):
        found = [
            [compare(name, gain, k, dtype, config) for k in range(config.networks)]
            for gain in config.gains
        ]
        # (gains, networks), and (gains, networks, N) for log singular values
        measured[name][dtype] = {
            what: np.array([[of[what] for of in row] for row in found])
            for what in found[0][0]
        }
    return measured


def compare(
    name: str, gain: float, k: int, dtype: str, config: Config
) -> dict[str, Any]:
    """Measure one network beside the truth."""
    seed = config.seed * 1000 + k
    cell = build(name, gain, seed, dtype, config)
    shape = (config.steps, config.inputs)
    inputs = jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)
    carry = zeros(name, dtype, config)
    states = vgjax.rollout(cell, carry, inputs).states[:-1]
    blind = vgjax.jacobians.saturation(cell, carry, inputs)

    twin = vgjax.steps.exact(build(name, gain, seed, "float64", config))
    carry64 = zeros(name, "float64", config)
    true = jacobians_at(twin, carry64, states.astype(float), inputs.astype(float))
    plain = jacobians_at(cell, carry, states, inputs)
    exact = jacobians_at(vgjax.steps.exact(cell), carry, states, inputs)
    truly = jnp.max(jnp.abs(true), axis=2)
    gone = jnp.max(jnp.abs(exact), axis=2) == 0
    found = {
        "lost": jnp.mean(blind.lost),  # fraction of rows that autodiff gives as zeros
        "wrong": jnp.mean(blind.wrong),  # fraction off by more than 1 %, lost included
        "exact_lost": jnp.mean(gone),  # the same with exact derivatives
        "largest_exact_lost": jnp.max(jnp.where(gone, truly, 0)),  # its largest entry
        "plain": log_sigma(plain),  # (N,) nats
        "exact": log_sigma(exact),
        "true": log_sigma(true),
        "rounded": log_sigma(true.astype(dtype)),  # of the true Jacobians
    }
    if name == "tanh":
        found["volume"] = log_volume(twin, states, inputs)
    return found


def build(name: str, gain: float, seed: int, dtype: str, config: Config) -> nnx.Module:
    """Return a cell of Flax, with the same weights in either dtype."""
    recurrent = nnx.initializers.normal(gain / config.features**0.5)
    sizes, given = (config.inputs, config.features), {"dtype": dtype}
    given |= {"recurrent_kernel_init": recurrent, "rngs": nnx.Rngs(seed)}
    cell = CELLS[name](*sizes, **given)
    return jax.tree.map(lambda a: a.astype(dtype), cell)


def zeros(name: str, dtype: str, config: Config) -> Any:
    h = jnp.zeros(config.features, dtype)
    return (h, h) if name == "LSTM" else h


def jacobians_at(cell: Any, carry: Any, states: Array, inputs: Array) -> Array:
    """(T, N, N): the state Jacobians at given states, whatever led to them."""
    unravel = ravel_pytree(carry)[1]

    def at(state, x):
        return vgjax.jacobians.state_jacobian(cell, unravel(state), x)

    return jax.vmap(at)(states, inputs)


def log_sigma(jacobians: Array) -> Array:
    """(N,) log singular values of their product, nats."""
    spectrum = vgjax.products.product_spectrum(
        jacobians.astype(float), every=len(jacobians)
    )
    return spectrum.log_singular_values[0]


def log_volume(cell: nnx.SimpleCell, states: Array, inputs: Array) -> float:
    """Sum of log|det J_t| of a tanh network, J_t = diag(tanh'(a_t)) W, in NumPy."""
    arrays = cell.dense_h.kernel, cell.dense_i.kernel, cell.dense_i.bias, states, inputs
    W, U, b, h, x = (np.asarray(a[...], float) for a in arrays)
    size = np.abs(h @ W + x @ U + b)
    log_slope = 2 * (np.log(2) - size - np.log1p(np.exp(-2 * size)))
    return log_slope.sum() + len(h) * np.linalg.slogdet(W)[1]


def predicted_fractions(config: Config) -> dict[str, Any]:
    """By mean field, {dtype: {"lost": (gains,), "wrong": (gains,)}}."""
    z = np.linspace(-8, 8, 16_001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    gains = np.array(config.gains)
    q = vgjax.theory.fixed_point("tanh", weight_gain=gains, bias_std=1.0)
    arguments = np.sqrt(q)[:, None] * z
    predicted = {}
    for dtype in DTYPES:
        a = jnp.asarray(arguments, dtype)
        both = (vgjax.activations.tanh, jnp.tanh)
        true, found = (
            np.asarray(jax.jit(jax.vmap(jax.vmap(jax.grad(f))))(a), float) for f in both
        )
        predicted[dtype] = {
            "lost": ((found == 0) & (true > 0)) @ weight,
            "wrong": (np.abs(found - true) > 0.01 * true) @ weight,
        }
    return predicted


def error(of: dict[str, Any], rule: str) -> np.ndarray:
    """(gains, networks, N) nats; inf where a direction is annihilated and is not."""
    return np.abs(of[rule] - of["true"])


def typical(of: dict[str, Any], rule: str) -> np.ndarray:
    """(gains, 3): median over networks of the error of each of `ROLES`, nats."""
    off = error(of, rule)
    N = off.shape[2]
    return np.median(off[:, :, [0, (N - 1) // 2, N - 1]], axis=1)


@lab.claim("tanh, lowest gain: no row is lost or wrong, in float32 or float64.")
def nothing_at_first(measured):
    return at_most(max(measured["tanh"][d]["wrong"][0].max() for d in DTYPES), 0)


@lab.claim("tanh, gain 16: autodiff loses half of the rows in float32, 0.1 in float64.")
def many_in_the_end(measured):
    lost = {dtype: measured["tanh"][dtype]["lost"][-1].mean() for dtype in DTYPES}
    bounds = {"float32": 0.5, "float64": 0.1}
    return {dtype: at_least(lost[dtype], bounds[dtype]) for dtype in DTYPES}


@lab.claim(
    "tanh: the fractions lost and wrong are those of mean field to 0.1, at every gain "
    "in both dtypes, although N is only 8."
)
def as_by_mean_field(measured):
    def furthest(what):
        for dtype, predicted in measured["predicted"].items():
            found = measured["tanh"][dtype][what].mean(axis=1)
            yield np.abs(found - predicted[what]).max()

    return {what: at_most(max(furthest(what)), 0.1) for what in ("lost", "wrong")}


@lab.claim(
    "tanh, gain 16, float32: the median network has not one direction left: plain "
    "derivatives give log sigma = -inf for all."
)
def no_direction_left(measured):
    left = np.isfinite(measured["tanh"]["float32"]["plain"][-1]).sum(axis=1)
    return at_most(np.median(left), 0)


@lab.claim(
    "Exact derivatives lose no row, but in float32 those too small for a normal number "
    "of float32, of the size of 1e-38."
)
def exact_loses_nothing(measured):
    single, double = ([measured[name][d] for name in CELLS] for d in DTYPES)
    return {
        "float64, rows": at_most(max(of["exact_lost"].max() for of in double), 0),
        "float32, largest entry": at_most(
            max(of["largest_exact_lost"].max() for of in single), 1e-36
        ),
    }


@lab.claim(
    "tanh: exact derivatives in float32 are within 0.01 nats of the truth, for every "
    "log sigma that is finite; in float64 their sum is the closed form's to 1e-8."
)
def exact_is_right(measured):
    off = error(measured["tanh"]["float32"], "exact")
    double = measured["tanh"]["float64"]
    total = double["exact"].sum(axis=2)
    return {
        "float32, nats": at_most(off[np.isfinite(off)].max(), 0.01),
        "float64, of the sum": at_most(
            np.abs(total / double["volume"] - 1).max(), 1e-8
        ),
    }


@lab.claim(
    "LSTM: not one row is lost at any gain, for a row is a sum over several gates; yet "
    "at gain 16 in float32 the smallest log sigma of the median network is off by more "
    "than 0.1 nats, with exact derivatives too."
)
def lstm_goes_wrong_unseen(measured):
    of = measured["LSTM"]
    off = {rule: typical(of["float32"], rule)[-1, -1] for rule in ("plain", "exact")}
    lost = max(of[dtype]["lost"].max() for dtype in DTYPES)
    return {"lost": at_most(lost, 0)} | {k: at_least(x, 0.1) for k, x in off.items()}


def cases(measured: dict[str, Any], config: Config):
    """Name, results and number of each row of a table."""
    for name in CELLS:
        for dtype in DTYPES:
            for k, gain in enumerate(config.gains):
                yield f"{name} {dtype}, gain {gain:g}", measured[name][dtype], k


@lab.table(
    "Rows of the state Jacobians: fractions lost and wrong, and what is left",
    *("cell", "lost", "mean field", "wrong", "mean field", "exact lost", "left"),
    note="Means over {networks} networks of {steps} steps. Wrong: off by more than\n"
    "1 %, or lost. Exact lost: with exact derivatives. Left: fraction of log σ\n"
    "that plain derivatives do not make −inf.",
)
def fractions(measured, config):
    for name, of, k in cases(measured, config):
        row = []
        for what in ("lost", "wrong"):
            row.append(f"{of[what][k].mean():.3f}")
            predicted = measured["predicted"][name.split()[1][:-1]][what][k]
            row.append(f"{predicted:.3f}" if name.startswith("tanh") else "–")
        left = np.isfinite(of["plain"][k]).mean()
        yield [name, *row, f"{of['exact_lost'][k].mean():.3f}", f"{left:.3f}"]


@lab.table(
    "Error of log σ of the product of {steps} state Jacobians, nats",
    *("cell", *ROLES, *(f"{rule}: {ROLES[2]}" for rule in ("exact", "rounded"))),
    note="Plain derivatives: largest, median and smallest log σ; exact ones; the true\n"
    "Jacobians, rounded. Median over networks; inf: log σ is −inf, and should not be.\n"
    "Exact derivatives in float64 are the truth.",
)
def errors(measured, config):
    for name, of, k in cases(measured, config):
        better = [typical(of, rule)[k, -1] for rule in ("exact", "rounded")]
        yield [name, *(f"{x:.1e}" for x in (*typical(of, "plain")[k], *better))]


GAIN = "gain g of the recurrent matrix (dimensionless)"
ERROR = "error of log σ, median network (nats)"
SINGLE, DOUBLE = (
    {"color": "#b2560d", "marker": "s"},
    {"color": "#2f7fbc", "marker": "o"},
)
RULES = {"plain": ("#b2560d", "--"), "exact": ("#111111", "-")}
FLOOR, ANNIHILATED = 1e-16, 1e4  # where errors of 0 and inf are drawn, nats


def over_gains(ax, config: Config) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(config.gains, [f"{gain:g}" for gain in config.gains])


@lab.panel(
    "tanh: how many rows are lost?", GAIN, "fraction of rows", legend="upper left"
)
def draw_fractions(ax, measured, config):
    for dtype, style in zip(DTYPES, (SINGLE, DOUBLE), strict=True):
        for what, line, face in (("lost", "-", None), ("wrong", ":", "none")):
            found = measured["tanh"][dtype][what].mean(axis=1)
            dots = style | {"markersize": 8, "markerfacecolor": face or style["color"]}
            ax.plot(config.gains, found, linestyle="", label=f"{dtype}, {what}", **dots)
            predicted = measured["predicted"][dtype][what]
            ax.plot(config.gains, predicted, color=style["color"], linestyle=line)
    ax.plot([], [], color="0.4", label="mean field (wrong: dotted)")
    ax.set_ylim(-0.03, 1)
    over_gains(ax, config)


def draw_errors(ax, of: dict[str, Any], config: Config, rules=tuple(RULES)) -> None:
    for rule in rules:
        colour, line = RULES[rule]
        off = np.clip(typical(of, rule), FLOOR, ANNIHILATED)
        for role, marker, values in zip(ROLES, "^ov", off.T, strict=True):
            style = {"color": colour, "linestyle": line, "marker": marker}
            face = colour if rule == "exact" else "white"
            label = f"{rule}, {role} σ"
            ax.plot(config.gains, values, markerfacecolor=face, label=label, **style)
    ax.axhline(ANNIHILATED, color="0.7", linewidth=0.8, zorder=0)
    note = "annihilated: log σ = −inf"
    ax.text(config.gains[0], 2 * ANNIHILATED, note, va="bottom", color="0.3")
    ax.set(yscale="log", ylim=(FLOOR / 3, 1e3 * ANNIHILATED))
    over_gains(ax, config)


@lab.panel("tanh, float32: which σ are wrong?", GAIN, ERROR, legend="lower right")
def draw_tanh(ax, measured, config):
    draw_errors(ax, measured["tanh"]["float32"], config)


@lab.panel("tanh, float64 (exact: the truth itself)", GAIN, ERROR, legend="center left")
def draw_tanh_double(ax, measured, config):
    draw_errors(ax, measured["tanh"]["float64"], config, ["plain"])


@lab.panel("LSTM, float32: which σ are wrong?", GAIN, ERROR, legend="lower right")
def draw_lstm(ax, measured, config):
    draw_errors(ax, measured["LSTM"]["float32"], config)


if __name__ == "__main__":
    lab.main(measure)
