"""What several modules of theory ask of their arguments."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array
from jax.core import Tracer

from vgjax import _checks

# A minute for the smallest matrices.
MOST_STEPS = 10**7


def square(W: Any) -> Array:
    """Return W as a square array of floats, or refuse it."""
    W = _checks.array(W, "W")
    _checks.shape(W, "W", "N N")
    _checks.real_floating(W, "W")
    return W


def host_square(W: Any) -> np.ndarray:
    """Return a concrete W as a square array of float64."""
    W = concrete(W, "W")
    _checks.shape(W, "W", "N N")
    _checks.real_floating(W, "W")
    return W.astype(float)


def static_steps(steps: Any) -> np.ndarray:
    """Return concrete steps, (R,), increasing, if they fit 32 bits."""
    found = concrete(steps, "steps")
    if found.ndim == 0:
        msg = (
            f"Argument `steps` must have shape (R,), such as [{found}], but is the "
            f"scalar {found}."
        )
        raise ValueError(msg)
    _checks.shape(found, "steps", "R")
    if found.dtype.kind not in "iu":
        msg = f"Argument `steps` must be whole numbers, but has dtype {found.dtype}."
        raise TypeError(msg)
    found = found.astype(np.int64)
    if found[0] < 1 or np.any(np.diff(found) < 1) or found[-1] > np.iinfo(np.int32).max:
        msg = (
            "Argument `steps` must be strictly increasing from at least 1 to at most "
            f"2^31 - 1, but is {found}."
        )
        raise ValueError(msg)
    return found


def steps_to_take(steps: Any) -> np.ndarray:
    """Return `static_steps`, if they are few enough to carry out every one."""
    found = static_steps(steps)
    if found[-1] > MOST_STEPS:
        msg = (
            f"Argument `steps` must be at most {MOST_STEPS} here, where every step is "
            f"carried out, but is up to {found[-1]}; for more there is "
            f"`eigenvalue_rates`."
        )
        raise ValueError(msg)
    return found


def nonnegative(x: Any, name: str) -> np.ndarray:
    """Return concrete numbers as an array of float64, or refuse them."""
    found = concrete(x, name)
    if found.dtype.kind not in "iuf" or not np.all(np.isfinite(found) & (found >= 0)):
        msg = f"Argument `{name}` must be finite and at least 0, but is {x!r}."
        raise ValueError(msg)
    return found.astype(float)


def concrete(x: Any, name: str) -> np.ndarray:
    """Return x as an array of NumPy, and refuse what `jit` or `vmap` trace."""
    if isinstance(x, Tracer):
        msg = (
            f"Argument `{name}` must be concrete, outside of `jit` and `vmap`, but is "
            f"traced."
        )
        raise TypeError(msg)
    try:
        return np.asarray(x)
    except ValueError:
        msg = (
            f"Argument `{name}` must be an array, or a list of equal shapes, but is "
            f"{type(x).__name__}."
        )
        raise TypeError(msg) from None


def each(f: Callable[..., Any], **numbers: Any) -> Any:
    """Return f at each of the numbers, broadcast against each other."""
    arrays = [nonnegative(x, name) for name, x in numbers.items()]
    together(**dict(zip(numbers, arrays, strict=True)))
    with np.errstate(over="ignore", under="ignore"):  # inf and 0 are the answers then
        return plain(np.vectorize(f, otypes=[float])(*arrays))


def together(**arrays: np.ndarray) -> None:
    """Refuse arrays that do not broadcast against each other."""
    try:
        np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        names = ", ".join(f"`{name}`" for name in arrays)
        shapes = ", ".join(str(a.shape) for a in arrays.values())
        msg = f"Arguments {names} must have shapes that broadcast, but have {shapes}."
        raise ValueError(msg) from None


def plain(x: np.ndarray) -> Any:
    """Return an array without axes as a float, and any other as it is."""
    return float(x) if np.ndim(x) == 0 else x
