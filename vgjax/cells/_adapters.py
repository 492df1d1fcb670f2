"""Adapters to the protocol ``step(carry, x) -> (carry, y)``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from vgjax._typing import Carry, Step


def from_linen(module: Any, variables: Any) -> Step:
    """Return the step that a Flax linen cell takes with these variables.

    Args:
      module: a linen module whose ``apply(variables, carry, x)`` gives (carry, y), such
        as `flax.linen.LSTMCell`. Not `flax.linen.RNN`, which runs the whole sequence.
      variables: what ``module.init`` returned, with its "params" collection.

    Raises:
      TypeError: `module` has no ``apply``, or `variables` is not a mapping.

    Examples:
      >>> import jax, vgjax
      >>> from flax import linen
      >>> cell = linen.GRUCell(features=3)
      >>> carry = cell.initialize_carry(jax.random.key(0), (2,))
      >>> variables = cell.init(jax.random.key(1), carry, jax.numpy.zeros(2))
      >>> step = vgjax.cells.from_linen(cell, variables)
      >>> vgjax.state_jacobians(step, carry, jax.numpy.ones((5, 2))).shape
      (5, 3, 3)
    """
    if not callable(getattr(module, "apply", None)):
        msg = (
            f"Argument `module` must be a Flax linen module with an `apply` method, "
            f"but is {type(module).__name__}."
        )
        raise TypeError(msg)
    if not hasattr(variables, "keys"):
        msg = (
            f"Argument `variables` must be the mapping that `module.init` returned, "
            f"but is {type(variables).__name__}."
        )
        raise TypeError(msg)
    return _LinenStep(module, variables)


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

    A closure over its parameters is a step too, but bakes them into the program, and
    each new closure is compiled anew; this is not.

    Args:
      fn: ``fn(params, carry, x) -> (carry, y)``, the same function object every time.
      params: a PyTree of arrays.

    Raises:
      TypeError: `fn` is not callable.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> def linear(W, h, x):
      ...     return W @ h, h
      >>> step = vgjax.cells.from_function(linear, jnp.diag(jnp.array([2.0, 0.5])))
      >>> vgjax.propagator(step, jnp.ones(2), length=3)
      Array([[8.   , 0.   ],
             [0.   , 0.125]], dtype=float32)
    """
    if not callable(fn):
        msg = f"Argument `fn` must be callable, but is {type(fn).__name__}."
        raise TypeError(msg)
    return _FunctionStep(fn, params)


# Registered dataclasses, not jax.tree_util.Partial: a Partial of `module.apply` holds
# the bound method, and is traced again for every new but equal module.
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _LinenStep:
    module: Any = field(metadata={"static": True})
    variables: Any

    def __call__(self, carry, x):
        return self.module.apply(self.variables, carry, x)


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
