"""The System: a step, its first carry and its inputs, as one PyTree.

Made once at the door of each public function by `system`, and the one argument of the
jitted body behind it. What is static is the program of the step, its jaxpr, and T; what
is not are all arrays, those the step closes over too. So a closure made anew is not
compiled anew, and one whose arrays changed does not read old ones.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from vgjax import _calls, _checks
from vgjax._layout import Layout, Point, checked_carry, kept
from vgjax._linalg import is_varying, matmul, varying_like
from vgjax._programs import Program, traced
from vgjax._typing import Carry, Inputs, Step

# Where only Jacobians can stand in for a missing mode of differentiation, they are made
# up to this N; 0.5 GB in float64.
_LARGEST_JACOBIAN = 8192
# What a mode of differentiation raises where a step does not have it.
NO_RULE = (TypeError, ValueError, NotImplementedError)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class System:
    """A trajectory to be measured.

    Blocks of vectors are (N, k), and maps act on columns. A step is taken from a
    `Point`, its state (N,) and its passengers.
    """

    program: Program = field(metadata={"static": True})
    layout: Layout = field(metadata={"static": True})  # of the carry
    changing: tuple[int, ...] = field(metadata={"static": True})  # of the arrays
    T: int = field(metadata={"static": True})
    arrays: list  # what the step owns
    constants: list  # what it closes over
    start: Point  # the passengers: of the carry, then what changes of the arrays
    inputs: Any  # leaves (T, ...), or None

    @property
    def N(self) -> int:
        """How many numbers the state has."""
        return self.layout.N

    @property
    def dtype(self) -> np.dtype:
        """Of the state and its Jacobians."""
        return self.start.state.dtype

    @property
    def product_dtype(self) -> np.dtype:
        """Of products of Jacobians: float32 where the state has half precision."""
        return np.dtype(np.float64 if self.dtype == np.float64 else np.float32)

    def step(self, at: Point, x: Any) -> tuple[Point, Any]:
        """Take one step: the next point, and the output."""
        of_carry = len(at.passengers) - len(self.changing)
        arrays = list(self.arrays)
        for place, value in zip(self.changing, at.passengers[of_carry:], strict=True):
            arrays[place] = value
        given = [*arrays, at.state, *at.passengers[:of_carry], *jax.tree.leaves(x)]
        results = self.program(self.constants, *given)
        state, passengers, changed, y = jax.tree.unflatten(self.program.out, results)
        return Point(state, (*passengers, *changed.arrays)), y

    def jacobian(self, at: Point, x: Any) -> tuple[Point, Array]:
        """Take one step: the next point, and its Jacobian (N, N), row = output."""
        return jacobian(self._from(at, x), at.state, self._prefers_forward)

    def push(self, at: Point, x: Any, V: Array) -> tuple[Point, Array]:
        """Take one step: the next point, and the Jacobian times V, (N, k)."""
        ways = (_pushed, _pushed_by_transposed_pull, self._multiplied)
        if self._is_half:
            ways = ways[2:]
        return _first_that_works(ways, self._from(at, x), at.state, V)

    def pull(self, at: Point, x: Any, U: Array) -> Array:
        """Return the transposed Jacobian times U, (N, k)."""
        by_jacobian = functools.partial(self._multiplied, transposed=True)
        ways = (_pulled, by_jacobian)
        if self._is_half or self._prefers_forward:
            ways = ways[1:]
        return _first_that_works(ways, self._from(at, x), at.state, U)[1]

    def scan(self, body: Callable, init: Any = None) -> tuple[Any, Point, Any]:
        """Run along the trajectory.

        ``body(carry, at, x) -> (carry, next at, out)``; returns the last carry, the
        last point, and what came out, leaves (T, ...).
        """

        def along(carry_and_point, x):
            carry, at, out = body(*carry_and_point, x)
            return (carry, at), out

        start = varying_like((init, self.start), self)
        (carry, at), out = jax.lax.scan(along, start, self.inputs, length=self.T)
        return carry, at, out

    def first_input(self) -> Any:
        """The input of the first step."""
        return jax.tree.map(lambda a: a[0], self.inputs)

    def carry(self, at: Point) -> Carry:
        """Return a point as the carry that the user knows."""
        return self.layout.unflatten(at.state, at.passengers)

    def from_carry(self, leaves: list) -> "System":
        """Return the same system, begun at the carry with these leaves."""
        given = [jnp.asarray(leaf) for leaf in leaves]
        state, passengers = self.layout.flatten(
            [
                jnp.astype(a, d) if _is_inexact(a) else a
                for a, d in zip(given, self.layout.dtypes, strict=True)
            ]
        )
        own = self.start.passengers[len(passengers) :]
        return replace(self, start=Point(state, (*passengers, *own)))

    def from_state(self, state: Array) -> "System":
        """Return the same system, begun at another state."""
        return replace(self, start=self.start._replace(state=state))

    def last(self, T: int) -> "System":
        """Return the system of the last T steps, begun where those before end."""
        cut = self.T - T
        before, after = (
            jax.tree.map(lambda a, part=part: a[part], self.inputs)
            for part in (slice(None, cut), slice(cut, None))
        )
        skipped = replace(self, inputs=before, T=cut)
        _, start, _ = skipped.scan(lambda _, at, x: (None, self.step(at, x)[0], None))
        return replace(self, start=start, inputs=after, T=T)

    def _from(self, at: Point, x: Any) -> Callable:
        def advance(state):
            new, _ = self.step(at._replace(state=state), x)
            return new.state, new

        return advance

    @property
    def _is_half(self) -> bool:
        return self.dtype != self.product_dtype

    @property
    def _prefers_forward(self) -> bool:
        # XLA on CPU ends in an internal error at QR of a transposed FFT.
        return "fft" in self.program.primitives

    def _multiplied(self, f, state, block, *, transposed=False):
        """Multiply by the Jacobian itself, where nothing cheaper is to be had."""
        if self.N > _LARGEST_JACOBIAN:
            mode, other = ("reverse", "vgjax.lyapunov_spectrum")
            if not transposed:
                mode, other = ("forward", "vgjax.gradients.cotangents")
            msg = (
                f"Argument `step` must have a {mode}-mode derivative for a state of "
                f"more than {_LARGEST_JACOBIAN} numbers, but has none, and a state of "
                f"{self.N}; {other} needs none."
            )
            raise ValueError(msg)
        new, J = jacobian(f, state, self._prefers_forward)
        J = J.astype(block.dtype)
        return new, matmul(J.T if transposed else J, block)


def jacobian(f: Callable, state: Array, forward_first: bool = False) -> Any:
    """Differentiate ``f(state) -> (new state, aux)`` by the mode it has: (aux, J).

    Reverse mode first: with N outputs both cost the same, and a rule for it alone is
    the more common.
    """
    ways = (_jacobian_by_pushes, _jacobian_by_pulls)
    return _first_that_works(ways if forward_first else ways[::-1], f, state)


def _jacobian_by_pulls(f, state):
    out, pull, new = jax.vjp(f, state, has_aux=True)
    rows = varying_like(jnp.eye(out.size, dtype=out.dtype), out)
    return new, jax.vmap(lambda row: pull(row)[0])(rows)


def _jacobian_by_pushes(f, state):
    _, push, new = jax.linearize(f, state, has_aux=True)
    columns = varying_like(jnp.eye(state.size, dtype=state.dtype), state)
    return new, jax.vmap(push, in_axes=1, out_axes=1)(columns)


def _pushed(f, state, V):
    _, push, new = jax.linearize(f, state, has_aux=True)
    return new, jax.vmap(push, in_axes=1, out_axes=1)(V)


def _pushed_by_transposed_pull(f, state, V):
    """Transpose the pull, which is linear, where there is a rule for reverse only."""
    out, pull, new = jax.vjp(f, state, has_aux=True)
    push = jax.linear_transpose(lambda row: pull(row)[0], out)
    return new, jax.vmap(lambda v: push(v)[0], in_axes=1, out_axes=1)(V)


def _pulled(f, state, U):
    _, pull, new = jax.vjp(f, state, has_aux=True)
    return new, jax.vmap(lambda u: pull(u)[0], in_axes=1, out_axes=1)(U)


def _first_that_works(ways, *arguments):
    """Differentiate in the first way that the rules of the step allow."""
    reason = None
    for way in ways:
        try:
            return way(*arguments)
        except NO_RULE as error:
            reason = reason or error
            if str(error).startswith("Argument `step`"):
                raise error from reason
    msg = (
        f"Argument `step` must have a derivative, but neither mode of differentiation "
        f"finds one: {reason}"
    )
    raise TypeError(msg) from reason


def pullback(f: Callable, *primals: Any) -> Callable:
    """Return ``pull(cotangent)``, a cotangent of each primal, as `jax.vjp` does.

    Where the step has no reverse rule, by the Jacobian in forward mode.
    """
    try:
        out, pull = jax.vjp(f, *primals)
        jax.eval_shape(pull, out)
    except NO_RULE as error:
        return _pullback_by_pushes(f, primals, error)
    return pull


def _pullback_by_pushes(f: Callable, primals: Any, reason: Exception) -> Callable:
    vector, unravel = ravel_pytree(primals)
    rows = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(f, *primals)))
    if rows * vector.size > _LARGEST_JACOBIAN**2:
        msg = (
            f"Argument `step` must have a reverse-mode derivative for {vector.size} "
            f"parameters and numbers of its state, but has none ({reason}); choose "
            f"fewer by `wrt`."
        )
        raise ValueError(msg) from reason
    _, push = jax.linearize(lambda v: ravel_pytree(f(*unravel(v)))[0], vector)
    eye = varying_like(jnp.eye(vector.size, dtype=vector.dtype), vector)
    J = jax.vmap(push, in_axes=1, out_axes=1)(eye)
    # A PyTree, like what `jax.vjp` returns: `jax.vmap` may stack it.
    return Partial(functools.partial(_multiplied_by, unravel), J)


def _multiplied_by(unravel: Callable, J: Array, cotangent: Any) -> Any:
    return unravel(matmul(ravel_pytree(cotangent)[0], J))


def system(
    step: Step, carry: Carry, inputs: Inputs = None, length: int | None = None
) -> System:
    """Check what a user gave, and trace the step.

    Raises:
      ValueError, TypeError: one sentence for each kind of wrong call; what the user's
        own code raises, where no wrong call explains it.
    """
    _calls.check_step(step)
    inputs, T = _checked_inputs(inputs, length)
    layout, leaves = checked_carry(carry)
    owner, call = _calls.owned(step)
    owned = OwnedArrays(owner)
    # What varies over a mesh at the second step must do so when the first is traced.
    start = layout.flatten(leaves)
    start = varying_like(start, start, inputs, owned.arrays)
    x = jax.tree.map(_one_step, inputs)
    try:
        program, constants = traced(
            _flat_step(call, owned, layout),
            *(owned.arrays, *start, x),
            decided_by=(owned.rest, call, layout),
        )
    except Exception as error:
        said = None
        if not str(error).startswith("Argument `"):
            said = _calls.hint(error, step, carry, inputs)
        if said is None:
            raise
        raise ValueError(said) from error
    changing = _checked_changes(program, owned, owner)
    changed = [owned.arrays[place] for place in changing]
    start = Point(start.state, (*start.passengers, *changed))
    return System(program, layout, changing, T, owned.arrays, constants, start, inputs)


def _flat_step(call: Callable, owned: "OwnedArrays", layout: Layout) -> Callable:
    """``call(owner, carry, x)`` as a function of arrays, states and passengers."""

    def advance(arrays, state, passengers, x):
        # New lists: a module may change what it is given.
        owner = owned.put_back(list(arrays))
        with jax.default_matmul_precision("highest"):
            result = call(owner, layout.unflatten(state, passengers), x)
        new, y = _calls.checked_pair(result)
        point = layout.flatten(kept(layout, new))
        return point.state, point.passengers, owned.changes(owner, arrays), y

    return advance


def _checked_changes(program: Program, owned: "OwnedArrays", owner: Any) -> tuple:
    """Places of the arrays that a step changes, refused where one is floating."""
    state, passengers, changed, y = program.outputs()
    floating = [i for i in changed.places if _is_inexact(owned.arrays[i])]
    # Averages that nothing reads are no part of the state.
    if getattr(owner, "moves_statistics", False):
        read_at = jax.tree.leaves((state, passengers, y))
        floating = [i for i in floating if program.depends(read_at, i)]
    if floating:
        msg = (
            f"Argument `step` must not change floating Variables while it steps, but "
            f"changes {owned.paths[floating[0]]}; call .eval() on the module "
            f"first, or move them into the carry."
        )
        raise ValueError(msg)
    return changed.places


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Changed:
    """What a step put in the place of arrays that it owns."""

    places: tuple[int, ...] = field(metadata={"static": True})
    arrays: tuple


class OwnedArrays:
    """What a step or a loss owns, its arrays apart from the rest."""

    def __init__(self, owner: Any):
        self.leaves, self.structure = jax.tree.flatten(owner)
        self.places = [i for i, leaf in enumerate(self.leaves) if is_array(leaf)]
        arrays = [self.leaves[i] for i in self.places]
        # `jnp.asarray` takes 20 us to give an array back.
        self.arrays = [a if isinstance(a, Array) else jnp.asarray(a) for a in arrays]

    @functools.cached_property
    def paths(self) -> list[str]:
        """Where each array is in what was given, for sentences."""
        owner = jax.tree.unflatten(self.structure, self.leaves)
        flat = jax.tree_util.tree_leaves_with_path(owner)
        return [jax.tree_util.keystr(flat[place][0]) for place in self.places]

    @property
    def rest(self) -> Any:
        """What was given, without its arrays, and where they were."""
        places = set(self.places)
        rest = [leaf for i, leaf in enumerate(self.leaves) if i not in places]
        return self.structure, self.places, rest

    def put_back(self, arrays: list) -> Any:
        """Return what was given, with other arrays."""
        leaves = list(self.leaves)
        for place, array in zip(self.places, arrays, strict=True):
            leaves[place] = array
        return jax.tree.unflatten(self.structure, leaves)

    def changes(self, owner: Any, arrays: list) -> _Changed:
        """Which arrays a step put others in the place of, and these."""
        leaves, structure = jax.tree.flatten(owner)
        if structure != self.structure:
            msg = (
                "Argument `step` must keep its own structure while it steps, but "
                "changes it; move what changes into the carry."
            )
            raise ValueError(msg)
        now = [leaves[place] for place in self.places]
        pairs = zip(arrays, now, strict=True)
        changing = [i for i, (old, new) in enumerate(pairs) if new is not old]
        new = tuple(
            jnp.asarray(now[i], arrays[i].dtype)
            if jnp.issubdtype(arrays[i].dtype, jnp.number)
            else now[i]
            for i in changing
        )
        return _Changed(tuple(changing), new)


def _one_step(leaf: Array) -> Any:
    """What the step is traced with; in `shard_map` it must vary over the same axes."""
    return (
        leaf[0]
        if is_varying(leaf)
        else jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    )


def _is_inexact(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a step is traced; Python integers and flags are not."""
    if isinstance(leaf, np.ndarray):
        return leaf.dtype != object
    return isinstance(leaf, (jax.Array, np.generic, float, complex))


def _checked_inputs(inputs: Inputs, length: int | None) -> tuple[Inputs, int]:
    """Inputs as arrays, and how many steps they are for."""
    if length is not None:
        length = _checks.integer(length, "length", 1)
    flat, structure = jax.tree_util.tree_flatten_with_path(inputs)
    leaves = []
    for path, leaf in flat:
        name = f"inputs{jax.tree_util.keystr(path)}"
        leaf = _checks.array(leaf, name)
        leaves.append(leaf)
        shape = leaf.shape
        if not shape or shape[0] == 0:
            msg = (
                f"Argument `{name}` must have time along its leading axis, at least "
                f"one step, but has shape {shape}."
            )
            raise ValueError(msg)
        T = shape[0] if length is None else length
        if shape[0] != T:
            msg = (
                f"Argument `{name}` must have {T} steps along its leading axis, like "
                f"`length` or the inputs before it, but has shape {shape}."
            )
            raise ValueError(msg)
        length = T
    if length is None:
        msg = (
            "Argument `length` must be given where there are no `inputs`, but both are "
            "None; a call is (step, carry, inputs), with a carry."
        )
        raise ValueError(msg)
    return jax.tree.unflatten(structure, leaves), length
