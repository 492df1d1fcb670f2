"""The sentence that a wrong argument is answered with.

Each check names the argument, what it must be and what it is. Shapes, types and
static options only: values are traced, and a bad one reads NaN or -inf as the
docstring of the function says.
"""

import operator
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

X64_REMEDIES = (
    "call jax.config.update('jax_enable_x64', True) before anything else, "
    "or run inside `with jax.enable_x64(True):`"
)

# A minute for the smallest matrices.
_MOST_STEPS = 10**7


def shape(x: Any, name: str, spec: str, **sizes: int) -> dict[str, int]:
    """Match ``x.shape`` against a spec such as "T N N" and return the sizes.

    A symbol met twice, or already in `sizes`, must have the same size, and no
    size may be zero.
    """
    symbols = spec.split()
    found = jnp.shape(x)
    bound = dict(sizes)
    fits = len(found) == len(symbols) and all(
        bound.setdefault(symbol, n) == n and n > 0
        for symbol, n in zip(symbols, found, strict=True)
    )
    if not fits:
        wanted = ", ".join(f"{s}={sizes[s]}" if s in sizes else s for s in symbols)
        comma = "," if len(symbols) == 1 else ""
        msg = (
            f"Argument `{name}` must have shape ({wanted}{comma}) with no size zero, "
            f"but has shape {found}."
        )
        raise ValueError(msg)
    return bound


def errors(x: Any, R: int, N: int) -> None:
    """Refuse a `spectrum.error` that is not (R, N), or negative; NaN is unknown."""
    shape(x, "spectrum.error", "R N", R=R, N=N)
    if not isinstance(x, Tracer) and jnp.any(jnp.asarray(x) < 0):
        least = jnp.nanmin(jnp.asarray(x))
        msg = f"Argument `spectrum.error` must be at least 0, but has {least:g}."
        raise ValueError(msg)


def array(x: Any, name: str) -> jax.Array:
    """Return x as an array, and refuse what cannot be one, such as a ragged list."""
    if isinstance(x, jax.Array):  # `jnp.asarray` takes 20 us to give it back
        return x
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        msg = (
            f"Argument `{name}` must be an array, or a list of equal shapes, "
            f"but is {type(x).__name__}."
        )
        raise TypeError(msg) from None


def real_floating(x: Any, name: str) -> np.dtype:
    """Return the dtype of x if it is float32 or float64, and refuse any other."""
    try:
        dtype = np.dtype(jnp.result_type(x))
        found = f"has dtype {dtype}"
    except TypeError:
        dtype, found = None, f"is {type(x).__name__}"
    if dtype not in (np.float32, np.float64):
        msg = (
            f"Argument `{name}` must be real with dtype float32 or float64, "
            f"but {found}."
        )
        raise TypeError(msg)
    return dtype


def any_floating(x: Any, name: str) -> None:
    """Refuse numbers that are not floating, of half, single or double precision."""
    dtype = jnp.result_type(x)
    known = (jnp.bfloat16, np.float16, np.float32, np.float64)
    if not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).dtype not in known:
        msg = (
            f"Argument `{name}` must be bfloat16, float16, float32 or float64, or "
            f"complex of these, but has dtype {dtype}."
        )
        raise TypeError(msg)


def kind(x: Any, name: str, wanted: type, source: str) -> None:
    """Refuse what is of another class."""
    if not isinstance(x, wanted):
        msg = (
            f"Argument `{name}` must be a {wanted.__name__}, {source}, "
            f"but is {type(x).__name__}."
        )
        raise TypeError(msg)


def flag(x: Any, name: str) -> bool:
    """Return x if it is True or False."""
    if not isinstance(x, (bool, np.bool_)):
        msg = f"Argument `{name}` must be True or False, but is {x!r}."
        raise TypeError(msg)
    return bool(x)


def floating_dtype(dtype: Any, name: str) -> np.dtype:
    """Return `dtype` if it is float32, or float64 and that is really available."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = repr(dtype)
    if found not in (np.float32, np.float64):
        msg = f"Argument `{name}` must be float32 or float64, but is {found}."
        raise TypeError(msg)
    if found == np.float64 and jax.dtypes.canonicalize_dtype(found) != found:
        msg = (
            f"Argument `{name}` must be float32 while JAX's 64-bit mode is off, but is "
            f"float64. To have float64, {X64_REMEDIES}."
        )
        raise ValueError(msg)
    return found


def same_dtype(x: Any, name: str, dtype: np.dtype) -> None:
    """Refuse an array of another dtype."""
    found = jnp.result_type(x)
    if found != dtype:
        msg = f"Argument `{name}` must have dtype {dtype}, but has dtype {found}."
        raise TypeError(msg)


def integer(n: Any, name: str, low: int, high: int | None = None) -> int:
    """Return n if it is a whole number from `low` to `high`."""
    # True is an index, and surely a mistake.
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        msg = f"Argument `{name}` must be a whole number, but is {n!r}."
        raise TypeError(msg)
    try:
        n = operator.index(n)
    except TypeError:
        msg = f"Argument `{name}` must be a whole number, but is {n!r}."
        raise TypeError(msg) from None
    if n < low or (high is not None and n > high):
        upper = "" if high is None else f" and at most {high}"
        msg = f"Argument `{name}` must be at least {low}{upper}, but is {n}."
        raise ValueError(msg)
    return n


def dtype_or_default(dtype: Any) -> np.dtype:
    """Return `dtype` checked, or JAX's default float where it is None."""
    default = jnp.result_type(float)
    return floating_dtype(default if dtype is None else dtype, "dtype")


def number(x: Any, name: str, wanted: str, fits: Callable[[float], bool]) -> Any:
    """Return x if it is a finite real scalar that fits, or one that `jit` traces."""
    if isinstance(x, Tracer):
        return x
    scalar = np.ndim(x) == 0 and np.asarray(x).dtype.kind in "iuf"
    if not (scalar and np.isfinite(x) and fits(float(x))):
        msg = f"Argument `{name}` must be {wanted}, but is {x!r}."
        raise ValueError(msg)
    return x


def positive(x: Any, name: str) -> Any:
    """Return x if it is a number above 0, or one that `jit` traces."""
    return number(x, name, "a number above 0", lambda x: x > 0)


def choice(x: Any, name: str, among: Collection[str], hint: str = "") -> str:
    """Return x if it is one of these words."""
    if not (isinstance(x, str) and x in among):
        listed = ", ".join(repr(word) for word in among)
        msg = f"Argument `{name}` must be one of {listed}, but is {x!r}{hint}."
        raise ValueError(msg)
    return x


def multiple(n: int, name: str, of: int, what: str) -> int:
    """Return n if it is a multiple of the number of something."""
    if n % of != 0:
        msg = f"Argument `{name}` must be a multiple of the {of} {what}, but is {n}."
        raise ValueError(msg)
    return n


def key(x: Any, name: str = "key") -> jax.Array:
    """Return x if it is one JAX key, new style or old."""
    dtype = getattr(x, "dtype", None)
    if dtype is not None:
        if jnp.issubdtype(dtype, jax.dtypes.prng_key) and x.shape == ():
            return x
        if dtype == jnp.uint32 and x.shape in ((2,), (4,)):
            return x
    found = type(x).__name__ if dtype is None else f"{dtype}{list(x.shape)}"
    msg = (
        f"Argument `{name}` must be a JAX key, as of jax.random.key(0), but is {found}."
    )
    raise TypeError(msg)


def square(W: Any) -> jax.Array:
    """Return W as a square array of floats, or refuse it."""
    W = array(W, "W")
    shape(W, "W", "N N")
    real_floating(W, "W")
    return W


def host_square(W: Any) -> np.ndarray:
    """Return a concrete W as a square array of float64."""
    W = concrete(W, "W")
    shape(W, "W", "N N")
    real_floating(W, "W")
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
    shape(found, "steps", "R")
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
    if found[-1] > _MOST_STEPS:
        msg = (
            f"Argument `steps` must be at most {_MOST_STEPS} here, where every step is "
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
