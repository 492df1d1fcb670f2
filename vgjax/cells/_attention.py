"""Attention over time, as a recurrence."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks
from vgjax._linalg import matmul
from vgjax.cells._cell import Cell, fan_in_matrix, heads_that_divide
from vgjax.cells._registry import zoo

__all__ = ["CausalAttention"]


@zoo("attention", checked="NumPy softmax; 1 or 0")
class CausalAttention(Cell):
    r"""Causal self-attention: its recurrence is the copying of its key-value cache.

    .. math::
        k_t = W_K x_t, \quad v_t = W_V x_t, \quad q_t = W_Q x_t, \qquad
        y_t = W_O \sum_s \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{d}) \, v_s

    over the last `window` steps s, for each of the heads, d = features / heads. The
    carry is (keys, values, t): (window, features) each, newest first, and t, how many
    steps were taken, a whole number and no part of the state. $J_t$ moves every entry
    of the cache one place on: its singular values are 1, but for the 2 features
    numbers that leave the window, which are 0; those of $\Phi(t, 0)$ are 1 for all that
    is still in the window. Memory by copying neither vanishes nor explodes; it ends.

    Args:
      features: size of keys and values, and of y; the state has 2 window features
        numbers.
      window: how many steps are remembered, at least 1.
      heads: of attention; divides `features`.

    Source:
      Vaswani et al., NeurIPS (2017), eq. 1; its cache as a state is ours. Matrices
      N(0, 1/fan-in).
    """

    def make(self, key: Array, *, window: int = 16, heads: int = 1):
        self.window = _checks.integer(window, "window", 1)
        self.heads = heads_that_divide(self.features, heads)
        keys = jax.random.split(key, 4)
        shape = (self.features, self.inputs)
        self.W_Q, self.W_K, self.W_V = (
            nnx.Param(fan_in_matrix(k, shape, self.dtype)) for k in keys[:3]
        )
        square = (self.features, self.features)
        self.W_O = nnx.Param(fan_in_matrix(keys[3], square, self.dtype))

    def advance(self, carry, x):
        """Put the new key and value in front, and look at all that are there."""
        K, V, t = carry
        k, v, q = (matmul(W[...], x) for W in (self.W_K, self.W_V, self.W_Q))
        K = jnp.concatenate([k[None], K[:-1]])
        V = jnp.concatenate([v[None], V[:-1]])
        d = self.features // self.heads
        shape = (self.window, self.heads, d)
        scores = (K.reshape(shape) * q.reshape(1, self.heads, d)).sum(-1) / d**0.5
        written = jnp.arange(self.window, dtype=t.dtype) <= t
        scores = jnp.where(written[:, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=0)
        seen = (weights[:, :, None] * V.reshape(shape)).sum(0)
        return (K, V, t + 1), matmul(self.W_O[...], seen.ravel())

    def first_carry(self):
        """(keys, values, t): an empty cache, zeros, and t = 0, int32."""
        shape = (self.window, self.features)
        return self.zeros(*shape), self.zeros(*shape), jnp.zeros((), jnp.int32)
