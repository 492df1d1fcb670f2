"""A residual path through time: what a step adds to the state."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks, activations
from vgjax._linalg import matmul
from vgjax.cells._cell import Cell, Constant, input_matrix, passes_on, recurrent_matrix
from vgjax.cells._plain import plain_affine
from vgjax.cells._registry import zoo

__all__ = ["Antisymmetric", "Residual"]


@zoo("residual", checked="I + eps diag(tanh') W")
class Residual(Cell):
    r"""A residual path through time: $h_t = h_{t-1} + \epsilon \tanh(a_t)$.

    $a_t = W h_{t-1} + U x_t + b$ and
    $J_t = I + \epsilon \, \mathrm{diag}(\tanh'(a_t)) W$, so that every singular value
    of $J_t$ is within $\epsilon \|W\|_2$ of 1.

    Args:
      eps: $\epsilon$, above 0.
      recurrence: as for `Recurrent`.

    Source:
      He, Zhang, Ren & Sun, CVPR (2016), eq. 1, over time instead of depth.
    """

    @passes_on(recurrent_matrix)
    def make(self, key: Array, *, eps: float | Array = 0.1, **recurrence: Any):
        self.eps = Constant(jnp.asarray(_checks.positive(eps, "eps"), self.dtype))
        self.a = plain_affine(key, self, None, recurrence)

    def advance(self, carry, x):
        """``h = h + eps tanh(W h + U x + b)``."""
        h = carry + self.eps[...] * activations.tanh(self.a(carry, x))
        return h, h


def at_least_0(x: float) -> bool:
    """Whether x is not negative."""
    return x >= 0


@zoo("antisymmetric", checked="|1 - eps gamma +- i eps omega| at rest")
class Antisymmetric(Cell):
    r"""A residual path that turns instead of growing.

    $h_t = h_{t-1} + \epsilon \tanh((W - W^T - \gamma I) h_{t-1} + V x_t + b)$.
    $J_t = I + \epsilon \, \mathrm{diag}(\tanh'(a_t)) (W - W^T - \gamma I)$. Where
    $\tanh' = 1$ its singular values are $|1 - \epsilon\gamma \pm i \epsilon\omega|$,
    with $\pm i\omega$ the eigenvalues of $W - W^T$: for $\gamma = 0$ all at least 1.

    Args:
      eps: $\epsilon$, step of Euler's method, above 0.
      gamma: $\gamma$, diffusion, at least 0.
      gain: entries of W are N(0, gain^2/features); above 0.

    Source:
      Chang, Chen, Haber & Chi, ICLR (2019), eq. 10. V of variance 1/D, b = 0.
    """

    def make(
        self,
        key: Array,
        *,
        eps: float | Array = 0.1,
        gamma: float | Array = 0.01,
        gain: float = 1.0,
    ):
        self.eps = Constant(jnp.asarray(_checks.positive(eps, "eps"), self.dtype))
        gamma = _checks.number(gamma, "gamma", "a number of at least 0", at_least_0)
        self.gamma = Constant(jnp.asarray(gamma, self.dtype))
        keys = jax.random.split(key)
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
