"""What all cells of the zoo share."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vgjax import _checks, matrices
from vgjax._linalg import matmul
from vgjax._typing import Carry, Inputs

RECURRENCES = ("gaussian", "orthogonal", "identity", "sparse")


def passes_on(to: Callable) -> Callable[[Callable], Callable]:
    """Decorate a function whose ``**`` goes to another: its signature tells what."""

    def tell(fn: Callable) -> Callable:
        signature = inspect.signature(fn)
        *own, _ = signature.parameters.values()
        passed = [
            p
            for p in inspect.signature(to).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        ]
        tells: Any = fn
        tells.__signature__ = signature.replace(parameters=[*own, *passed])
        return fn

    return tell


class Cell(nnx.RNNCellBase):
    """A step ``cell(carry, x) -> (carry, y)`` that knows its first carry and inputs.

    Unbatched, except where the batch is the state: write `jax.vmap`. Weights are
    `flax.nnx.Param`, and what is given but not trained is `Constant`. Matrices act on
    columns, as on paper: where Flax has a kernel, ``W`` is its transpose.

    A new cell defines `make`, its weights; `advance`, its step; and where the carry is
    not h alone, `first_carry`. Their docstrings list the options of `make`.

    Args:
      inputs: D, numbers in an input.
      features: units, the size of h, which is the state where the cell does not say
        otherwise.
      key: JAX key.
      dtype: float32 or float64. Default: JAX's default float.
      options: those of the cell.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        key: Array,
        dtype: Any = None,
        **options: Any,
    ):
        self.inputs = _checks.integer(inputs, "inputs", 1)
        self.features = _checks.integer(features, "features", 1)
        self.dtype = _checks.dtype_or_default(dtype)
        self.make(_checks.key(key), **options)

    def make(self, key: Array) -> None:
        """Draw the weights; keyword-only arguments are the options of the cell."""
        raise NotImplementedError

    def __call__(self, carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        """Take one step.

        Args:
          carry: as `initialize_carry` gives it.
          inputs: x of this step, (D,); see the cell where it has another shape.

        Returns:
          The next carry, and the output y, (features,) where the cell does not say
          otherwise.
        """
        self.check_carry(carry)
        _checks.shape(inputs, "inputs", "D", D=self.inputs)
        return self.advance(carry, inputs)

    def check_carry(self, carry: Carry) -> None:
        """Refuse a carry of another structure, or other shapes, than the first one."""
        wanted = jax.eval_shape(self.first_carry)
        same = jax.tree.structure(carry) == jax.tree.structure(wanted)
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (carry, wanted)]
        if not same or shapes[0] != shapes[1]:
            msg = (
                f"Argument `carry` must have the shapes {shapes[1]}, as of "
                f"initialize_carry(), but has {shapes[0]}."
            )
            raise ValueError(msg)

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
        return self.first_carry()

    def first_carry(self) -> Carry:
        """Zeros, (features,)."""
        return self.zeros(self.features)

    def random_inputs(self, key: Array, length: int) -> Inputs:
        """Return inputs to run the cell on: independent standard normal numbers.

        Args:
          key: JAX key.
          length: T, at least 1.

        Returns:
          (T, D), or what else the cell takes.
        """
        length = _checks.integer(length, "length", 1)
        return jax.random.normal(_checks.key(key), (length, self.inputs), self.dtype)

    @property
    def num_feature_axes(self) -> int:
        """How many axes of an input belong to one member of a batch; for nnx.RNN."""
        return 1

    def zeros(self, *shape: int) -> Array:
        """Zeros of the cell's dtype."""
        return jnp.zeros(shape, self.dtype)


class MemoryCell(Cell):
    """A cell whose carry is (c, h), (features,) each, and whose state is [c; h]."""

    def first_carry(self):
        """(c, h): zeros, (features,) each."""
        return self.zeros(self.features), self.zeros(self.features)


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


def orthogonal_affine(key: Array, cell: Cell, b: float | Array = 0.0) -> Affine:
    """Return an `Affine` with W orthogonal, U normal of variance 1/D, b as given.

    Flax does so too, but cuts off the tails of U.
    """
    keys = jax.random.split(key)
    return Affine(
        matrices.orthogonal(keys[0], cell.features, dtype=cell.dtype),
        input_matrix(keys[1], cell),
        jnp.broadcast_to(jnp.asarray(b, cell.dtype), (cell.features,)),
    )


def input_matrix(key: Array, cell: Cell, std: float | None = None) -> Array:
    """(features, D) independent N(0, std^2), std = 1/sqrt(D) by default."""
    std = cell.inputs**-0.5 if std is None else _checks.positive(std, "input_std")
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
    """Return the W that the options of a cell ask for, (N, N).

    Args:
      key: JAX key.
      N: size.
      dtype: float32 or float64.
      recurrent: "gaussian", entries N(0, gain^2/N); "orthogonal" or "identity", times
        gain; or "sparse", `nonzeros` entries a row, N(0, gain^2/nonzeros).
      gain: above 0.
      spectral_radius: rescale W to it; above 0.
      nonzeros: of "sparse", non-zero entries a row. Default: 15, or N if that is less.

    Raises:
      ValueError: one of these is not as said here, or `nonzeros` comes with another.
    """
    _checks.positive(gain, "gain")
    _checks.choice(recurrent, "recurrent", RECURRENCES)
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
    _checks.positive(spectral_radius, "spectral_radius")
    # A row of W is never all zeros, so that some eigenvalue is not zero.
    return matrices.with_spectral_radius(W, spectral_radius)


def fan_in_matrix(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Independent N(0, 1/columns)."""
    return jax.random.normal(key, shape, dtype) / shape[1] ** 0.5


def bias(x: float | Array, name: str = "forget_bias") -> float | Array:
    """Return a bias if it is a finite scalar, or traced."""
    return _checks.number(x, name, "a finite number", lambda _: True)


def heads_that_divide(features: int, heads: Any) -> int:
    """Return `heads` if so many fit into `features`."""
    heads = _checks.integer(heads, "heads", 1)
    _checks.multiple(features, "features", heads, "heads")
    return heads
