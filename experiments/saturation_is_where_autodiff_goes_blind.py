"""Saturation is where automatic differentiation goes blind, and need not.

Question:   how many rows of the state Jacobians, and which singular values of their
            product, are lost when the activations of a recurrent cell saturate, because
            tanh' is taken as 1 - tanh^2? How many with exact derivatives?
Prediction: the fraction of rows lost or wrong in the tanh network, by mean field: the
            arguments of tanh are N(0, q), q = g^2 E tanh^2(sqrt(q) z) + 1 at gain g,
            and JAX's derivative of tanh is zero, or off by 1 %, where it is. The sum of
            all log sigma, from log tanh' in closed form.
Expect:     1. tanh: at gain 1 no row is lost or wrong, in float32 or float64.
            2. tanh, gain 16: autodiff loses more than half of the rows in float32, and
               more than a tenth in float64.
            3. tanh: the fractions lost and wrong are those of mean field to 0.1, at
               every gain in both dtypes, although N is only 8.
            4. tanh, gain 16, float32: the median network has not one direction left:
               plain derivatives give log sigma = -inf for all.
            5. Exact derivatives lose no row, but in float32 those too small for a
               normal number of float32, of the size of 1e-38.
            6. tanh: exact derivatives in float32 are within 0.01 nats of the truth, for
               every log sigma that is finite; in float64 their sum is the closed form's
               to 1e-8 of itself.
            7. LSTM: not one row is lost at any gain, for a row is a sum over several
               gates; yet at gain 16 in float32 the smallest log sigma of the median
               network is off by more than 0.1 nats, with exact derivatives too.
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
those of vgjax.cells.exact. Weights are the same in both dtypes; gain is that of the
recurrent matrices. Sizes and expectations were chosen on one network of each kind, of
seed 0; the default seed is 1.
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
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vgjax

jax.config.update("jax_enable_x64", True)

CELLS = {"tanh": nnx.SimpleCell, "LSTM": nnx.LSTMCell}
DTYPES = ("float32", "float64")
ROLES = ("largest", "median", "smallest")


@dataclass(frozen=True)
class Config:
    features: int = 8  # hidden features of each cell, units
    inputs: int = 4  # D, numbers in an input
    steps: int = 50  # T, time steps
    gains: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)  # W_ij ~ N(0, gain^2/N)
    networks: int = 15  # of each cell at each gain
    seed: int = 1  # of the weights and the inputs


TOY = Config(features=2, steps=20, gains=(1.0, 16.0), networks=4)


def measure(config: Config) -> dict[str, Any]:
    """Differentiate every cell along its own trajectory, plainly and exactly."""
    measured = {"predicted": predicted_fractions(config)}
    for name in CELLS:
        measured[name] = {}
        for dtype in DTYPES:
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

    twin = vgjax.cells.exact(build(name, gain, seed, "float64", config))
    carry64 = zeros(name, "float64", config)
    true = jacobians_at(twin, carry64, states.astype(float), inputs.astype(float))
    plain = jacobians_at(cell, carry, states, inputs)
    exact = jacobians_at(vgjax.cells.exact(cell), carry, states, inputs)
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

    def draw(dtype):
        deviation = gain / config.features**0.5
        return CELLS[name](
            config.inputs,
            config.features,
            dtype=dtype,
            param_dtype=dtype,
            recurrent_kernel_init=nnx.initializers.normal(deviation),
            rngs=nnx.Rngs(seed),
        )

    cell, weights = draw(dtype), nnx.state(draw("float32"))
    nnx.update(cell, jax.tree.map(lambda a: a.astype(dtype), weights))
    return cell


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
    W, U, b, h, x = (
        np.asarray(a[...], float)
        for a in (
            cell.dense_h.kernel,
            cell.dense_i.kernel,
            cell.dense_i.bias,
            states,
            inputs,
        )
    )
    size = np.abs(h @ W + x @ U + b)
    log_slope = 2 * (np.log(2) - size - np.log1p(np.exp(-2 * size)))
    return log_slope.sum() + len(h) * np.linalg.slogdet(W)[1]


def predicted_fractions(config: Config) -> dict[str, Any]:
    """By mean field, {dtype: {"lost": (gains,), "wrong": (gains,)}}."""
    z = np.linspace(-8, 8, 16_001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    arguments = []
    for gain in config.gains:
        q = 1 + gain**2
        for _ in range(100):
            q = 1 + gain**2 * (weight @ np.tanh(np.sqrt(q) * z) ** 2)
        arguments.append(np.sqrt(q) * z)
    return {
        dtype: {what: rows @ weight for what, rows in where_blind(arguments, dtype)}
        for dtype in DTYPES
    }


def where_blind(arguments: list[np.ndarray], dtype: str) -> list[tuple[str, Any]]:
    """Return where JAX's derivative of tanh is zero, and where it is off by 1 %."""
    a = jnp.asarray(np.stack(arguments), dtype)
    true = np.asarray(slopes(vgjax.activations.tanh, a), float)
    found = np.asarray(slopes(jnp.tanh, a), float)
    off = np.abs(found - true) > 0.01 * true
    return [("lost", (found == 0) & (true > 0)), ("wrong", off)]


@partial(jax.jit, static_argnums=0)
def slopes(fn: Callable, a: Array) -> Array:
    return jax.vmap(jax.vmap(jax.grad(fn)))(a)


def error(of: dict[str, Any], rule: str) -> np.ndarray:
    """(gains, networks, N) nats; inf where a direction is annihilated and is not."""
    return np.abs(of[rule] - of["true"])


def check(measured: dict[str, Any], config: Config) -> list[Expectation]:
    """Compare what was measured with what the docstring expects."""
    lowest, highest = (f"gain {config.gains[k]:g}" for k in (0, -1))
    tanh = measured["tanh"]
    wrong = max(float(tanh[dtype]["wrong"][0].max()) for dtype in DTYPES)
    lost = {dtype: float(tanh[dtype]["lost"][-1].mean()) for dtype in DTYPES}
    off = {
        what: max(np.abs(apart(measured, what, dtype)).max() for dtype in DTYPES)
        for what in ("lost", "wrong")
    }
    left = np.median(np.isfinite(tanh["float32"]["plain"][-1]).sum(axis=1))
    return [
        Expectation(
            f"1. tanh, {lowest}: no row is wrong",
            wrong == 0,
            f"fraction of rows in the worst network: {wrong:.3f}",
        ),
        Expectation(
            f"2. tanh, {highest}: lost more than 0.5 in float32, 0.1 in float64",
            lost["float32"] > 0.5 and lost["float64"] > 0.1,
            listed(lost, ".3f"),
        ),
        Expectation(
            "3. tanh: lost and wrong are those of mean field to 0.1",
            bool(max(off.values()) <= 0.1),
            "furthest: " + listed(off, ".3f"),
        ),
        Expectation(
            f"4. tanh, {highest}, float32: no direction is left in the median network",
            bool(left == 0),
            f"{left:g} of {config.features} left",
        ),
        *check_exact(measured, highest),
    ]


def check_exact(measured: dict[str, Any], highest: str) -> list[Expectation]:
    """Compare what exact derivatives gave with what the docstring expects."""
    tanh, lstm = measured["tanh"], measured["LSTM"]
    gone = {
        dtype: max(float(measured[name][dtype]["exact_lost"].max()) for name in CELLS)
        for dtype in DTYPES
    }
    largest = max(
        float(measured[name]["float32"]["largest_exact_lost"].max()) for name in CELLS
    )
    off = error(tanh["float32"], "exact")
    furthest = float(np.max(off[np.isfinite(off)]))
    total = tanh["float64"]["exact"].sum(axis=2)
    volume_off = float(np.max(np.abs(total / tanh["float64"]["volume"] - 1)))
    lstm_lost = max(float(lstm[dtype]["lost"].max()) for dtype in DTYPES)
    smallest = {
        rule: float(typical(lstm["float32"], rule)[-1, -1])
        for rule in ("plain", "exact", "rounded")
    }
    return [
        Expectation(
            "5. exact: no row lost but those of the size of 1e-38 in float32",
            gone["float64"] == 0 and largest < 1e-36,
            f"worst network: {listed(gone, '.3f')}; largest entry lost {largest:.0e}",
        ),
        Expectation(
            "6. tanh, exact: float32 to 0.01 nats, float64 sums to 1e-8",
            furthest < 0.01 and volume_off < 1e-8,
            f"furthest: {furthest:.1e} nats, and {volume_off:.1e} of the sum",
        ),
        Expectation(
            f"7. LSTM: no row lost, yet at {highest} in float32 off by 0.1 nats",
            lstm_lost == 0 and min(smallest["plain"], smallest["exact"]) > 0.1,
            f"lost {lstm_lost:.3f}; smallest log σ off by {listed(smallest, '.2f')}",
        ),
    ]


def apart(measured: dict[str, Any], what: str, dtype: str) -> np.ndarray:
    """(gains,): mean over networks of a fraction of rows, less the predicted one."""
    found = measured["tanh"][dtype][what].mean(axis=1)
    return found - measured["predicted"][dtype][what]


def listed(numbers: dict[str, float], form: str) -> str:
    """Return "float32 0.62, float64 0.13"."""
    return ", ".join(f"{name} {x:{form}}" for name, x in numbers.items())


def print_tables(measured: dict[str, Any], config: Config) -> None:
    cases = [(name, dtype) for name in CELLS for dtype in DTYPES]
    rows = [
        [f"{name} {dtype}, gain {gain:g}", *fractions(measured, name, dtype, k)]
        for name, dtype in cases
        for k, gain in enumerate(config.gains)
    ]
    _results.table(
        "Rows of the state Jacobians: fractions lost and wrong, and what is left",
        ["cell", "lost", "mean field", "wrong", "mean field", "exact lost", "left"],
        rows,
        f"Means over {config.networks} networks of {config.steps} steps. Wrong: off by "
        "more than 1 %,\nlost ones included. Exact lost: with exact derivatives. Left: "
        "fraction of log σ that\nplain derivatives do not make −inf.",
    )
    rows = [
        [f"{name} {dtype}, gain {gain:g}", *errors(measured[name][dtype], k)]
        for name, dtype in cases
        for k, gain in enumerate(config.gains)
    ]
    _results.table(
        f"Error of log σ of the product of {config.steps} state Jacobians, nats",
        ["cell", *ROLES, f"exact: {ROLES[0]}", *ROLES[1:]],
        rows,
        "Plain derivatives, then exact ones: largest, median and smallest log σ.\n"
        "Median over networks; inf: log σ is −inf, and should not be.\n"
        "Exact derivatives in float64 are the truth.",
    )


def fractions(measured: dict[str, Any], name: str, dtype: str, k: int) -> list[str]:
    of, predicted = measured[name][dtype], measured["predicted"][dtype]
    cells = []
    for what in ("lost", "wrong"):
        cells.append(f"{of[what][k].mean():.3f}")
        cells.append(f"{predicted[what][k]:.3f}" if name == "tanh" else "–")
    left = np.isfinite(of["plain"][k]).mean()
    return [*cells, f"{of['exact_lost'][k].mean():.3f}", f"{left:.3f}"]


def errors(of: dict[str, Any], k: int) -> list[str]:
    exact = typical(of, "exact")[k]
    # In float64 they are compared with themselves.
    exact = ["truth"] * 3 if np.all(exact == 0) else [f"{x:.1e}" for x in exact]
    return [*(f"{x:.1e}" for x in typical(of, "plain")[k]), *exact]


def typical(of: dict[str, Any], rule: str) -> np.ndarray:
    """(gains, 3): median over networks of the error of each of `ROLES`, nats."""
    off = error(of, rule)
    N = off.shape[2]
    return np.median(off[:, :, [0, (N - 1) // 2, N - 1]], axis=1)


_DTYPES = {"float32": ("#b2560d", "s"), "float64": ("#2f7fbc", "o")}
_RULES = {"plain": ("#b2560d", "--"), "exact": ("#111111", "-")}
_MARKERS = dict(zip(ROLES, ("^", "o", "v"), strict=True))
_FLOOR, _ANNIHILATED = 1e-16, 1e4  # where errors of 0 and inf are drawn, nats


def draw(measured: dict[str, Any], config: Config) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    _draw_fractions(axes[0, 0], measured, config)
    _draw_errors(axes[0, 1], measured["tanh"]["float32"], config, _RULES)
    _draw_errors(axes[1, 0], measured["tanh"]["float64"], config, ["plain"])
    _draw_errors(axes[1, 1], measured["LSTM"]["float32"], config, _RULES)
    axes[0, 1].set_title("tanh network, float32")
    axes[1, 0].set_title("tanh network, float64 (exact: the truth itself)")
    axes[1, 1].set_title("LSTM, float32")
    axes[0, 1].legend(frameon=False, loc="lower right", ncols=2)
    axes[1, 1].legend(frameon=False, loc="lower right", ncols=2)
    axes[1, 0].legend(frameon=False, loc="center left")
    return figure


def _draw_fractions(ax: Axes, measured: dict[str, Any], config: Config) -> None:
    for dtype, (colour, marker) in _DTYPES.items():
        for what, line, face in (("lost", "-", colour), ("wrong", ":", "none")):
            ax.plot(
                config.gains,
                measured["tanh"][dtype][what].mean(axis=1),
                color=colour,
                linestyle="",
                marker=marker,
                markersize=8,
                markerfacecolor=face,
                label=f"{dtype}, {what}",
            )
            predicted = measured["predicted"][dtype][what]
            ax.plot(config.gains, predicted, color=colour, linestyle=line)
    ax.plot([], [], color="0.4", label="lost, mean field")
    ax.plot([], [], color="0.4", linestyle=":", label="wrong, mean field")
    ax.set(
        title="tanh network: rows of its state Jacobians",
        ylabel="fraction of rows (dimensionless)",
        ylim=(-0.03, 1),
    )
    _gain_axis(ax, config)
    ax.legend(frameon=False, loc="upper left")


def _draw_errors(ax: Axes, of: dict[str, Any], config: Config, rules: Any) -> None:
    for rule in rules:
        colour, line = _RULES[rule]
        off = np.clip(typical(of, rule), _FLOOR, _ANNIHILATED)
        for role, values in zip(ROLES, off.T, strict=True):
            ax.plot(
                config.gains,
                values,
                color=colour,
                linestyle=line,
                marker=_MARKERS[role],
                markerfacecolor=colour if rule == "exact" else "white",
                label=f"{rule}, {role} σ",
            )
    ax.axhline(_ANNIHILATED, color="0.7", linewidth=0.8, zorder=0)
    note = "annihilated: log σ = −inf"
    ax.text(config.gains[0], 2 * _ANNIHILATED, note, va="bottom", color="0.3")
    ax.set(
        yscale="log",
        ylim=(_FLOOR / 3, 1e3 * _ANNIHILATED),
        ylabel="error of log σ, median network (nats)",
    )
    _gain_axis(ax, config)


def _gain_axis(ax: Axes, config: Config) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(config.gains, [f"{gain:g}" for gain in config.gains])
    ax.set_xlabel("gain g of the recurrent matrix (dimensionless)")


def main(config: Config = Config(), out: Path = _results.RESULTS) -> None:
    measured = measure(config)
    print_tables(measured, config)
    expectations = check(measured, config)
    figure = draw(measured, config)
    _results.conclude(__file__, config, measured, expectations, figure, out)


if __name__ == "__main__":
    _results.command_line(main, default=Config(), toy=TOY, description=__doc__)
