"""Results to draw, made by hand, and what their pictures show."""

from typing import NamedTuple

import jax
import numpy as np
from matplotlib.colors import to_rgb

import vgjax.plots as plots
from vgjax.gradients import LagContributions, SignalToNoise
from vgjax.lyapunov import Lyapunov
from vgjax.products import Spectrum


class Other(NamedTuple):
    """As of `lyapunov_spectrum`: arrays of several shapes."""

    exponents: np.ndarray
    history: np.ndarray


def made(values, steps=None):
    values = np.asarray(values, float)
    steps = np.arange(1, len(values) + 1) if steps is None else np.asarray(steps)
    return Spectrum(steps, values, values.sum(axis=1))


def straight(rates, T=20):
    return made(np.arange(1, T + 1)[:, None] * np.asarray(rates))


def with_errors(spectrum, error):
    return spectrum._replace(error=np.broadcast_to(error, (20, 3)).copy())


def lag_parts(log_norm, fraction=None):
    log_norm = np.asarray(log_norm, float)
    T = len(log_norm)
    fraction = np.linspace(0.5, 1, T) if fraction is None else np.asarray(fraction)
    return LagContributions(np.arange(T), log_norm, {}, fraction, {})


def signal_and_noise(log_signal, log_noise):
    signal, noise = np.asarray(log_signal, float), np.asarray(log_noise, float)
    with np.errstate(invalid="ignore"):
        return SignalToNoise(
            np.arange(len(signal)), signal, noise, np.exp(signal - noise)
        )


def lyapunov(exponents, error=0.01, resolved=True, N=None):
    exponents = np.asarray(exponents, float)
    k = len(exponents)
    return Lyapunov(
        exponents,
        np.broadcast_to(np.asarray(error, float), k).copy(),
        exponents[None],
        np.array([100]),
        np.broadcast_to(resolved, k).copy(),
        np.eye(k if N is None else N)[:, :k],
    )


def flow_map(T, rate):
    lag = np.arange(T)[:, None] - np.arange(T)
    return np.where(lag >= 0, rate * lag, -np.inf)


def batch(results):
    """What `jax.vmap` gives: an axis in front of every array."""
    return jax.tree.map(lambda *a: np.stack(a), *results)


def lines(ax, style):
    return [line for line in ax.lines if line.get_linestyle() == style]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def luminance(colour):
    return np.dot(to_rgb(colour), [0.299, 0.587, 0.114])


FAN = straight(np.linspace(0.2, -3, 40), T=60)
FEW = straight([0.1, -0.3, -1.0])
DRAW = {
    "spectrum": lambda **o: plots.spectrum(
        straight([0.1, -1]), theory=np.zeros(2), **o
    ),
    "fan": lambda **o: plots.spectrum(straight(np.linspace(0, -1, 20)), **o),
    "eigenvalues": lambda **o: plots.eigenvalues(np.eye(2), **o),
    "rates": lambda **o: plots.rates(np.zeros(2), np.ones(2), **o),
    "lags": lambda **o: plots.lags(
        lag_parts(-0.3 * np.arange(30) + np.sin(np.arange(30))), theory=-0.3, **o
    ),
    "flow": lambda **o: plots.flow(flow_map(40, -0.4), **o),
    "noise": lambda **o: plots.noise(
        signal_and_noise(-0.3 * np.arange(30), -1 - 0.2 * np.arange(30)), **o
    ),
    "exponents": lambda **o: plots.exponents(lyapunov([0.2, 0.0, -0.5, -2.0]), **o),
    "compare": lambda **o: plots.compare({"before": FEW, "after": FAN}, **o),
}
# Of each picture, what it takes: several of these are a batch.
SEVERAL = {
    "spectrum": (plots.spectrum, [straight([0.1, r]) for r in (-1, -2, -3)]),
    "fan": (plots.spectrum, [straight(np.linspace(0, r, 20)) for r in (-1, -2)]),
    "eigenvalues": (plots.eigenvalues, [np.eye(2), 2 * np.eye(2)]),
    "rates": (lambda x, **o: plots.rates(x, x, **o), [np.zeros(2), np.ones(2)]),
    "lags": (plots.lags, [lag_parts(r * np.arange(30)) for r in (-0.3, -0.4)]),
    "flow": (plots.flow, [flow_map(20, r) for r in (-0.3, -0.5)]),
    "noise": (
        plots.noise,
        [signal_and_noise(r * np.arange(9), -np.ones(9)) for r in (-0.3, -0.4)],
    ),
    "exponents": (plots.exponents, [lyapunov([r, -0.5, -1]) for r in (0.2, 0.3)]),
    "compare": (
        lambda x, **o: plots.compare({"these": x, "FAN": FAN}, **o),
        [straight([0.1, r]) for r in (-1, -2, -3)],
    ),
}
