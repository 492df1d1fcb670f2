"""The zoo by name."""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jax import Array

from vgjax import _checks

RECURRENCE = {
    "recurrent": "gaussian",
    "gain": 1.0,
    "spectral_radius": None,
    "nonzeros": None,
}

HOMES = {
    "_plain": ("Recurrent", "Residual", "Antisymmetric"),
    "_unitary": ("Cayley", "Expm", "LRU"),
    "_timescales": ("Leaky", "Skip", "Dilated", "Clockwork"),
    "_gated": ("GRU", "MGU", "MinimalRNN", "LSTM", "ChronoLSTM"),
    "_normalised": (
        "LayerNormRNN",
        "LayerNormGRU",
        "LayerNormLSTM",
        "BatchNormRNN",
        "BatchNormLSTM",
    ),
    "_depth": (
        "Layers",
        "SharedLayers",
        "Dense",
        "ResidualDense",
        "BatchNormDense",
        "LayerNormDense",
        "TransformerBlock",
    ),
    "_attention": ("CausalAttention",),
}
"""The module of every class. Named here, because importing one loads Flax."""


class _Entry(NamedTuple):
    cls: str
    fixed: Mapping[str, Any] = MappingProxyType({})  # what makes it this cell
    defaults: Mapping[str, Any] = MappingProxyType({})  # what may be changed


def _layers(layer: str) -> dict[str, Any]:
    return {"layer": layer}


_PLAIN = ("linear", "tanh", "relu", "leaky_relu", "sigmoid")
_FROZEN = {"batch": None}

_ZOO = {
    **{name: _Entry("Recurrent", {"activation": name}) for name in _PLAIN},
    "irnn": _Entry(
        "Recurrent",
        {"activation": "relu"},
        {"recurrent": "identity", "input_std": 0.001},
    ),
    "smart_tanh": _Entry(
        "Recurrent",
        {"activation": "tanh"},
        {"recurrent": "sparse", "spectral_radius": 0.95, "input_std": 0.01},
    ),
    "leaky": _Entry("Leaky"),
    "skip": _Entry("Skip"),
    "dilated": _Entry("Dilated"),
    "clockwork": _Entry("Clockwork"),
    "gru": _Entry("GRU"),
    "mgu": _Entry("MGU"),
    "minimal_rnn": _Entry("MinimalRNN"),
    "lstm": _Entry("LSTM"),
    "chrono_lstm": _Entry("ChronoLSTM"),
    "layer_norm_rnn": _Entry("LayerNormRNN"),
    "layer_norm_gru": _Entry("LayerNormGRU"),
    "layer_norm_lstm": _Entry("LayerNormLSTM"),
    "batch_norm_rnn": _Entry("BatchNormRNN"),
    "batch_norm_lstm": _Entry("BatchNormLSTM"),
    "frozen_batch_norm_rnn": _Entry("BatchNormRNN", _FROZEN),
    "frozen_batch_norm_lstm": _Entry("BatchNormLSTM", _FROZEN),
    "residual": _Entry("Residual"),
    "antisymmetric": _Entry("Antisymmetric"),
    "cayley": _Entry("Cayley"),
    "expm": _Entry("Expm"),
    "lru": _Entry("LRU"),
    "attention": _Entry("CausalAttention"),
    "layers": _Entry("Layers", _layers("Dense")),
    "shared_layers": _Entry("SharedLayers", _layers("Dense")),
    "residual_layers": _Entry("Layers", _layers("ResidualDense")),
    "shared_residual_layers": _Entry("SharedLayers", _layers("ResidualDense")),
    "batch_norm_layers": _Entry("Layers", _layers("BatchNormDense")),
    "shared_batch_norm_layers": _Entry("SharedLayers", _layers("BatchNormDense")),
    "layer_norm_layers": _Entry("Layers", _layers("LayerNormDense")),
    "shared_layer_norm_layers": _Entry("SharedLayers", _layers("LayerNormDense")),
    "transformer": _Entry("Layers", _layers("TransformerBlock")),
    "shared_transformer": _Entry("SharedLayers", _layers("TransformerBlock")),
}


def names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_ZOO)


def is_over_depth(name: str) -> bool:
    """Return whether the steps of a cell are layers; it then takes ``inputs=0``.

    Args:
      name: one of `names`.

    Raises:
      ValueError: there is no such cell.
    """
    return "layer" in _entry(name).fixed


def options(name: str) -> dict[str, Any]:
    """Return the options of a cell with their defaults, beside key and dtype.

    Args:
      name: one of `names`.

    Returns:
      Default values by name; None where the docstring of the class says what follows.

    Raises:
      ValueError: there is no such cell.

    Examples:
      >>> import vgjax
      >>> vgjax.cells.options("irnn")["recurrent"]
      'identity'
      >>> vgjax.cells.options("chrono_lstm")
      {'Tmax': 100}
    """
    entry = _entry(name)
    found = _keywords(find_class(entry.cls))
    if "layer" in entry.fixed:
        layer = find_class(entry.fixed["layer"])
        found |= _keywords(find_class("Dense")) if _passes_on(layer) else {}
        found |= _keywords(layer)
        rows = importlib.import_module("vgjax.cells._depth").ROWS.get(layer)
        found |= {} if rows is None else {rows[0]: rows[2]}
    elif _passes_on(find_class(entry.cls)):
        found |= RECURRENCE
    found |= entry.defaults
    hidden = {"key", "dtype", *entry.fixed}
    return {option: found[option] for option in found if option not in hidden}


def build(
    name: str,
    inputs: int,
    features: int,
    *,
    key: Array,
    dtype: Any = None,
    **given: Any,
) -> Any:
    """Build a cell of the zoo, initialised as its paper says.

    Args:
      name: one of `names`.
      inputs: D, numbers in an input; 0 for networks over depth.
      features: units; see the cell for the size of its state.
      key: JAX key; under `jax.vmap` over keys, an ensemble.
      dtype: float32 or float64. Default: JAX's default float.
      given: `options` of the cell.

    Returns:
      A `flax.nnx` module and a step: ``cell(carry, x) -> (carry, y)``, with
      ``cell.initialize_carry(rngs=...)`` and ``cell.random_inputs(key, length)``.

    Raises:
      ValueError: no such cell, or what it says of its arguments does not hold.
      TypeError: the cell has no such option, or an argument is of a wrong type.

    Examples:
      >>> import jax, vgjax
      >>> cell = vgjax.cells.build("lstm", 2, 3, key=jax.random.key(0), forget_bias=2.0)
      >>> inputs = cell.random_inputs(jax.random.key(1), 50)
      >>> vgjax.rollout(cell, cell.initialize_carry(), inputs).states.shape
      (51, 6)
    """
    entry = _entry(name)
    known = options(name)
    for option in given:
        if option not in known:
            msg = (
                f"Argument `{option}` must be an option of {name!r}, but its options "
                f"are {', '.join(known) or 'none'}{_nearest(option, known)}."
            )
            raise TypeError(msg)
    fixed = dict(entry.fixed)
    if "layer" in fixed:
        fixed["layer"] = find_class(fixed["layer"])
    chosen = {**entry.defaults, **given, **fixed}
    return find_class(entry.cls)(inputs, features, key=key, dtype=dtype, **chosen)


def find_class(name: str) -> Any:
    """Import a class of `HOMES`, and Flax with it."""
    (home,) = (module for module, classes in HOMES.items() if name in classes)
    return getattr(importlib.import_module(f"vgjax.cells.{home}"), name)


def _entry(name: str) -> _Entry:
    return _ZOO[_checks.choice(name, "name", _ZOO, _nearest(name, _ZOO))]


def _nearest(word: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.4)
    return f"; the nearest is {near[0]!r}" if near else ""


def _keywords(cls: Any) -> dict[str, Any]:
    """Keyword-only arguments of a class, with their defaults."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _passes_on(cls: Any) -> bool:
    """Whether a class takes further keyword arguments, for another."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)
