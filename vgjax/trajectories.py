"""A step under `jax.lax.scan`: its trajectory, and the state as one flat vector.

The state is the flat form of the carry, in `jax.flatten_util.ravel_pytree` order; for
the ``(c, h)`` of a Flax LSTM it is [c; h], and N is twice the number of features. Whole
numbers in the carry, such as a clock, are passed on and are no part of the state.
"""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from vgjax import _checks
from vgjax._typing import Carry, Inputs, Step


class Trajectory(NamedTuple):
    """What a step went through."""

    states: Array  # (T+1, N) flat states, the initial one first
    outputs: Any  # the outputs y, each leaf (T, ...)
    carry: Carry  # the last carry


def rollout(
    step: Step, carry: Carry, inputs: Inputs = None, *, length: int | None = None
) -> Trajectory:
    """Run a step over inputs and keep every state.

    Args:
      step: ``step(carry, x) -> (carry, y)``: a Flax nnx cell, one of `vgjax.cells`, or
        a plain function (a new function object is compiled anew, and what it closes
        over is frozen when it is first called: pass cells, not closures over them).
      carry: initial carry, a PyTree of real floating arrays of one dtype, N numbers.
        Leaves of whole numbers (a clock, a counter) are passed on from step to step
        and are no part of the state.
      inputs: (T, D), or a PyTree of floating arrays with time along the leading axis.
        None for a step without inputs, which is called with x = None.
      length: T, needed where there are no inputs.

    Returns:
      `Trajectory`: states (T+1, N), of which ``states[0]`` is the initial one, outputs
      (T, ...) and the last carry.

    Raises:
      ValueError: neither inputs nor length, or they disagree, or T = 0; the carry is
        empty; the step returns a carry of another structure, shape or dtype.
      TypeError: a leaf of the carry or the inputs is not float32 or float64 (nor, in
        the carry, whole numbers), or the carry has both; `length` is no whole number;
        the step is not callable, not hashable, or does not return a pair.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> halve = lambda h, x: (0.5 * h + x, h)
      >>> vgjax.rollout(halve, jnp.array([8.0]), jnp.zeros((3, 1))).states
      Array([[8.],
             [4.],
             [2.],
             [1.]], dtype=float32)
    """
    return _rollout(*prepare(step, carry, inputs, length))


class Prepared(NamedTuple):
    """Checked arguments, ready for a jitted function that takes T as static."""

    frozen: "FrozenStep"
    weights: Any
    carry: Carry
    inputs: Inputs
    T: int


@dataclass(frozen=True)
class FrozenStep:
    """All of a step that is not an array; hashable, so that `jit` knows it again."""

    treedef: Any
    leaves: tuple  # arrays have left an _Array in their place

    def __call__(self, weights, carry, x):
        """Take the step, with products at full precision also in the cell itself."""
        with jax.default_matmul_precision("highest"):
            return _call(self, weights, carry, x)

    def thawed(self, weights):
        """Put the arrays back in their places."""
        leaves = [
            weights[leaf.index] if isinstance(leaf, _Array) else leaf
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(self.treedef, leaves)


class _Array(NamedTuple):
    index: int


# Jitted so that a spectrum after a rollout does not run the user's Python again.
@partial(jax.jit, static_argnums=0, inline=True)
def _call(frozen, weights, carry, x):
    result = frozen.thawed(weights)(carry, x)
    if not (isinstance(result, tuple) and len(result) == 2):
        msg = (
            f"Argument `step` must return the pair (carry, y), "
            f"but returns {type(result).__name__}."
        )
        raise TypeError(msg)
    return result


def prepare(step: Step, carry: Carry, inputs: Inputs, length: int | None) -> Prepared:
    """Check what a user gave, and split the step into its arrays and the rest."""
    T = _number_of_steps(inputs, length)
    inputs = jax.tree.map(jnp.asarray, inputs)
    frozen, weights = _split(step)
    return Prepared(frozen, weights, _checked_carry(carry), inputs, T)


def _checked_carry(carry: Carry) -> Carry:
    """Carry as arrays, refused where a leaf is neither real and floating nor whole."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if not _is_whole(leaf):
            _checks.real_floating(leaf, f"carry{jax.tree_util.keystr(path)}")
    carry = jax.tree.map(jnp.asarray, carry)
    leaves = jax.tree.leaves(carry)
    state = [leaf for leaf in leaves if not _is_whole(leaf)]
    dtypes = sorted({str(leaf.dtype) for leaf in state})
    if len(dtypes) > 1:
        msg = (
            f"Argument `carry` must have leaves of one dtype, "
            f"but has {' and '.join(dtypes)}."
        )
        raise TypeError(msg)
    if leaves and not state:
        _checks.real_floating(leaves[0], "carry")
    if state_size(carry) == 0:
        msg = "Argument `carry` must hold at least one number, but is empty."
        raise ValueError(msg)
    return carry


def state_size(carry: Carry) -> int:
    """N, the numbers in the state of a carry whose leaves are arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(carry) if not _is_whole(leaf))


def _is_whole(leaf: Any) -> bool:
    # A Python int is refused: it is a float whose point was forgotten.
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.integer)


class Flat(NamedTuple):
    """A carry as a flat vector, and what of it is no part of the state."""

    state: Array  # (N,)
    whole: tuple  # the leaves of whole numbers


def flat_step(frozen: FrozenStep, weights: Any, carry: Carry, x: Any):
    """Return ``step(flat, x) -> (flat, y)``, the `Flat` carry, and the way back.

    Runs while `jit` traces: it is here, once for each set of shapes, that the carry
    the step returns is compared with the one it was given.
    """
    taken, _ = jax.eval_shape(partial(frozen, weights), carry, x)
    _check_carry_is_kept(carry, taken)
    leaves, structure = jax.tree.flatten(carry)
    places = [_is_whole(leaf) for leaf in leaves]
    unravel = ravel_pytree(_where(leaves, places, False))[1]

    def flatten(carry) -> Flat:
        leaves = jax.tree.leaves(carry)
        state, _ = ravel_pytree(_where(leaves, places, False))
        return Flat(state, tuple(_where(leaves, places, True)))

    def unflatten(flat: Flat) -> Carry:
        state, whole = iter(unravel(flat.state)), iter(flat.whole)
        leaves = [next(whole if is_whole else state) for is_whole in places]
        return jax.tree.unflatten(structure, leaves)

    def step(flat, x):
        carry, y = frozen(weights, unflatten(flat), x)
        return flatten(carry), y

    return step, flatten(carry), unflatten


def _where(leaves: list, places: list[bool], wanted: bool) -> list:
    return [leaf for leaf, at in zip(leaves, places, strict=True) if at == wanted]


def first(inputs: Inputs) -> Any:
    """The inputs of the first step."""
    return jax.tree.map(lambda a: a[0], inputs)


@partial(jax.jit, static_argnums=(0, 4))
def _rollout(frozen, weights, carry, inputs, T):
    step, flat, unflatten = flat_step(frozen, weights, carry, first(inputs))

    def advance(flat, x):
        new, y = step(flat, x)
        return new, (new.state, y)

    last, (states, outputs) = jax.lax.scan(advance, flat, inputs, length=T)
    states = jnp.concatenate([flat.state[None], states])
    return Trajectory(states, outputs, unflatten(last))


def freeze(tree: Any) -> tuple[FrozenStep, list]:
    """Split a callable PyTree into all that is not an array, and its arrays."""
    leaves, treedef = jax.tree.flatten(tree)
    weights, kept = [], []
    for leaf in leaves:
        if isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int, complex)):
            kept.append(_Array(len(weights)))
            weights.append(leaf)
        else:
            kept.append(leaf)
    return FrozenStep(treedef, tuple(kept)), weights


def _split(step: Step) -> tuple[FrozenStep, list]:
    if inspect.ismethod(step):
        msg = (
            f"Argument `step` must be the cell or function itself, but is the bound "
            f"method {step.__qualname__}, whose weights would be frozen at first use."
        )
        raise TypeError(msg)
    if hasattr(step, "apply") and hasattr(step, "scope"):
        msg = (
            "Argument `step` must be called as step(carry, x), but is a Flax linen "
            "module; give it its variables by vgjax.cells.from_linen."
        )
        raise TypeError(msg)
    if not callable(step):
        msg = (
            f"Argument `step` must be callable as step(carry, x), "
            f"but is {type(step).__name__}."
        )
        raise TypeError(msg)
    frozen, weights = freeze(step)
    try:
        hash(frozen)
    except TypeError:
        msg = (
            f"Argument `step` must be hashable or a PyTree of arrays, but "
            f"{type(step).__name__} is neither; wrap it with vgjax.cells.from_function."
        )
        raise TypeError(msg) from None
    return frozen, weights


def _number_of_steps(inputs: Inputs, length: int | None) -> int:
    if length is not None:
        length = _checks.whole(length, "length", 1)
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        name = f"inputs{jax.tree_util.keystr(path)}"
        _checks.real_floating(leaf, name)
        shape = jnp.shape(leaf)
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
            "Argument `length` must be given where there are no `inputs`, "
            "but both are None."
        )
        raise ValueError(msg)
    return length


def _check_carry_is_kept(given: Carry, taken: Carry) -> None:
    before, after = jax.tree.structure(given), jax.tree.structure(taken)
    if before != after:
        msg = (
            f"Argument `step` must return a carry of the structure it is given, "
            f"{before}, but returns {after}."
        )
        raise ValueError(msg)
    new = jax.tree.leaves(taken)
    for (path, old), now in zip(
        jax.tree_util.tree_leaves_with_path(given), new, strict=True
    ):
        if old.shape != now.shape or old.dtype != now.dtype:
            msg = (
                f"Argument `step` must return a carry of the shapes and dtypes it is "
                f"given, but carry{jax.tree_util.keystr(path)} goes in as "
                f"{old.dtype}{list(old.shape)} and comes out as "
                f"{now.dtype}{list(now.shape)}.{_advice(old, now)}"
            )
            raise ValueError(msg)


def _advice(old, now) -> str:
    if old.shape != now.shape or not jnp.issubdtype(old.dtype, jnp.floating):
        return ""
    return (
        f" Give `carry` and `inputs` the dtype that the cell computes in, {now.dtype}, "
        f"or build the cell for {old.dtype}: nnx.SimpleCell computes in float32 unless "
        f"it is given dtype=, the other cells follow dtype= and param_dtype=."
    )
