"""The registry of the zoo: every cell by its names."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from jax import Array

from vgjax import _checks

FILES = (
    "_plain",
    "_timescales",
    "_gated",
    "_normalised",
    "_residual",
    "_unitary",
    "_attention",
    "_depth",
)
"""Where the cells are, in the order of `names`. Importing one of them loads Flax."""


@dataclass
class _Entry:
    checked: str
    fixed: Mapping[str, Any]  # what makes it this cell
    defaults: Mapping[str, Any]  # what may be changed
    cls: Any = field(init=False)


_ENTRIES: dict[str, _Entry] = {}


class About(NamedTuple):
    """What `about` says of a cell.

    Attributes:
      kind: what the cells of one file have in common.
      cls: its class; of a network over depth, that of its layer.
      what: first line of the class's docstring, with what the name fixes.
      source: where it was published.
      checked: what the tests hold it to, beside what they hold all cells to.
    """

    kind: str
    cls: type
    what: str
    source: str
    checked: str


def zoo(
    name: str,
    *,
    checked: str,
    defaults: Mapping[str, Any] | None = None,
    **fixed: Any,
) -> Callable[[Any], Any]:
    """Decorate a class of cells, which `build` then knows by this name.

    Args:
      name: one of the names of the class, which may have several.
      checked: what the tests hold it to, beside what they hold all cells to.
      defaults: options of the class whose default is another than the class's.
      fixed: options of the class that make it this cell, and cannot be changed.
    """
    # Entered now, because of several decorators the lowest is applied first.
    entry = _ENTRIES[name] = _Entry(checked, fixed, defaults or {})

    def enter(cls: Any) -> Any:
        entry.cls = cls
        return cls

    return enter


def names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_entries())


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
    known = _keywords(entry.cls)
    if layer := entry.fixed.get("layer"):
        known |= _keywords(layer)
        if layer.rows is not None:
            rows, _, default = layer.rows
            known |= {rows: default}
    known |= entry.defaults
    return {option: known[option] for option in known if option not in entry.fixed}


def about(name: str) -> About:
    """Return what a cell is, where it comes from and what it is checked against.

    Args:
      name: one of `names`.

    Raises:
      ValueError: there is no such cell.

    Examples:
      >>> import vgjax
      >>> vgjax.cells.about("gru").what
      'Gated recurrent unit, as in Flax.'
      >>> vgjax.cells.about("chrono_lstm").source
      'Tallec & Ollivier, ICLR (2018), eq. 16.'
    """
    entry = _entry(name)
    cls = entry.fixed.get("layer", entry.cls)
    text = inspect.getdoc(cls) or ""
    of_network = "" if cls is entry.cls else f"{_first_line(entry.cls)} "
    fixed = [f"{key}={x!r}" for key, x in entry.fixed.items() if key != "layer"]
    of_name = f" With {', '.join(fixed)}." if fixed else ""
    return About(
        kind=_first_line(sys.modules[cls.__module__]).rstrip("."),
        cls=cls,
        what=of_network + _first_line(cls) + of_name,
        source=" ".join(text.partition("\nSource:\n")[2].split()),
        checked=entry.checked,
    )


def _first_line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


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
    chosen = {**entry.defaults, **given, **entry.fixed}
    return entry.cls(inputs, features, key=key, dtype=dtype, **chosen)


def classes() -> dict[str, Any]:
    """The public classes of the zoo by name."""
    return {name: getattr(file, name) for file in _files() for name in file.__all__}


def _files() -> list[ModuleType]:
    return [importlib.import_module(f"vgjax.cells.{name}") for name in FILES]


def _entries() -> dict[str, _Entry]:
    # In the order of the files, not in that in which they were imported.
    place = {file.__name__: i for i, file in enumerate(_files())}
    entries = _ENTRIES.items()
    return dict(sorted(entries, key=lambda e: place.get(e[1].cls.__module__, 99)))


def _entry(name: str) -> _Entry:
    entries = _entries()
    return entries[_checks.choice(name, "name", entries, _nearest(name, entries))]


def _nearest(word: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.4)
    return f"; the nearest is {near[0]!r}" if near else ""


def _keywords(cls: Any) -> dict[str, Any]:
    """Options of a class with their defaults: what its `make` takes by keyword."""
    parameters = inspect.signature(cls.make).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
