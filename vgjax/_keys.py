"""Keys of Python values: equal where two values mean the same to a program.

A value is looked through as far as it goes: the code of a function, what it closes
over, and the globals that it reads; the attributes of an object. Whatever is not known
to hold all its meaning where it can be seen has no key, or one of its own.
"""

import abc
import builtins
import dis
import enum
import functools
import hashlib
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
_LIBRARIES = (
    *("jax", "jaxlib", "numpy", "flax", "optax", "equinox", "vgjax"),
    *("math", "cmath", "operator", "functools", "itertools", "dataclasses", "typing"),
    *("abc", "enum", "collections"),
)
# What a function could read by these, nobody sees.
_OPAQUE = (eval, exec, globals, locals, vars, open, input, id, __import__)
# Names by which NumPy is asked for what differs each time, and JAX for the mesh or the
# batch that a call is part of. Few steps say them for other reasons.
_OF_THE_MOMENT = frozenset(
    ("random", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "open")
)
_OF_THE_CALLER = frozenset(
    ("psum", "pmean", "pmax", "pmin", "axis_size", "axis_index", "get_abstract_mesh")
)
# Objects, or pieces of 200 bytes, in a fingerprint: looking through more may cost more
# than a trace, some milliseconds.
_MOST_LOOKED_AT = 5_000
_BYTES_OF_A_PIECE = 200
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


class _Plain:
    """A class whose objects have a dictionary and nothing else."""


_SIZE = _Plain.__basicsize__


class _Unknown(Exception):
    """A value has no key."""


def jaxpr_key(jaxpr: core.Jaxpr) -> tuple[Hashable, bool]:
    """All that decides what a jaxpr computes, its variables numbered as they come.

    What cannot be looked through is equal to nothing, or to itself only: then a program
    is compiled once more than it need be, and never confused with another. Also whether
    it runs functions of the user's, as rules of derivatives, which may come to mean
    something else.
    """
    walk = _Walk(is_strict=False)
    key = _jaxpr_key(jaxpr, walk)
    return key, walk.runs_later


def fingerprint(value: Any) -> tuple[Hashable, frozenset[int]] | None:
    """All that decides what a trace of `value` finds, or None if that cannot be known.

    Also the ids of the `jax.Array` objects in it. The key holds none of them alive.
    """
    walk = _Walk(is_strict=True)
    try:
        key = _key(value, walk)
        hash(key)
    except Exception:  # noqa: BLE001  # objects of the user's may raise anything
        return None
    if walk.reads_numpy and walk.names_the_moment:
        return None
    return key, frozenset(walk.arrays)


class _Same:
    """Equal to itself only; keeps the object alive, so that its id is not reused."""

    __slots__ = ("it",)

    def __init__(self, it: Any):
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


class _SameWhileAlive:
    """Equal to itself only, and to nothing once the object is gone."""

    __slots__ = ("address", "reference")

    def __init__(self, it: Any):
        self.address, self.reference = id(it), weakref.ref(it)

    def __hash__(self) -> int:
        return self.address

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _SameWhileAlive):
            return False
        mine = self.reference()
        return mine is not None and mine is other.reference()


class _Walk:
    """What was met on the way, by id, so that cycles end. Keeps it alive meanwhile."""

    def __init__(self, *, is_strict: bool) -> None:
        self.is_strict = is_strict
        self.met: dict[int, tuple[int, Any]] = {}
        self.arrays: list[int] = []
        self.looked_at = 0
        self.reads_numpy = self.names_the_moment = self.runs_later = False

    def look_at(self, n: int) -> None:
        self.looked_at += n
        if self.is_strict and self.looked_at > _MOST_LOOKED_AT:
            raise _Unknown

    def first_time(self, it: Any) -> bool:
        if id(it) in self.met:
            return False
        self.look_at(1)
        self.met[id(it)] = (len(self.met), it)
        return True

    def again(self, it: Any) -> tuple[str, int]:
        """Key of what was met before; two equal objects are not one, to `is`."""
        return ("met", self.met[id(it)][0])

    def unseen(self) -> Hashable:
        """Key of what may change without a sign."""
        if self.is_strict:
            raise _Unknown
        return _Same(object())

    def itself(self, it: Any) -> Hashable:
        """Key of what means the same as long as it is there."""
        return _SameWhileAlive(it) if self.is_strict else _Same(it)

    def array(self, it: jax.Array) -> Hashable:
        if not self.is_strict:
            return _Same(it)
        if isinstance(it, Tracer):
            raise _Unknown
        self.arrays.append(id(it))
        return _SameWhileAlive(it)


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
        if "callback" in eqn.primitive.name:
            # It runs later, each time, and does to its closure what it will.
            return (eqn.primitive, ins, bound(eqn.outvars), walk.unseen())
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
        walk.look_at(0 if value is None else len(value) // _BYTES_OF_A_PIECE)
        return value
    if kind in (bool, int):
        return (kind, value)  # 1 == True
    if kind is tuple:
        walk.look_at(len(value))
        return (tuple, *[_key(v, walk) for v in value])
    if kind in (float, complex):
        return (kind, repr(value))  # 0.0 == -0.0, and NaN is not NaN
    if kind is bytes:
        return (kind, _digest(value, walk))
    if isinstance(value, jax.Array):  # also a tracer
        return walk.array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _numpy_key(value, walk)
    if isinstance(value, (list, dict, tuple)):
        return _container_key(value, walk)
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


def _digest(data: bytes, walk: _Walk) -> Hashable:
    walk.look_at(len(data) // _BYTES_OF_A_PIECE)
    # Not the bytes: keys are kept.
    return data if len(data) <= 64 else hashlib.blake2b(data).digest()


def _numpy_key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    # JAX wraps those that it takes for constants.
    is_plain = kind is np.ndarray or issubclass(kind, np.generic) or _is_of(kind, "jax")
    if not is_plain or value.dtype.hasobject:
        return walk.unseen()  # a class of its own, or pointers
    if isinstance(value, np.ndarray) and not walk.first_time(value):
        return walk.again(value)
    return (kind, value.dtype, value.shape, _digest(value.tobytes(), walk))


def _container_key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    of_jax = _is_of(kind, "jax", "jaxlib")
    is_record = isinstance(value, tuple) and (of_jax or _is_of(kind, "vgjax"))
    if kind not in (list, dict) and not is_record:
        return walk.unseen()  # methods and attributes of its own
    walk.look_at(len(value))
    if is_record:
        return (kind, tuple(_key(v, walk) for v in value))
    if not walk.first_time(value):
        return walk.again(value)
    if isinstance(value, dict):
        return (dict, tuple((_key(k, walk), _key(v, walk)) for k, v in value.items()))
    return (kind, tuple(_key(v, walk) for v in value))


def _structure_key(structure: Any, walk: _Walk) -> Hashable:
    walk.look_at(1)
    data = structure.node_data()
    if data is None:  # a leaf
        return None
    kind, rest = data
    children = [_structure_key(child, walk) for child in structure.children()]
    return (_key(kind, walk), _key(rest, walk), *children)


def _object_key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    if kind is types.FunctionType:
        return (
            _function_key(value, walk) if walk.first_time(value) else walk.again(value)
        )
    if kind is types.MethodType:
        return ("method", _key(value.__func__, walk), _key(value.__self__, walk))
    if kind is functools.partial and not vars(value):
        parts = (value.func, value.args, value.keywords)
        return ("partial", *[_key(part, walk) for part in parts])
    walk.reads_numpy |= value is np
    if _stays_as_it_is(value):
        return _Same(value)
    if _is_of(kind, "jax", "jaxlib"):
        return _jax_object_key(value, walk)
    if kind is object:  # a sentinel
        return _Same(value) if walk.is_strict else kind
    has_more = not hasattr(value, "__dict__") or kind.__basicsize__ != _SIZE
    if has_more or isinstance(value, types.ModuleType):
        return walk.unseen()  # not all that it holds is in its dictionary
    if not walk.first_time(value):
        return walk.again(value)
    return ("object", _class_key(kind, walk), _key(vars(value), walk))


def _stays_as_it_is(value: Any) -> bool:
    """Whether an object, by what it is, never comes to mean something else."""
    if isinstance(value, types.ModuleType):
        library = value.__name__.partition(".")[0]
        return library in _LIBRARIES and value is not np.random
    if isinstance(value, types.BuiltinFunctionType):
        home = getattr(value.__self__, "__name__", None)
        known = isinstance(value.__self__, types.ModuleType) and (
            home == "builtins" or str(home).lstrip("_").partition(".")[0] in _LIBRARIES
        )
        return known and value not in _OPAQUE
    if isinstance(value, enum.Enum):
        return _is_of(type(value), *_LIBRARIES)
    if isinstance(value, (np.dtype, np.ufunc)) or type(value) is range:
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
        return ("function", fn.__code__, tuple(_key(c, walk) for c in cells))
    seen = [fn.__name__, fn.__defaults__, fn.__kwdefaults__, cells, vars(fn)]
    if home not in _LIBRARIES:
        walk.runs_later = True
        seen.append(_globals_read(fn, walk))
    return ("function", fn.__code__, tuple(_key(part, walk) for part in seen))


_UNBOUND = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNBOUND


def _globals_read(fn: types.FunctionType, walk: _Walk) -> Any:
    """Values of the global names that a function reads, where a program may look."""
    reads = _reads(fn.__code__)
    if reads.is_opaque:
        return walk.unseen()
    walk.names_the_moment |= reads.names_the_moment
    names = vars(builtins)
    return {
        name: fn.__globals__.get(name, names.get(name, _UNBOUND))
        for name in reads.names
    }


class _Reads(NamedTuple):
    names: tuple[str, ...]  # global ones
    is_opaque: bool  # it imports, changes a global, or asks who calls
    names_the_moment: bool  # it may read what NumPy draws or loads


@functools.lru_cache(maxsize=4096)
def _reads(code: types.CodeType) -> _Reads:
    """What a function's code, and that of the functions in it, reads from outside."""
    names: dict[str, None] = {}
    is_opaque = not _OF_THE_CALLER.isdisjoint(code.co_names)
    for found in dis.get_instructions(code):
        name = found.opname
        if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            names[found.argval] = None
        is_opaque |= name in ("IMPORT_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
        is_opaque |= name == "STORE_DEREF" and found.argval in code.co_freevars
    names_the_moment = not _OF_THE_MOMENT.isdisjoint(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            of_inner = _reads(inner)
            names |= dict.fromkeys(of_inner.names)
            is_opaque |= of_inner.is_opaque
            names_the_moment |= of_inner.names_the_moment
    return _Reads(tuple(names), is_opaque, names_the_moment)


def _class_key(kind: type, walk: _Walk) -> Hashable:
    """The class itself, and its methods: a notebook may put others in their place."""
    if _is_of(kind, "builtins", *_LIBRARIES):
        return _Same(kind)
    if not walk.first_time(kind):
        return walk.again(kind)
    metaclass = type(kind)
    if metaclass not in (type, abc.ABCMeta) and not _is_of(metaclass, *_LIBRARIES):
        return walk.unseen()
    if issubclass(kind, enum.Enum):
        return walk.unseen()  # its members are not only in its dictionary
    parts = [_key(base, walk) for base in kind.__bases__]
    for name, value in vars(kind).items():
        if name in _OF_NO_MATTER:
            continue
        if type(value) in (staticmethod, classmethod):
            value = value.__func__
        elif type(value) is property:
            value = (value.fget, value.fset)
        elif type(value) is functools.cached_property:
            value = value.func
        parts.append((name, _key(value, walk)))
    return ("class", walk.itself(kind), tuple(parts))


def _jax_object_key(value: Any, walk: _Walk) -> Hashable:
    parts = [getattr(value, name, None) for name in ("f", "transforms", "params")]
    if callable(parts[0]) and parts[1] is not None:  # a function and transformations
        return ("wrapped", *[_key(part, walk) for part in parts])
    kind = type(value)
    if isinstance(value, jax.stages.Wrapped):
        # JAX keeps what it traced; its options are not to be seen.
        return walk.unseen() if walk.is_strict else _Same(value)
    if _holds_nothing(kind):
        return kind
    if hasattr(value, "val"):  # a box around what has no hash
        return ("box", kind, _key(value.val, walk))
    if kind.__module__.endswith("custom_derivatives"):
        if not walk.first_time(value):
            return walk.again(value)
        return ("rule", kind, _key(vars(value), walk))
    if kind.__eq__ is not object.__eq__:
        try:
            hash(value)
        except TypeError:
            return walk.unseen() if walk.is_strict else _Same(value)
        return (kind, value)
    return walk.unseen() if walk.is_strict else _Same(value)


def _holds_nothing(kind: type) -> bool:
    """Whether objects of this class of JAX belong to one trace, and to no program."""
    return kind.__name__.endswith(("Trace", "Store"))
