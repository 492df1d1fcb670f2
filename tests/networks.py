"""Jacobians of real networks, easy and hard, as float64. Imports nothing of ours.

Every family of cells meets every kind of input, from seeds that are fixed by its name.
Jacobians are complex steps, so that nothing cancels and what is zero is exactly zero.
"""

# ruff: noqa: ARG001 - all steps take the same arguments, and few need all of them

import json
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import balls
import numpy as np
import scipy.optimize
import systems


class Network(NamedTuple):
    """The state Jacobians of one run of one network."""

    family: str
    N: int  # full state
    T: int
    gain: float
    driver: str
    jacobians: np.ndarray  # (T, N, N), first step first
    times: tuple[int, ...]  # at which to look at the product


class Recipe(NamedTuple):
    """What a network is made from, or a function that makes the chain."""

    family: str
    N: int
    gain: float
    driver: str
    seed: int
    make: Callable[["Recipe", int], np.ndarray]
    T: int


DATA = Path(__file__).parent / "data"
INPUTS = 2

# Multiples of 16, so that a run has 16 evenly spaced records.
_LENGTH = {2: 496, 4: 496, 6: 496, 8: 400, 12: 304, 16: 208, 24: 160}


def networks(sample: int | None = None, T: int | None = None) -> Iterator[Network]:
    """Yield all networks, or so many of one small size spread over the families.

    T: stop after so many steps.
    """
    chosen = recipes()
    if sample is not None:
        # One size and one length are one program to compile. With so large a stride
        # families, gains and inputs all change from one to the next.
        small = [r for r in chosen if r.N == 4 and r.T == 496]
        chosen = [small[37 * i % len(small)] for i in range(sample)]
    for recipe in chosen:
        yield network(recipe, T)


def network(recipe: Recipe, T: int | None = None) -> Network:
    """Make one network, of `recipe.T` steps or fewer."""
    T = min(T or recipe.T, recipe.T)
    jacobians = recipe.make(recipe, T)
    times = tuple(sorted({max(1, T * k // 4) for k in (1, 2, 3, 4)}))
    return Network(*recipe[:2], T, *recipe[2:4], jacobians, times)


def recipes() -> list[Recipe]:
    """List every network before it is made, all families first and small ones first.

    Then chains made by hand, and the stored ones.
    """
    listed = []
    for sizes in ((4,), (8,), (2, 6, 12, 16, 24)):
        for turn in range(len(DRIVERS)):
            for i, (family, gain) in enumerate(_CELLS):
                N = sizes[(turn + i) % len(sizes)]
                driver = list(DRIVERS)[(turn + i) % len(DRIVERS)]
                listed.append(_recipe(family, N, gain, driver, _of_cell))
            if sizes == (8,):
                driver = list(DRIVERS)[turn]
                listed += [_recipe(f, 8, 0, driver, _of_trained) for f in _TRAINED]
        if sizes == (4,):
            listed += _chains()
    return listed + _awkward_chains() + _stored()


def _recipe(family, N, gain, driver, make, T=None):
    seed = zlib.crc32(f"{family} {N} {gain} {driver}".encode())
    return Recipe(family, N, gain, driver, seed, make, T or _LENGTH[N])


# Inputs -----------------------------------------------------------------------------


def _white(rng, T):
    return rng.standard_normal((T, INPUTS))


def _constant(rng, T):
    return np.repeat(rng.standard_normal((1, INPUTS)), T, axis=0)


def _periodic(rng, T):
    t = np.arange(T)[:, None]
    return 1.5 * np.sin(2 * np.pi * t / 23 + rng.uniform(0, 6, INPUTS))


def _bursts(rng, T):
    active = np.repeat(rng.random(T // 10 + 1) < 0.25, 10)[:T, None]
    return np.where(active, 4, 0.05) * rng.standard_normal((T, INPUTS))


def _strong_quiet(rng, T):
    strong = np.arange(T)[:, None] < T / 2
    return np.where(strong, 4, 0.01) * rng.standard_normal((T, INPUTS))


def _telegraph(rng, T):
    flips = np.where(rng.random((T, INPUTS)) < 0.04, -1, 1)
    return 2.0 * np.cumprod(flips, axis=0)


DRIVERS = {
    "white": _white,
    "constant": _constant,
    "periodic": _periodic,
    "bursts": _bursts,
    "strong, quiet": _strong_quiet,
    "telegraph": _telegraph,
}


# Cells: step(p, s, x, t), for states (..., N) that may be complex -------------------


def _times(W, s):
    return (W @ s[..., None])[..., 0]


def _affine(layer, s, x):
    W, U, b = layer
    return _times(W, s) + _times(U, x) + b


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _layers(count, rows=1.0):
    """Draw layers (W, U, b) with W of this gain, for states of `rows` N numbers."""

    def draw(rng, N, gain):
        n = int(rows * N)
        return [
            (
                gain * rng.standard_normal((n, n)) / np.sqrt(n),
                gain * rng.standard_normal((n, INPUTS)) / np.sqrt(INPUTS),
                0.2 * rng.standard_normal(n),
            )
            for _ in range(count)
        ]

    return draw


def _tanh(p, s, x, t):
    return np.tanh(_affine(p[0], s, x))


def _relu(p, s, x, t):
    a = _affine(p[0], s, x)
    return np.where(a.real > 0, a, 0)


def _residual(p, s, x, t):
    return s + 0.1 * np.tanh(_affine(p[0], s, x))


def _leaky(p, s, x, t):
    # From 1 to 50 steps.
    rate = np.geomspace(1, 0.02, s.shape[-1])
    return (1 - rate) * s + rate * np.tanh(_affine(p[0], s, x))


def _clockwork(p, s, x, t):
    N = s.shape[-1]
    period = np.array([1, 2, 4, 8])[np.arange(N) * 4 // N]
    W, U, b = p[0]
    W = np.where(period[:, None] <= period, W, 0)
    return np.where(t % period == 0, np.tanh(_affine((W, U, b), s, x)), s)


def _gru(p, s, x, t):
    r, z = _sigmoid(_affine(p[0], s, x)), _sigmoid(_affine(p[1], s, x))
    W, U, b = p[2]
    n = np.tanh(_times(U, x) + r * (_times(W, s) + b))
    return (1 - z) * n + z * s


def _mgu(p, s, x, t):
    f = _sigmoid(_affine(p[0], s, x))
    W, U, b = p[1]
    n = np.tanh(_times(U, x) + f * (_times(W, s) + b))
    return (1 - f) * n + f * s


def _minimal(p, s, x, t):
    _, U, b = p[1]
    z = np.tanh(_times(U, x) + b)
    # What was drawn for the gate's input weights is too narrow: it sees z.
    u = _sigmoid(_times(p[0][0], s) + _times(p[1][0], z) + p[0][2])
    return u * s + (1 - u) * z


def _lstm(p, s, x, t):
    c, h = np.split(s, 2, axis=-1)
    i, f, o = (_sigmoid(_affine(layer, h, x)) for layer in p[:3])
    c = f * c + i * np.tanh(_affine(p[3], h, x))
    return np.concatenate([c, o * np.tanh(c)], axis=-1)


def _layer_norm(p, s, x, t):
    a = _affine(p[0], s, x)
    a = a - a.mean(-1, keepdims=True)
    return np.tanh(a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-5))


def _draw_lru(rng, N, gain):
    radius = np.sqrt(rng.uniform(0.8**2, 0.999**2, N // 2))
    angle = rng.uniform(0, np.pi, N // 2)
    return radius * np.cos(angle), radius * np.sin(angle), _layers(1)(rng, N, 1)[0][1]


def _lru(p, s, x, t):
    """Complex units, as their real parts and then their imaginary ones."""
    real, imaginary, U = p
    a, b = np.split(s, 2, axis=-1)
    turned = [real * a - imaginary * b, imaginary * a + real * b]
    return np.concatenate(turned, axis=-1) + _times(U, x)


def _rg_lru(p, s, x, t):
    _, U, b = p[0]
    # Of the paper: powers of a = sigmoid(Lambda), a^c between .9 and .999.
    decay = -np.log(np.linspace(0.9, 0.999, s.shape[-1]))
    log_a = -decay * _sigmoid(_times(U, x) + b) * 8
    gate = _sigmoid(_times(p[1][1], x))
    return np.exp(log_a) * s + np.sqrt(-np.expm1(2 * log_a)) * gate * _times(p[2][1], x)


def _switching(p, s, x, t):
    return _times(p[2 * (x[..., 0] > 0) + (x[..., 1] > 0)][0], s)


class _Cell(NamedTuple):
    step: Callable
    draw: Callable


_STEPS = {
    "tanh": _Cell(_tanh, _layers(1)),
    "relu": _Cell(_relu, _layers(1)),
    "leaky": _Cell(_leaky, _layers(1)),
    "lru": _Cell(_lru, _draw_lru),
    "residual": _Cell(_residual, _layers(1)),
    "rg-lru": _Cell(_rg_lru, _layers(3)),
    "switching": _Cell(_switching, _layers(4)),
    "gru": _Cell(_gru, _layers(3)),
    "lstm": _Cell(_lstm, _layers(4, 0.5)),
    "clockwork": _Cell(_clockwork, _layers(1)),
    "mgu": _Cell(_mgu, _layers(2)),
    "minimal": _Cell(_minimal, _layers(2)),
    "layer-norm": _Cell(_layer_norm, _layers(1)),
}

_GAINS = {
    "tanh": (0.5, 0.9, 1.2, 2, 5, 10),
    "relu": (1.4,),
    "leaky": (1.5,),
    "lru": (1,),
    "residual": (1.5,),
    "rg-lru": (1,),
    "switching": (1,),
    "gru": (1, 3, 6),
    "lstm": (1, 3, 6),
    "clockwork": (1, 2, 5),
    "mgu": (1, 5),
    "minimal": (1, 5),
    "layer-norm": (1,),
}
_CELLS = [(family, gain) for family, gains in _GAINS.items() for gain in gains]


def _of_cell(recipe, T):
    rng = np.random.default_rng(recipe.seed)
    cell = _STEPS[recipe.family]
    p = cell.draw(rng, recipe.N, recipe.gain)
    inputs = DRIVERS[recipe.driver](rng, recipe.T)
    start = 0.1 * rng.standard_normal(recipe.N)
    return _jacobians(partial(cell.step, p), start, inputs[:T])


def _jacobians(step, s, inputs):
    """State Jacobians of ``step(s, x, t)``, (T, N, N)."""
    N, h = len(s), 1e-30
    found = []
    for t, x in enumerate(inputs):
        # All directions are one batch: row j of the result is column j of J.
        moved = step(s + 1j * h * np.eye(N), x, t)
        found.append(moved.imag.T / h)
        s = moved[0].real
    return np.array(found)


# Trained: keep the sign of the last pulse, and count down from it -------------------


_TRAINED = {"trained tanh": "tanh", "trained gru": "gru", "trained lstm": "lstm"}


def _of_trained(recipe, T):
    rng = np.random.default_rng(recipe.seed)
    step = partial(_STEPS[_TRAINED[recipe.family]].step, _trained(recipe.family))
    inputs = DRIVERS[recipe.driver](rng, recipe.T)
    return _jacobians(step, np.zeros(recipe.N), inputs[:T])


@cache
def _trained(family, N=8, steps=16, batch=12, evaluations=25):
    """Parameters of a cell after a few steps of Levenberg and Marquardt's method."""
    rng = np.random.default_rng(zlib.crc32(family.encode()))
    cell = _STEPS[_TRAINED[family]]
    shapes = cell.draw(rng, N, 0.8)
    pulses = (rng.random((steps, batch, INPUTS)) < 0.2) * rng.choice(
        [-1.0, 1.0], (steps, batch, INPUTS)
    )
    target = np.zeros((batch,))
    targets = []
    for x in pulses:
        target = np.where(x[:, 0] != 0, x[:, 0], 0.9 * target) + 0.3 * x[:, 1]
        targets.append(target)

    def errors(flat):
        """(..., steps * batch) for parameters (..., P)."""
        p, readout = _unflattened(flat, shapes, N)
        s = np.zeros((*flat.shape[:-1], batch, N), flat.dtype)
        outputs = []
        for t, x in enumerate(pulses):
            s = cell.step(p, s, x, t)
            outputs.append((s * readout).sum(-1))
        wrong = np.stack(outputs, -2) - np.array(targets)
        return wrong.reshape(*flat.shape[:-1], -1)

    def slopes(flat):
        moved = errors(flat + 1e-30j * np.eye(len(flat)))
        return moved.imag.T / 1e-30

    start = np.concatenate([a.ravel() for layer in shapes for a in layer])
    start = np.concatenate([start, rng.standard_normal(N) / np.sqrt(N)])
    fit = scipy.optimize.least_squares(
        errors, start, slopes, method="trf", max_nfev=evaluations
    )
    p, _ = _unflattened(fit.x, shapes, N)
    # The batch axis of training is not needed any more.
    return [(W[0], U[0], b[0]) for W, U, b in p]


def _unflattened(flat, shapes, N):
    """Layers with an axis for the batch, and the weights of a linear readout."""
    p, begin = [], 0
    for layer in shapes:
        arrays: list[Any] = []
        for a in layer:
            part = flat[..., None, begin : begin + a.size]
            arrays.append(part.reshape(*part.shape[:-1], *a.shape))
            begin += a.size
        p.append(tuple(arrays))
    return p, flat[..., None, begin : begin + N]


# Chains of `systems`, whose first purpose is a table of exact answers ---------------


def _chains():
    """Recipes of chains that are no networks, under the driver "none"."""
    listed = []
    for N in (4, 8):
        listed.append(_recipe("telescoping", N, 1, "none", _telescoping))
        listed.append(_recipe("ring", 2 * N, 1, "none", _ring))
        for gain in (0.9, 1.2, 3.0):
            listed.append(_recipe("tanh chain", N, gain, "none", _tanh_chain))
        for gain in (8.0, 16.0, 32.0):
            listed.append(_recipe("saturated rows", N, gain, "none", _tanh_chain, 48))
            listed.append(_recipe("saturated columns", N, gain, "none", _columns, 48))
        listed.append(_recipe("gaussian", N, 1, "none", _gaussian))
    listed.append(_recipe("tanh chain", 16, 1.2, "none", _tanh_chain))
    listed.append(_recipe("gaussian", 16, 1, "none", _gaussian))
    return listed


def _awkward_chains():
    """Recipes of chains that repeat, lose rank, keep lengths or leave the scale."""
    return [
        _recipe("shear", 2, 1, "none", _shear, 208),
        _recipe("cat map", 2, 1, "none", _cat_map),
        _recipe("rank one", 4, 1, "none", _rank_one, 96),
        _recipe("near-orthogonal", 16, 0.99, "none", _near_orthogonal, 1008),
        _recipe("triangular", 4, 1, "none", _triangular),
        _recipe("times exp(300)", 6, 300, "none", _shifted, 48),
        _recipe("times exp(-300)", 6, -300, "none", _shifted, 48),
    ]


def _shear(recipe, T):
    return np.repeat([[[0.9, 5.0], [0.0, 0.9]]], T, 0)


def _cat_map(recipe, T):
    return np.repeat([[[2.0, 1.0], [1.0, 1.0]]], T, 0)


def _rank_one(recipe, T):
    return np.repeat([np.outer([1.0, -2, 3, 0], [2.0, 1, 1, 5])], T, 0)


def _near_orthogonal(recipe, T):
    rng = np.random.default_rng(recipe.seed)
    return recipe.gain * np.array([systems.orthogonal(rng, recipe.N) for _ in range(T)])


def _triangular(recipe, T):
    step = np.diag([1.01, 0.97, 0.9, 0.8]) + np.diag([0.3, -0.2, 0.4], 1)
    return np.repeat([step], T, 0)


def _shifted(recipe, T):
    chain = systems.tanh_chain(recipe.seed, recipe.N, 1.2, T)
    chain[20] *= np.exp(recipe.gain)
    return chain


def _stored():
    """Recipes of networks that the first development versions had wrong."""
    listed = []
    for path in sorted(DATA.glob("*.npz")):
        with np.load(path) as case:
            about = json.loads(str(case["info"]))
        family, driver = about["family"].split()[0], about["driver"].replace("_", ", ")
        make = partial(_read, path)
        # The last number of the name, for some have all else in common.
        driver = f"{driver} {path.stem[-3:]}"
        T = about["T"] // 16 * 16  # records of the bench are sixteenths
        listed.append(
            _recipe(f"stored {family}", about["N"], about["gain"], driver, make, T)
        )
    return listed


def _read(path, recipe, T):
    with np.load(path) as case:
        return case["jacobians"][:T]


def _telescoping(recipe, T):
    return systems.telescoping(recipe.seed, systems.cosines(T, recipe.N))[0]


def _ring(recipe, T):
    return systems.ring(recipe.N, 0.1, T)[0]


def _tanh_chain(recipe, T):
    return systems.tanh_chain(recipe.seed, recipe.N, recipe.gain, T)


def _columns(recipe, T):
    return balls.reverse(_tanh_chain(recipe, T))


def _gaussian(recipe, T):
    return systems.gaussian_chain(recipe.seed, recipe.N, T)
