"""Adapters to the protocol ``step(carry, x) -> (carry, y)``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from vgjax._typing import Carry, Step


def from_linen(
    module: Any,
    variables: Any,
    *,
    rngs: Mapping[str, Any] | None = None,
    mutable: str | Sequence[str] = (),
) -> Step:
    """Return the step that a Flax linen cell takes with these variables.

    Args:
      module: a linen module whose ``apply(variables, carry, x)`` gives (carry, y), such
        as `flax.linen.LSTMCell`. Not `flax.linen.RNN`, which runs the whole sequence.
      variables: what ``module.init`` returned, with its "params" collection.
      rngs: a key for each stream, such as ``{"dropout": key}``, split at every step.
      mutable: collections that change while it steps, such as "batch_stats". They
        travel from step to step. Floating ones are not differentiated, and are refused
        where the next state or the output depends on them: then they belong into the
        carry.

    Returns:
      A step. With `rngs` or `mutable` it changes itself when it is called, as a module
      of Flax nnx does; what vgjax measures leaves it as it was.

    Raises:
      TypeError: `module` has no ``apply``, or `variables` is not a mapping.
      ValueError: `variables` has no collection "params".

    Examples:
      >>> import jax, vgjax
      >>> from flax import linen
      >>> cell = linen.GRUCell(features=3)
      >>> carry = cell.initialize_carry(jax.random.key(0), (2,))
      >>> variables = cell.init(jax.random.key(1), carry, jax.numpy.zeros(2))
      >>> step = vgjax.steps.from_linen(cell, variables)
      >>> vgjax.state_jacobians(step, carry, jax.numpy.ones((5, 2))).shape
      (5, 3, 3)
    """
    if not callable(getattr(module, "apply", None)):
        msg = (
            f"Argument `module` must be a Flax linen module with an `apply` method, "
            f"but is {type(module).__name__}."
        )
        raise TypeError(msg)
    if type(module).__name__ in ("RNN", "Bidirectional"):
        msg = (
            f"Argument `module` must be a cell, but is {type(module).__name__}, which "
            f"runs a sequence; give its cell, and the cell's variables."
        )
        raise TypeError(msg)
    if not hasattr(variables, "keys"):
        msg = (
            f"Argument `variables` must be the mapping that `module.init` returned, "
            f"but is {type(variables).__name__}."
        )
        raise TypeError(msg)
    if "params" not in variables:
        msg = (
            f"Argument `variables` must be what `module.init` returned, with its "
            f"collection 'params', but has only {sorted(map(str, variables))}; of "
            f"parameters alone make {{'params': parameters}}."
        )
        raise ValueError(msg)
    mutable = (mutable,) if isinstance(mutable, str) else tuple(mutable)
    return _LinenStep(module, variables, dict(rngs or {}), mutable)


def from_equinox(cell: Any) -> Step:
    """Return the step that an Equinox cell takes.

    Equinox calls ``cell(x, carry)`` and returns the carry alone. The output of the step
    is the new hidden state: the carry itself, or its first entry where it is a tuple.

    Args:
      cell: an Equinox module such as `equinox.nn.LSTMCell`. Its carry is ``(h, c)``,
        the other way round than in Flax, and so are the blocks of the Jacobian.

    Raises:
      TypeError: `cell` is not callable.
    """
    if not callable(cell):
        msg = f"Argument `cell` must be callable, but is {type(cell).__name__}."
        raise TypeError(msg)
    return _EquinoxStep(cell)


def from_function(
    fn: Callable[[Any, Carry, Any], tuple[Carry, Any]], params: Any
) -> Step:
    """Return the step that a function takes with these parameters.

    A closure over its parameters is a step too, but says nothing of what they are:
    `vgjax.gradients` differentiates by the parameters of a step.

    Args:
      fn: ``fn(params, carry, x) -> (carry, y)``.
      params: a PyTree of arrays.

    Raises:
      TypeError: `fn` is not callable.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> def linear(W, h, x):
      ...     return W @ h, h
      >>> step = vgjax.steps.from_function(linear, jnp.diag(jnp.array([2.0, 0.5])))
      >>> vgjax.propagator(step, jnp.ones(2), length=3)
      Array([[8.   , 0.   ],
             [0.   , 0.125]], dtype=float32)
    """
    if not callable(fn):
        msg = f"Argument `fn` must be callable, but is {type(fn).__name__}."
        raise TypeError(msg)
    return _FunctionStep(fn, params)


# Registered dataclasses, not jax.tree_util.Partial: a Partial of `module.apply` holds
# the bound method, which is no PyTree of the variables.
@jax.tree_util.register_dataclass
@dataclass
class _LinenStep:
    module: Any = field(metadata={"static": True})
    variables: Any
    rngs: dict = field(default_factory=dict)
    mutable: tuple[str, ...] = field(default=(), metadata={"static": True})

    def __call__(self, carry, x):
        if not (self.rngs or self.mutable):
            return self.module.apply(self.variables, carry, x)
        pairs = {name: jax.random.split(key) for name, key in self.rngs.items()}
        now = {name: pair[1] for name, pair in pairs.items()}
        self.rngs = {name: pair[0] for name, pair in pairs.items()}
        if not self.mutable:
            return self.module.apply(self.variables, carry, x, rngs=now)
        result, updates = self.module.apply(
            self.variables, carry, x, rngs=now, mutable=list(self.mutable)
        )
        self.variables = {**self.variables, **updates}
        return result

    @property
    def moves_statistics(self) -> bool:
        """Whether floating variables may change that no state depends on."""
        return bool(self.mutable)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _EquinoxStep:
    cell: Any

    def __call__(self, carry, x):
        carry = self.cell(x, carry)
        return carry, carry[0] if isinstance(carry, tuple) else carry


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _FunctionStep:
    fn: Callable = field(metadata={"static": True})
    params: Any

    def __call__(self, carry, x):
        return self.fn(self.params, carry, x)
