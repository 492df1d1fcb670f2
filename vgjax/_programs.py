"""What a Python function computes, as a program that is known by what it does.

`jax.jit` knows a function by its identity: a new closure over new weights is compiled
anew, and an old one over weights that have changed since is not. A `Program` is the
jaxpr of a function. Its arrays are arguments, those that the function closes over too,
so that two closures made by one factory are one program with other numbers.
"""

import functools
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core


class Program:
    """A traced function of arrays, equal to any other that computes the same.

    Called as ``program(constants, *arrays)``, it returns the leaves of the result;
    `out` is the structure they had. Hashable, so that `jax.jit` may take it as static.
    """

    def __init__(self, jaxpr: core.Jaxpr, out: Any, key: Hashable):
        self.jaxpr, self.out = jaxpr, out
        self._key, self._hash = key, hash(key)

    def __call__(self, constants: Sequence, *arrays: Any) -> list:
        """Run the program; under a trace, put its equations there."""
        closed = core.ClosedJaxpr(self.jaxpr, tuple(constants))
        return core.jaxpr_as_fun(closed)(*arrays)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Program)
            and self._hash == other._hash
            and self._key == other._key
        )

    def outputs(self) -> Any:
        """Return the places of the results, in the structure that they had."""
        return jax.tree.unflatten(self.out, range(self.out.num_leaves))

    def depends(self, outputs: Sequence[int], argument: int) -> bool:
        """Whether one of some results may depend on an argument, both by place.

        An equation that holds a program counts as a whole.
        """
        touched = {self.jaxpr.invars[argument]}
        for eqn in self.jaxpr.eqns:
            variables = [v for v in eqn.invars if not isinstance(v, core.Literal)]
            if touched.intersection(variables):
                touched.update(eqn.outvars)
        results = [self.jaxpr.outvars[place] for place in outputs]
        return any(not isinstance(v, core.Literal) and v in touched for v in results)

    @functools.cached_property
    def primitives(self) -> frozenset[str]:
        """Names of all primitives that the program applies, at any depth."""
        return frozenset(_primitives(self.jaxpr))


# One object for each program: then jit's comparison of its key with itself is free.
_KNOWN: weakref.WeakValueDictionary[Hashable, Program] = weakref.WeakValueDictionary()


def traced(fn: Callable, *arguments: Any) -> tuple[Program, list]:
    """Trace ``fn(*arguments)``, and return the program and what `fn` closes over.

    Args:
      fn: a function of PyTrees of arrays. Traced each time: JAX, asked for the jaxpr of
        a function that it has seen, would not look at what has changed since.
      arguments: PyTrees of arrays, or of `jax.ShapeDtypeStruct`.

    Returns:
      The program, whose arguments are the leaves of `arguments`, and its constants.
    """

    # A new function each time, so that JAX traces it again.
    def anew(*arguments):
        return fn(*arguments)

    closed, shapes = jax.make_jaxpr(anew, return_shape=True)(*arguments)
    out = jax.tree.structure(shapes)
    key = (_jaxpr_key(closed.jaxpr, _Walk()), out)
    program = _KNOWN.get(key)
    if program is None:
        program = _KNOWN.setdefault(key, Program(closed.jaxpr, out, key))
    return program, list(closed.consts)


def _primitives(jaxpr: core.Jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for inner in core.jaxprs_in_params(eqn.params):
            yield from _primitives(inner)


class _Same:
    """Equal to itself only; keeps the object alive, so that its id is not reused."""

    __slots__ = ("it",)

    def __init__(self, it: Any):
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


class _Walk:
    """Objects met on the way, by id, so that cycles end. Keeps them alive meanwhile."""

    def __init__(self) -> None:
        self.met: dict[int, tuple[int, Any]] = {}

    def first_time(self, it: Any) -> bool:
        if id(it) in self.met:
            return False
        self.met[id(it)] = (len(self.met), it)
        return True

    def place(self, it: Any) -> tuple[str, int]:
        return ("met", self.met[id(it)][0])


def _jaxpr_key(jaxpr: core.Jaxpr, walk: _Walk) -> Hashable:
    """All that decides what a jaxpr computes, its variables numbered as they come."""
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
    """A hashable stand-in for a parameter, equal where that means the same.

    Where nothing better is known an object is equal to itself only: then a program is
    compiled once more than it need be, and never confused with another.
    """
    kind = type(value)
    if isinstance(value, core.ClosedJaxpr):
        consts = tuple(_key(c, walk) for c in value.consts)
        return (_jaxpr_key(value.jaxpr, walk), consts)
    if isinstance(value, core.Jaxpr):
        return _jaxpr_key(value, walk)
    if value is None or kind in (bool, int, str, bytes) or isinstance(value, type):
        return (kind, value)
    if kind in (float, complex):
        return (kind, repr(value))  # 0.0 == -0.0, and NaN is not NaN
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, jax.Array):  # also a tracer
        return _Same(value)
    if isinstance(value, (tuple, list)):
        return (kind, tuple(_key(v, walk) for v in value))
    if isinstance(value, dict):
        return (kind, tuple((_key(k, walk), _key(v, walk)) for k, v in value.items()))
    return _object_key(value, walk)


def _object_key(value: Any, walk: _Walk) -> Hashable:
    kind = type(value)
    if isinstance(value, types.MethodType):
        return ("method", _key(value.__func__, walk), _key(value.__self__, walk))
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ("partial", *(_key(part, walk) for part in parts))
    if isinstance(value, types.FunctionType):
        return (
            _function_key(value, walk) if walk.first_time(value) else walk.place(value)
        )
    if _is_of_jax(kind):
        return _jax_object_key(value, walk)
    if kind is object:  # a sentinel
        return kind
    if isinstance(value, types.ModuleType) or not hasattr(value, "__dict__"):
        return _Same(value)
    if not walk.first_time(value):
        return walk.place(value)
    return ("object", kind, _key(vars(value), walk))


def _is_of_jax(it: Any) -> bool:
    return (getattr(it, "__module__", None) or "").partition(".")[0] in (
        "jax",
        "jaxlib",
    )


def _function_key(fn: types.FunctionType, walk: _Walk) -> Hashable:
    """The code of a function, and the data that it sees.

    Rules of `jax.custom_jvp` and `jax.custom_vjp` stand in a jaxpr as functions, made
    anew at each trace, around the function that the user wrote.
    """
    cells = [_content(cell) for cell in fn.__closure__ or ()]
    if _is_of_jax(fn):
        # Caches, traces and stores tell nothing of what the rule computes.
        cells = [c for c in cells if not isinstance(c, dict)]
        return ("jax", fn.__code__, tuple(_key(c, walk) for c in cells))
    names = fn.__code__.co_names
    data = {n: fn.__globals__[n] for n in names if _is_data(fn.__globals__.get(n))}
    seen = (fn.__defaults__, fn.__kwdefaults__, cells, data)
    return ("function", fn.__code__, tuple(_key(part, walk) for part in seen))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _is_data(value: Any) -> bool:
    plain = (int, float, complex, str, tuple, list, dict, np.ndarray, np.generic)
    return isinstance(value, (*plain, jax.Array))


def _jax_object_key(value: Any, walk: _Walk) -> Hashable:
    parts = [getattr(value, name, None) for name in ("f", "transforms", "params")]
    if callable(parts[0]) and parts[1] is not None:  # a function and transformations
        return ("wrapped", *(_key(part, walk) for part in parts))
    kind = type(value)
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
            return _Same(value)
        return (kind, value)
    return _Same(value)


def _holds_nothing(kind: type) -> bool:
    """Whether objects of this class of JAX belong to one trace, and to no program."""
    return kind.__name__.endswith(("Trace", "Store"))
