"""One matrix, one nonlinearity; and the same as an increment of the state."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks, activations
from vgjax._linalg import matmul
from vgjax.cells._cell import (
    Affine,
    Cell,
    Constant,
    input_matrix,
    recurrent_matrix,
)


def linear(x: Array) -> Array:
    """Return x as it is."""
    return x


NONLINEARITIES = {
    "linear": linear,
    "tanh": activations.tanh,
    "relu": activations.relu,
    "leaky_relu": activations.leaky_relu,
    "sigmoid": activations.sigmoid,
    "hard_tanh": activations.hard_tanh,
    "elu": activations.elu,
    "softplus": activations.softplus,
    "silu": activations.silu,
    "gelu": activations.gelu,
    "erf": activations.erf,
}


class Recurrent(Cell):
    r"""The network of one matrix: $h_t = \phi(W h_{t-1} + U x_t + b)$.

    $J_t = \mathrm{diag}(\phi'(a_t)) W$, with $a_t$ the argument of $\phi$. Nothing
    keeps it from vanishing: $\|J_t\|_2 \le \max|\phi'| \, \|W\|_2$.

    Args:
      inputs: D.
      features: size of h, which is the state.
      key: JAX key.
      dtype: float32 or float64. Default: JAX's default float.
      activation: $\phi$: "linear", or the name of one of `vgjax.activations`.
      input_std: standard deviation of the entries of U. Default: 1/sqrt(D).
      recurrence: recurrent="gaussian" | "orthogonal" | "identity" | "sparse", gain=1,
        spectral_radius=None and, of "sparse", nonzeros=15 a row.

    Raises:
      ValueError, TypeError: an argument is not as said here.

    Source:
      Elman, Cogn. Sci. 14, 179 (1990). "irnn": ReLU, W = I, std of U 0.001 (Le,
      Jaitly & Hinton, arXiv:1504.00941 (2015)). "smart_tanh": 15 non-zeros a row,
      radius 0.95, std of U 0.01 (Pascanu, Mikolov & Bengio, ICML (2013), sec. 4).
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        key: Array,
        dtype: Any = None,
        activation: str = "tanh",
        input_std: float | None = None,
        **recurrence: Any,
    ):
        super().__init__(inputs, features, dtype)
        _checks.choice(activation, "activation", NONLINEARITIES)
        self.activation = NONLINEARITIES[activation]
        self.a = plain_affine(key, self, input_std, recurrence)

    def advance(self, carry, x):
        """``h = phi(W h + U x + b)``."""
        h = self.activation(self.a(carry, x))
        return h, h


def plain_affine(
    key: Array, cell: Cell, input_std: float | None, recurrence: dict[str, Any]
) -> Affine:
    """``W h + U x + b`` with the W that is asked for and b = 0."""
    keys = jax.random.split(_checks.key(key))
    return Affine(
        recurrent_matrix(keys[0], cell.features, cell.dtype, **recurrence),
        input_matrix(keys[1], cell, input_std),
        cell.zeros(cell.features),
    )


class Residual(Cell):
    r"""A residual path through time: $h_t = h_{t-1} + \epsilon \tanh(a_t)$.

    $a_t = W h_{t-1} + U x_t + b$ and
    $J_t = I + \epsilon \, \mathrm{diag}(\tanh'(a_t)) W$, so that every singular value
    of $J_t$ is within $\epsilon \|W\|_2$ of 1.

    Args:
      inputs: D.
      features: size of h, which is the state.
      key: JAX key.
      dtype: float32 or float64. Default: JAX's default float.
      eps: $\epsilon$, above 0.
      recurrence: as for `Recurrent`.

    Raises:
      ValueError, TypeError: an argument is not as said here.

    Source:
      He, Zhang, Ren & Sun, CVPR (2016), eq. 1, over time instead of depth.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        key: Array,
        dtype: Any = None,
        eps: float | Array = 0.1,
        **recurrence: Any,
    ):
        super().__init__(inputs, features, dtype)
        self.eps = Constant(jnp.asarray(_checks.positive(eps, "eps"), self.dtype))
        self.a = plain_affine(key, self, None, recurrence)

    def advance(self, carry, x):
        """``h = h + eps tanh(W h + U x + b)``."""
        h = carry + self.eps[...] * activations.tanh(self.a(carry, x))
        return h, h


def at_least_0(x: float) -> bool:
    """Whether x is not negative."""
    return x >= 0


class Antisymmetric(Cell):
    r"""A residual path that turns instead of growing.

    $h_t = h_{t-1} + \epsilon \tanh((W - W^T - \gamma I) h_{t-1} + V x_t + b)$.
    $J_t = I + \epsilon \, \mathrm{diag}(\tanh'(a_t)) (W - W^T - \gamma I)$. Where
    $\tanh' = 1$ its singular values are $|1 - \epsilon\gamma \pm i \epsilon\omega|$,
    with $\pm i\omega$ the eigenvalues of $W - W^T$: for $\gamma = 0$ all at least 1.

    Args:
      inputs: D.
      features: size of h, which is the state.
      key: JAX key.
      dtype: float32 or float64. Default: JAX's default float.
      eps: $\epsilon$, step of Euler's method, above 0.
      gamma: $\gamma$, diffusion, at least 0.
      gain: entries of W are N(0, gain^2/features); above 0.

    Raises:
      ValueError, TypeError: an argument is not as said here.

    Source:
      Chang, Chen, Haber & Chi, ICLR (2019), eq. 10. V of variance 1/D, b = 0.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        key: Array,
        dtype: Any = None,
        eps: float | Array = 0.1,
        gamma: float | Array = 0.01,
        gain: float = 1.0,
    ):
        super().__init__(inputs, features, dtype)
        self.eps = Constant(jnp.asarray(_checks.positive(eps, "eps"), self.dtype))
        gamma = _checks.number(gamma, "gamma", "a number of at least 0", at_least_0)
        self.gamma = Constant(jnp.asarray(gamma, self.dtype))
        keys = jax.random.split(_checks.key(key))
        self.W = nnx.Param(
            recurrent_matrix(keys[0], self.features, self.dtype, gain=gain)
        )
        self.V = nnx.Param(input_matrix(keys[1], self))
        self.b = nnx.Param(self.zeros(self.features))

    def advance(self, carry, x):
        """``h = h + eps tanh((W - W^T - gamma I) h + V x + b)``."""
        W = self.W[...]
        turn = matmul(W - W.T, carry) - self.gamma[...] * carry
        a = turn + matmul(self.V[...], x) + self.b[...]
        h = carry + self.eps[...] * activations.tanh(a)
        return h, h
