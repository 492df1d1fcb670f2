"""What all cells of the zoo share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from vgjax import _checks, matrices
from vgjax._linalg import matmul
from vgjax._typing import Carry, Inputs

RECURRENCES = ("gaussian", "orthogonal", "identity", "sparse")


class Cell(nnx.RNNCellBase):
    """A step ``cell(carry, x) -> (carry, y)`` that knows its first carry and inputs.

    Unbatched, except where the batch is the state: write `jax.vmap`. Weights are
    `flax.nnx.Param`, and what is given but not trained is `Constant`. Matrices act on
    columns, as on paper: where Flax has a kernel, ``W`` is its transpose.
    """

    def __init__(self, inputs: int, features: int, dtype: Any):
        self.inputs = _checks.whole(inputs, "inputs", 1)
        self.features = _checks.whole(features, "features", 1)
        self.dtype = resolve(dtype)

    def __call__(self, carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        """Take one step.

        Args:
          carry: as `initialize_carry` gives it.
          inputs: x of this step, (D,); see the cell where it has another shape.

        Returns:
          The next carry, and the output y, (features,) where the cell does not say
          otherwise.
        """
        _checks.shape(inputs, "inputs", "D", D=self.inputs)
        return self.advance(carry, inputs)

    def advance(self, carry: Carry, x: Any) -> tuple[Carry, Any]:
        """Take one step, with inputs that fit."""
        raise NotImplementedError

    def initialize_carry(
        self, input_shape: Any = None, rngs: Any = None, carry_init: Any = None
    ) -> Carry:
        """Return the carry to begin with: zeros.

        Takes the arguments that Flax's cells take, and needs none of them.
        """
        del input_shape, rngs, carry_init
        return self.zeros(self.features)

    def random_inputs(self, key: Array, length: int) -> Inputs:
        """Return inputs to run the cell on: independent standard normal numbers.

        Args:
          key: JAX key.
          length: T, at least 1.

        Returns:
          (T, D), or what else the cell takes.
        """
        length = _checks.whole(length, "length", 1)
        return jax.random.normal(check_key(key), (length, self.inputs), self.dtype)

    @property
    def num_feature_axes(self) -> int:
        """How many axes of an input belong to one member of a batch; for nnx.RNN."""
        return 1

    def zeros(self, *shape: int) -> Array:
        """Zeros of the cell's dtype."""
        return jnp.zeros(shape, self.dtype)


class Constant(nnx.Variable):
    """An array of a cell that is not trained."""


class Affine(nnx.Module):
    """``W h + U x + b``."""

    def __init__(self, W: Array, U: Array, b: Array):
        self.W = nnx.Param(W)
        self.U = nnx.Param(U)
        self.b = nnx.Param(b)

    def __call__(self, h: Array, x: Array) -> Array:
        """Pre-activations, (features,)."""
        return matmul(self.W[...], h) + matmul(self.U[...], x) + self.b[...]


def gate(key: Array, cell: Cell, bias: float | Array = 0.0) -> Affine:
    """Return an `Affine` with W orthogonal, U normal of variance 1/D, b as given.

    Flax does so too, but cuts off the tails of U.
    """
    keys = jax.random.split(key)
    return Affine(
        matrices.orthogonal(keys[0], cell.features, dtype=cell.dtype),
        input_matrix(keys[1], cell),
        jnp.broadcast_to(jnp.asarray(bias, cell.dtype), (cell.features,)),
    )


def input_matrix(key: Array, cell: Cell, std: float | None = None) -> Array:
    """(features, D) independent N(0, std^2), std = 1/sqrt(D) by default."""
    std = cell.inputs**-0.5 if std is None else positive(std, "input_std")
    shape = (cell.features, cell.inputs)
    return jnp.asarray(std, cell.dtype) * jax.random.normal(key, shape, cell.dtype)


def recurrent_matrix(
    key: Array,
    N: int,
    dtype: np.dtype,
    *,
    recurrent: str = "gaussian",
    gain: float | Array = 1.0,
    spectral_radius: float | Array | None = None,
    nonzeros: int | None = None,
) -> Array:
    """Return the W that the options of a cell ask for.

    Args:
      key: JAX key.
      N: size.
      dtype: float32 or float64.
      recurrent: "gaussian", entries N(0, gain^2/N); "orthogonal" or "identity", times
        gain; or "sparse", `nonzeros` entries a row, N(0, gain^2/nonzeros).
      gain: above 0.
      spectral_radius: rescale W to it; above 0.
      nonzeros: of "sparse", non-zero entries a row. Default: 15, or N if that is less.
    """
    positive(gain, "gain")
    choice(recurrent, "recurrent", RECURRENCES)
    if nonzeros is not None and recurrent != "sparse":
        msg = (
            f"Argument `nonzeros` must come with recurrent='sparse', "
            f"but recurrent is {recurrent!r}."
        )
        raise ValueError(msg)
    if recurrent == "gaussian":
        W = matrices.gaussian(key, N, gain=gain, dtype=dtype)
    elif recurrent == "sparse":
        nonzeros = min(15, N) if nonzeros is None else nonzeros
        W = matrices.sparse(key, N, nonzeros=nonzeros, gain=gain, dtype=dtype)
    else:
        identity = recurrent == "identity"
        W = (
            jnp.eye(N, dtype=dtype)
            if identity
            else matrices.orthogonal(key, N, dtype=dtype)
        )
        W = jnp.asarray(gain, dtype) * W
    if spectral_radius is None:
        return W
    positive(spectral_radius, "spectral_radius")
    return matrices.with_spectral_radius(W, spectral_radius)


def resolve(dtype: Any) -> np.dtype:
    """Return JAX's default float where no dtype is given."""
    default = jnp.result_type(float)
    return _checks.floating_dtype(default if dtype is None else dtype, "dtype")


def positive(x: Any, name: str) -> Any:
    """Return x if it is a number above 0; one that `jit` traces is not looked at."""
    return number(x, name, "a number above 0", lambda x: x > 0)


def number(x: Any, name: str, wanted: str, fits: Callable[[float], bool]) -> Any:
    """Return x if it is a finite scalar that fits, or one that `jit` traces."""
    if isinstance(x, Tracer):
        return x
    scalar = np.ndim(x) == 0 and np.issubdtype(np.asarray(x).dtype, np.number)
    if isinstance(x, bool) or not (scalar and np.isfinite(x) and fits(float(x))):
        msg = f"Argument `{name}` must be {wanted}, but is {x!r}."
        raise ValueError(msg)
    return x


def choice(x: Any, name: str, among: Any) -> Any:
    """Return x if it is one of these."""
    if x not in among:
        listed = ", ".join(repr(a) for a in among)
        msg = f"Argument `{name}` must be one of {listed}, but is {x!r}."
        raise ValueError(msg)
    return x


def check_key(key: Any, name: str = "key") -> Array:
    """Return `key` if it is one JAX key, new style or old."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None:
        if jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
            return key
        if dtype == jnp.uint32 and key.ndim == 1:
            return key
    found = type(key).__name__ if dtype is None else f"{dtype}{list(key.shape)}"
    msg = (
        f"Argument `{name}` must be a JAX key, as of jax.random.key(0), but is {found}."
    )
    raise TypeError(msg)
