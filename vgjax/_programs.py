"""What a Python function computes, as a program that is known by what it does.

`jax.jit` knows a function by its identity: a new closure over new weights is compiled
anew, and an old one over weights that have changed since is not. A `Program` is the
jaxpr of a function. Its arrays are arguments, those that the function closes over too,
so that two closures made by one factory are one program with other numbers.
"""

import copy
import functools
import operator
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.extend import core

from vgjax._keys import fingerprint, jaxpr_key


class Program:
    """A traced function of arrays, equal to any other that computes the same.

    Called as ``program(constants, *arrays)``, it returns the leaves of the result;
    `out` is the structure they had. Hashable, so that `jax.jit` may take it as static.
    """

    def __init__(self, jaxpr: core.Jaxpr, out: Any, key: Hashable, runs_later: bool):
        self.jaxpr, self.out = jaxpr, out
        self._key, self._hash, self._runs_later = key, hash(key), runs_later

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

    def is_as_it_was(self) -> bool:
        """Whether rules of derivatives, which run later, still read what they did."""
        return not self._runs_later or (jaxpr_key(self.jaxpr)[0], self.out) == self._key

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


class _Traced(NamedTuple):
    """A program, and how to come by what it closes over."""

    program: Program
    constants: list[Callable[[], Any]]


# What was traced lately, oldest first, by all that decided what came out.
_TRACED: dict[Hashable, _Traced] = {}
_MOST_REMEMBERED = 128
# Parts of the names of primitives with which a trace says something about its caller,
# or a program does something beside computing.
_BOUND_TO_A_CALL = ("callback", "psum", "pmax", "pmin", "all_", "axis_", "permute")


def traced(
    fn: Callable, *arguments: Any, decided_by: Any = None
) -> tuple[Program, list]:
    """Trace ``fn(*arguments)``, and return the program and what `fn` closes over.

    Args:
      fn: a function of PyTrees of arrays. JAX, asked for the jaxpr of a function that
        it has seen, would not look at what has changed since; this does.
      arguments: PyTrees of arrays, or of `jax.ShapeDtypeStruct`.
      decided_by: all that decides, beside the types of `arguments`, what `fn` computes.
        Where it can be looked through and nothing of it changed, an earlier trace
        serves. None: `fn` is traced in any case.

    Returns:
      The program, whose arguments are the leaves of `arguments`, and its constants.
    """
    known = None if decided_by is None else _circumstances(decided_by, arguments)
    found = known and _TRACED.pop(known[0], None)
    if known and found and found.program.is_as_it_was():
        _TRACED[known[0]] = found  # put last again: the oldest goes first
        return found.program, [read() for read in found.constants]

    # A new function each time, so that JAX traces it again.
    def anew(*arguments):
        return fn(*arguments)

    closed, shapes = jax.make_jaxpr(anew, return_shape=True)(*arguments)
    _own_literals(closed.jaxpr)
    program = _known_program(closed.jaxpr, jax.tree.structure(shapes))
    constants = list(closed.consts)
    # Not where the trace itself changed what decides it.
    if known and known == _circumstances(decided_by, arguments):
        _remember(*known, program, constants)
    return program, constants


def _own_literals(jaxpr: core.Jaxpr) -> None:
    """Copy numbers that JAX took from NumPy arrays, which the user may write to."""
    for eqn in jaxpr.eqns:
        for atom in eqn.invars:
            if isinstance(atom, core.Literal) and not isinstance(atom.val, jax.Array):
                atom.val = copy.deepcopy(atom.val)
        for inner in core.jaxprs_in_params(eqn.params):
            _own_literals(inner)


def _known_program(jaxpr: core.Jaxpr, out: Any) -> Program:
    of_jaxpr, runs_later = jaxpr_key(jaxpr)
    key = (of_jaxpr, out)
    program = _KNOWN.get(key)
    if program is None or not program.is_as_it_was():
        program = _KNOWN[key] = Program(jaxpr, out, key, runs_later)
    return program


def _circumstances(
    decided_by: Any, arguments: Any
) -> tuple[Hashable, frozenset[int]] | None:
    """A key of all that decides what a trace finds, and the ids of arrays in it."""
    leaves, structure = jax.tree.flatten(arguments)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return None  # the trace may depend on those that go on
    found = fingerprint((decided_by, structure))
    if found is None:
        return None
    types = tuple(
        leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        for leaf in leaves
    )
    mesh = jax.sharding.get_abstract_mesh()
    return (found[0], types, _settings()(jax.config), mesh), found[1]


@functools.cache
def _settings() -> Callable[[Any], tuple]:
    """Read all that JAX is set to, by contexts too, off `jax.config`."""
    names = [name for name in jax.config.values if hasattr(jax.config, name)]
    return operator.attrgetter(*names)


def _remember(
    key: Hashable, arrays: frozenset[int], program: Program, constants: list
) -> None:
    """Keep a trace, but no array of the user's alive by it."""
    if any(part in name for name in program.primitives for part in _BOUND_TO_A_CALL):
        return
    reads: list[Callable[[], Any]] = []
    for constant in constants:
        if not isinstance(constant, jax.Array):
            # A copy: the array of the user's, which JAX only wraps, may be written to.
            reads.append(functools.partial(_itself, copy.deepcopy(constant)))
        elif id(constant) in arrays:
            reads.append(weakref.ref(constant))  # alive, whenever the key is found
        else:
            return  # made on the way: nobody else holds it
    _TRACED[key] = _Traced(program, reads)
    while len(_TRACED) > _MOST_REMEMBERED:
        _TRACED.pop(next(iter(_TRACED)), None)


def _itself(value: Any) -> Any:
    return value


def _primitives(jaxpr: core.Jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for inner in core.jaxprs_in_params(eqn.params):
            yield from _primitives(inner)
