"""Any step, with activations whose derivatives are not lost in saturation."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from vgjax import activations
from vgjax._typing import Step
from vgjax.steps._adapters import _LinenStep

KNOWN = [
    (jnp.tanh, activations.tanh),
    (jax.lax.tanh, activations.tanh),
    (jax.nn.sigmoid, activations.sigmoid),
    (jax.lax.logistic, activations.sigmoid),
    (jax.nn.softplus, activations.softplus),
    (jax.nn.silu, activations.silu),
    (jax.nn.gelu, activations.gelu),
    (jax.nn.elu, activations.elu),
    (jax.nn.relu, activations.relu),
    (jax.nn.leaky_relu, activations.leaky_relu),
    (jax.nn.hard_tanh, activations.hard_tanh),
    (jax.lax.erf, activations.erf),
    (jax.scipy.special.erf, activations.erf),
]


def exact(cell: Step) -> Step:
    """Return the same step with derivatives that do not vanish too early.

    A cell of Flax has its `activation_fn` and `gate_fn` exchanged for those of
    `vgjax.activations`. In any other step, and in a cell of Flax whose activation is
    none of JAX's, the primitives are exchanged by `vgjax.activations.exact`.

    Args:
      cell: a step ``cell(carry, x) -> (carry, y)``: a Flax nnx cell, one of
        `vgjax.cells`, or a plain function.

    Returns:
      For SimpleCell, GRUCell, LSTMCell and OptimizedLSTMCell of Flax nnx a new cell of
      the same class; for a step by `from_linen` another; for a cell of the zoo, which
      is exact, a copy; otherwise a step without other methods. Values are the same. It
      has the weights that `cell` has now, and is a PyTree of them; `cell` is left as it
      was.

    Raises:
      TypeError: `cell` is not callable, or is a bound method, whose weights would be
        frozen at first use, or a linen module without its variables.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> from flax import nnx
      >>> cell = nnx.SimpleCell(1, 2, rngs=nnx.Rngs(0))
      >>> carry, inputs = jnp.zeros(2), jnp.full((1, 1), 15.0)
      >>> lost = vgjax.state_jacobians(cell, carry, inputs)
      >>> kept = vgjax.state_jacobians(vgjax.steps.exact(cell), carry, inputs)
      >>> int((lost == 0).sum()), int((kept == 0).sum())
      (4, 0)
    """
    if not callable(cell):
        found = type(cell).__name__
    elif inspect.ismethod(cell):
        found = f"the bound method {cell.__qualname__}"
    elif hasattr(cell, "apply") and hasattr(cell, "scope"):
        found = "a Flax linen module; give it its variables by vgjax.steps.from_linen"
    else:
        return _exact_nnx(cell) or _exact_linen(cell) or _ExactStep(cell)
    msg = f"Argument `cell` must be callable as cell(carry, x), but is {found}."
    raise TypeError(msg)


def _exact_nnx(cell: Any) -> Any:
    """A new cell, or None if it is not one of Flax nnx with activations we know."""
    # Not loaded, it cannot have made the cell.
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(cell, nnx.Module):
        return None
    ours = type(cell).__module__.startswith("vgjax.cells.")
    changes = {} if ours else _exchanged(cell, "flax.nnx.") or {}
    if not (ours or changes):
        return None
    new = nnx.clone(cell)
    for name, fn in changes.items():
        setattr(new, name, fn)
    return new


def _exact_linen(step: Any) -> Any:
    if not isinstance(step, _LinenStep):
        return None
    changes = _exchanged(step.module, "flax.linen.")
    return replace(step, module=step.module.clone(**changes)) if changes else None


def _exchanged(module: Any, home: str) -> dict[str, Callable] | None:
    """Ours for each of its activations, or None if it may have others."""
    # A class derived from one of Flax may apply others than its attributes.
    if not type(module).__module__.startswith(home):
        return None
    changes = {}
    for name in ("activation_fn", "gate_fn"):
        if hasattr(module, name):
            ours = _ours(getattr(module, name))
            if ours is None:
                return None
            changes[name] = ours
    return changes


def _ours(fn: Any) -> Callable | None:
    # By identity: an activation may be anything, also what has no hash.
    for theirs, ours in KNOWN:
        if fn is theirs or fn is ours:
            return ours
    return None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _ExactStep:
    step: Any

    def __call__(self, carry, x):
        return activations.exact(self.step)(carry, x)
