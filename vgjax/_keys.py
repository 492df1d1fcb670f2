"""Keys of Python values: equal where two values mean the same to a program.

A value is looked through as far as it goes: the code of a function, what it closes
over, and the globals that it reads; the attributes of an object. What cannot be looked
through counts as equal to itself only, or makes the key worthless: as the caller asks.
"""

import builtins
import dis
import enum
import functools
import sys
import types
import weakref
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

# Taken to stay as they are: what they compute is decided by their arguments.
_OF_OURS_AND_OTHERS = ("jax", "jaxlib", "numpy", "flax", "optax", "equinox", "vgjax")
_OF_PYTHON = ("math", "cmath", "operator", "functools", "itertools", "dataclasses")
_LIBRARIES = frozenset((*_OF_OURS_AND_OTHERS, *_OF_PYTHON, "typing", "abc", "enum"))
# What a function could read by these, nobody sees.
_OPAQUE = (eval, exec, globals, locals, vars, open, input, id, __import__)
# Objects, or kilobytes, in a fingerprint: looking through more may cost more than a
# trace, some milliseconds.
_MOST_LOOKED_AT = 5_000
# Attributes of a class that say nothing of what its methods compute.
_OF_NO_MATTER = frozenset(
    f"__{name}__"
    for name in (
        *("dict", "weakref", "slots", "doc", "module", "qualname", "firstlineno"),
        *("annotations", "annotate", "annotate_func", "annotations_cache"),
        *("match_args", "dataclass_fields", "dataclass_params", "static_attributes"),
        *("abstractmethods", "orig_bases", "parameters", "type_params"),
    )
) | {"_abc_impl"}


class Unknown(Exception):
    """A value has no key."""


def jaxpr_key(jaxpr: core.Jaxpr) -> Hashable:
    """All that decides what a jaxpr computes, its variables numbered as they come.

    Where nothing better is known an object is equal to itself only: then a program is
    compiled once more than it need be, and never confused with another.
    """
    return _jaxpr_key(jaxpr, _Walk(is_strict=False))


def fingerprint(value: Any) -> tuple[Hashable, frozenset[int]] | None:
    """All that decides what a trace of `value` finds, or None if that cannot be known.

    Also the ids of the `jax.Array` objects in it. The key holds none of them alive.
    """
    walk = _Walk(is_strict=True)
    try:
        return _key(value, walk), frozenset(walk.arrays)
    except (Unknown, RecursionError):
        return None


class _Same:
    """Equal to itself only; keeps the object alive, so that its id is not reused."""

    __slots__ = ("it",)

    def __init__(self, it: Any):
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


class _SameArray:
    """Equal to itself only while the array lives."""

    __slots__ = ("place", "reference")

    def __init__(self, it: jax.Array):
        self.place, self.reference = id(it), weakref.ref(it)

    def __hash__(self) -> int:
        return self.place

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _SameArray):
            return False
        mine = self.reference()
        return mine is not None and mine is other.reference()


class _Walk:
    """Objects met on the way, by id, so that cycles end. Keeps them alive meanwhile."""

    def __init__(self, *, is_strict: bool) -> None:
        self.is_strict = is_strict
        self.met: dict[int, tuple[int, Any]] = {}
        self.arrays: list[int] = []
        self.looked_at = 0

    def look_at(self, n: int) -> None:
        self.looked_at += n
        if self.is_strict and self.looked_at > _MOST_LOOKED_AT:
            raise Unknown

    def first_time(self, it: Any) -> bool:
        if id(it) in self.met:
            return False
        self.look_at(1)
        self.met[id(it)] = (len(self.met), it)
        return True

    def place(self, it: Any) -> tuple[str, int]:
        return ("met", self.met[id(it)][0])

    def same(self, it: Any) -> Hashable:
        """Key of what cannot be looked through."""
        if self.is_strict:
            raise Unknown
        return _Same(it)

    def array(self, it: jax.Array) -> Hashable:
        if not self.is_strict:
            return _Same(it)
        if isinstance(it, Tracer):
            raise Unknown
        self.arrays.append(id(it))
        return _SameArray(it)


def _jaxpr_key(jaxpr: core.Jaxpr, walk: _Walk) -> Hashable:
    number: dict[Any, int] = {}

    def bound(variables):
        for variable in variables:
            number[variable] = len(number)
        return tuple(variable.aval for variable in variables)

    def read(atom):
        if isinstance(atom, core.Literal):
            return (atom.aval, _key(atom.val, walk))
        return number[atom]

    def step(eqn):
        ins = tuple(map(read, eqn.invars))
        params = tuple((name, _key(v, walk)) for name, v in sorted(eqn.params.items()))
        return (eqn.primitive, ins, bound(eqn.outvars), params)

    # The generator runs in order: a variable is bound before it is read.
    arguments = (bound(jaxpr.constvars), bound(jaxpr.invars))
    steps = tuple(map(step, jaxpr.eqns))
    return (arguments, steps, tuple(map(read, jaxpr.outvars)))


def _key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    # The most common first: this is walked at each call.
    if kind is str or value is None:
        return value
    if kind in (bool, int, bytes):
        return (kind, value)  # 1 == True
    if kind is tuple:
        walk.look_at(len(value))
        return (tuple, *[_key(v, walk) for v in value])
    if kind in (float, complex):
        return (kind, repr(value))  # 0.0 == -0.0, and NaN is not NaN
    if isinstance(value, jax.Array):  # also a tracer
        return walk.array(value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        walk.look_at(value.nbytes // 1000)
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, (tuple, list, dict)):
        walk.look_at(len(value))
        if getattr(value, "__dict__", None):  # of a class of the user's
            return walk.same(value)
    if isinstance(value, (tuple, list)):
        return (kind, tuple(_key(v, walk) for v in value))
    if isinstance(value, dict):
        return (kind, tuple((_key(k, walk), _key(v, walk)) for k, v in value.items()))
    if isinstance(value, core.ClosedJaxpr):
        consts = tuple(_key(c, walk) for c in value.consts)
        return (_jaxpr_key(value.jaxpr, walk), consts)
    if isinstance(value, core.Jaxpr):
        return _jaxpr_key(value, walk)
    if isinstance(value, jax.tree_util.PyTreeDef):
        return _structure_key(value, walk)
    if isinstance(value, type):
        return _class_key(value, walk)
    return _object_key(value, walk)


def _structure_key(structure: Any, walk: _Walk) -> Hashable:
    data = structure.node_data()
    if data is None:  # a leaf
        return None
    kind, rest = data
    children = [_structure_key(child, walk) for child in structure.children()]
    return (_key(kind, walk), _key(rest, walk), *children)


def _object_key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    if isinstance(value, types.FunctionType):
        return (
            _function_key(value, walk) if walk.first_time(value) else walk.place(value)
        )
    if isinstance(value, types.MethodType):
        return ("method", _key(value.__func__, walk), _key(value.__self__, walk))
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ("partial", *(_key(part, walk) for part in parts))
    if _stays_as_it_is(value):
        return _Same(value)
    if _is_of(kind, "jax", "jaxlib"):
        return _jax_object_key(value, walk)
    if kind is object:  # a sentinel
        return _Same(value) if walk.is_strict else kind
    if isinstance(value, types.ModuleType) or not hasattr(value, "__dict__"):
        return walk.same(value)
    if not walk.first_time(value):
        return walk.place(value)
    return ("object", _class_key(kind, walk), _key(vars(value), walk))


def _stays_as_it_is(value: Any) -> bool:
    """Whether an object, by what it is, never comes to mean something else."""
    if isinstance(value, types.ModuleType):
        library = value.__name__.partition(".")[0]
        return library in _LIBRARIES and value is not np.random
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, types.ModuleType) and value not in _OPAQUE
    if isinstance(value, (np.dtype, np.ufunc, enum.Enum, range)):
        return True
    return value is Ellipsis or _is_of_a_library(value)


def _is_of(it: Any, *libraries: str) -> bool:
    return str(getattr(it, "__module__", None)).partition(".")[0] in libraries


def _is_of_a_library(value: Any) -> bool:
    """Whether a library has this very object under its own name."""
    if not _is_of(value, *_LIBRARIES):
        return False
    home = sys.modules.get(value.__module__)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return isinstance(name, str) and getattr(home, name, None) is value


def _function_key(fn: types.FunctionType, walk: _Walk) -> Hashable:
    """The code of a function, and the data that it sees.

    Rules of `jax.custom_jvp` and `jax.custom_vjp` stand in a jaxpr as functions, made
    anew at each trace, around the function that the user wrote.
    """
    cells = [_content(cell) for cell in fn.__closure__ or ()]
    # By its globals: `functools.wraps` gives it the module of another.
    home = str(fn.__globals__.get("__name__")).partition(".")[0]
    if home in ("jax", "jaxlib") and not walk.is_strict:
        # Caches, traces and stores tell nothing of what the rule computes.
        cells = [c for c in cells if not isinstance(c, dict)]
        return ("function", fn.__code__, _key(cells, walk))
    seen = [fn.__defaults__, fn.__kwdefaults__, cells, vars(fn)]
    if home not in _LIBRARIES:
        seen.append(_globals_read(fn, cells, walk))
    return ("function", fn.__code__, _key(seen, walk))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _globals_read(fn: types.FunctionType, cells: list, walk: _Walk) -> dict[str, Any]:
    """Values of the global names that a function reads, where a program may look."""
    reads = _reads(fn.__code__)
    names = vars(builtins)
    found = {name: fn.__globals__.get(name, names.get(name)) for name in reads.names}
    if walk.is_strict:
        draws = reads.says_random and any(v is np for v in (*found.values(), *cells))
        if reads.is_opaque or draws:
            raise Unknown
        return found
    return {k: v for k, v in found.items() if not isinstance(v, types.ModuleType)}


class _Reads(NamedTuple):
    names: tuple[str, ...]  # global ones
    is_opaque: bool  # it imports, or changes what is not its own
    says_random: bool  # as the name of NumPy's module of random numbers


@functools.lru_cache(maxsize=4096)
def _reads(code: types.CodeType) -> _Reads:
    """What a function's code, and that of the functions in it, reads from outside."""
    names, is_opaque = {}, False
    for found in dis.get_instructions(code):
        name = found.opname
        if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            names[found.argval] = None
        is_opaque |= name in ("IMPORT_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
        is_opaque |= name == "STORE_DEREF" and found.argval in code.co_freevars
    says_random = "random" in code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            of_inner = _reads(inner)
            names |= dict.fromkeys(of_inner.names)
            is_opaque |= of_inner.is_opaque
            says_random |= of_inner.says_random
    return _Reads(tuple(names), is_opaque, says_random)


def _class_key(kind: type, walk: _Walk) -> Hashable:
    """The class itself, and its methods: a notebook may put others in their place."""
    if kind.__module__ == "builtins" or _is_of(kind, *_LIBRARIES):
        return _Same(kind)
    if not walk.first_time(kind):
        return walk.place(kind)
    parts = [_key(base, walk) for base in kind.__bases__]
    if vars(kind).get("__slots__"):
        parts.append(walk.same(kind))
    for name, value in vars(kind).items():
        if name in _OF_NO_MATTER:
            continue
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = (value.fget, value.fset)
        elif isinstance(value, functools.cached_property):
            value = value.func
        parts.append((name, _key(value, walk)))
    return ("class", _Same(kind), tuple(parts))


def _jax_object_key(value: Any, walk: _Walk) -> Hashable:
    parts = [getattr(value, name, None) for name in ("f", "transforms", "params")]
    if callable(parts[0]) and parts[1] is not None:  # a function and transformations
        return ("wrapped", *(_key(part, walk) for part in parts))
    kind = type(value)
    if isinstance(value, jax.stages.Wrapped):  # its options are not to be seen
        return ("jitted", _Same(value), _key(getattr(value, "__wrapped__", None), walk))
    if _holds_nothing(kind):
        return kind
    if hasattr(value, "val"):  # a box around what has no hash
        return ("box", kind, _key(value.val, walk))
    if kind.__module__.endswith("custom_derivatives"):
        if not walk.first_time(value):
            return walk.place(value)
        return ("rule", kind, _key(vars(value), walk))
    if kind.__eq__ is not object.__eq__:
        try:
            hash(value)
        except TypeError:
            return walk.same(value)
        return (kind, value)
    return walk.same(value)


def _holds_nothing(kind: type) -> bool:
    """Whether objects of this class of JAX belong to one trace, and to no program."""
    return kind.__name__.endswith(("Trace", "Store"))
