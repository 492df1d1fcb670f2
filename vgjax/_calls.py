"""A step as a user gives it: what it owns, how it is called, what is wrong with it."""

import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

_SEQUENCE_MODELS = ("RNN", "Bidirectional")


def owned(step: Any) -> tuple[Any, Callable]:
    """Return a PyTree and a function of it: ``call(owner, carry, x)`` takes the step.

    The PyTree is the step itself, what a method is bound to, or what a
    `functools.partial` holds.
    """
    # A jitted function keeps what it closed over when it was traced. (`isinstance` of a
    # protocol takes long.)
    while hasattr(step, "__wrapped__") and isinstance(step, jax.stages.Wrapped):
        step = inspect.unwrap(step, stop=lambda f: not hasattr(f, "lower"))
    if inspect.ismethod(step):
        return step.__self__, step.__func__
    if isinstance(step, functools.partial) and not isinstance(
        step, jax.tree_util.Partial
    ):
        inner, call = owned(step.func)
        owner = {"func": inner, "args": step.args, "keywords": dict(step.keywords)}

        def partially(owner, *arguments):
            return call(owner["func"], *owner["args"], *arguments, **owner["keywords"])

        return owner, partially
    return step, _called


def _called(step: Any, *arguments: Any, **keywords: Any) -> Any:
    return step(*arguments, **keywords)


def check_step(step: Any) -> None:
    """Refuse what cannot be called as ``step(carry, x)``, with what to do instead."""
    kind = type(step)
    library = kind.__module__.partition(".")[0]
    if library == "flax" and kind.__name__ in _SEQUENCE_MODELS:
        _refuse(f"is a {kind.__name__} of Flax, which runs a sequence; give its cell")
    if hasattr(step, "apply") and hasattr(step, "scope"):
        _refuse(
            "is a Flax linen module; give it its variables by vgjax.steps.from_linen"
        )
    if kind.__module__.startswith("equinox.nn"):
        _refuse(
            f"is the Equinox {kind.__name__}, which takes (x, carry); wrap it by "
            f"vgjax.steps.from_equinox"
        )
    if not callable(step):
        _refuse(f"is {kind.__name__}")
    try:
        signature = inspect.signature(step)
    except (TypeError, ValueError):  # some callables have none
        return
    try:
        signature.bind(None, None)
    except TypeError:
        _refuse(
            f"takes {signature}; a function of its parameters too becomes a step by "
            f"vgjax.steps.from_function, and of a model give the cell"
        )


def _refuse(found: str) -> NoReturn:
    msg = f"Argument `step` must be callable as step(carry, x), but {found}."
    raise TypeError(msg)


def checked_pair(result: Any) -> tuple[Any, Any]:
    """Return what a step returned, refused where it is no pair of carry and arrays."""
    if not (isinstance(result, tuple) and len(result) == 2):
        msg = (
            f"Argument `step` must return the pair (carry, y), "
            f"but returns {_kind(result)}."
        )
        raise TypeError(msg)
    for leaf in jax.tree.leaves(result):
        known = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
        if not isinstance(leaf, known):
            msg = (
                f"Argument `step` must return PyTrees of arrays, "
                f"but returns {type(leaf).__name__}."
            )
            raise TypeError(msg)
    return result


def _kind(result: Any) -> str:
    is_array = isinstance(result, jax.Array)
    return "an array alone" if is_array else type(result).__name__


def hint(error: Exception, step: Any, carry: Any, inputs: Any) -> str | None:
    """Say what is likely wrong with a call in which the step itself failed.

    None where nothing is: then the error is the user's own, and stays as it is.
    """
    if type(error).__name__ == "TraceContextError":
        return (
            "Argument `step` must be the Flax module itself, but is a function that "
            "closes over a module whose Variables change when it is called."
        )
    if type(error).__module__ == "flax.errors":
        return (
            f"Argument `variables` must be what `module.init` returned for this very "
            f"module, and what is random or changes must be named by `rngs` and "
            f"`mutable`, but Flax says: {str(error).partition(' (http')[0]}"
        )
    if type(error).__module__.startswith("jax.errors") or isinstance(
        error, jax.errors.JAXTypeError
    ):
        return None
    leaves = jax.tree.leaves(inputs)
    if isinstance(inputs, (list, tuple)) and len(leaves) > 1:
        return (
            f"Argument `inputs` must be one array with time along its leading axis, or "
            f"what the step takes apart, but is a {type(inputs).__name__} of "
            f"{len(leaves)} arrays, which the step does not take; is one of each step "
            f"meant, stack them: jnp.stack(inputs)."
        )
    if jax.tree_util.all_leaves([inputs]) and leaves and leaves[0].ndim == 1:
        return (
            f"Argument `inputs` must have shape (T, D), but has shape "
            f"{leaves[0].shape}, and the step does not take a single number; for D = 1 "
            f"give inputs[:, None]."
        )
    if any(leaf.ndim > 2 for leaf in leaves) or any(
        jnp.ndim(leaf) > 1 for leaf in jax.tree.leaves(carry)
    ):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(carry)]
        return (
            f"Arguments `carry` and `inputs` must be those of one trajectory, but have "
            f"shapes {_listed(shapes)} and {_listed([a.shape for a in leaves])}, which "
            f"the step does not take; for a batch write jax.vmap, because all of a "
            f"carry, here {sum(map(math.prod, shapes))} numbers, is one state."
        )
    if _is_nnx_module(step) and _takes_one(step):
        return (
            f"Argument `step` must be called as step(carry, x), but "
            f"{type(step).__name__} needs one argument only and fails with two; of a "
            f"model give the cell."
        )
    return None


def _is_nnx_module(step: Any) -> bool:
    # Not loaded, Flax cannot have made it.
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(step, nnx.Module)


def _takes_one(step: Any) -> bool:
    try:
        inspect.signature(step).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _listed(shapes: list) -> str:
    return " ".join(map(str, shapes)) or "None"
