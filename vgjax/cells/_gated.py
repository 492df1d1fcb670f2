"""Gates: paths on which a cell can decide to keep what it has."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks, matrices
from vgjax._linalg import matmul
from vgjax.activations import sigmoid, tanh
from vgjax.cells._cell import (
    Affine,
    Cell,
    MemoryCell,
    bias,
    fan_in_matrix,
    input_matrix,
    orthogonal_affine,
)
from vgjax.cells._registry import zoo

__all__ = ["GRU", "LSTM", "MGU", "ChronoLSTM", "MinimalRNN"]


@zoo("gru", checked="nnx.GRUCell; T log(1/2) at W = 0")
class GRU(Cell):
    r"""Gated recurrent unit, as in Flax.

    .. math::
        r &= \sigma(W_r h + U_r x + b_r), \qquad z = \sigma(W_z h + U_z x + b_z), \\
        n &= \tanh(U_n x + b_n + r \odot (W_n h + c_n)), \\
        h' &= (1 - z) \odot n + z \odot h.

    $J = \mathrm{diag}(z) + \mathrm{diag}((h - n) \odot z') W_z
    + \mathrm{diag}((1 - z) \odot n') (\mathrm{diag}(r) W_n
    + \mathrm{diag}((W_n h + c_n) \odot r') W_r)$. For W = 0 it is diag(z), and with
    z = 1/2 every singular value of $\Phi(t, 0)$ is $2^{-t}$.

    Source:
      Cho et al., arXiv:1406.1078v1 (2014), whose reset gate comes after the product (in
      the EMNLP version it comes before); initialised as `flax.linen.GRUCell`.
    """

    def make(self, key: Array):
        keys = jax.random.split(key, 3)
        self.r, self.z, self.n = (orthogonal_affine(k, self) for k in keys)
        self.c = nnx.Param(self.zeros(self.features))

    def advance(self, carry, x):
        """``h = (1 - z) n + z h``."""
        h = carry
        r = sigmoid(self.r(h, x))
        a_z = self.z(h, x)
        reset = r * (matmul(self.n.W[...], h) + self.c[...])
        n = tanh(matmul(self.n.U[...], x) + self.n.b[...] + reset)
        # sigmoid(-a), not 1 - sigmoid(a), which is 0 from a = 37 on.
        h = sigmoid(-a_z) * n + sigmoid(a_z) * h
        return h, h


@zoo("mgu", checked="linen.MGUCell")
class MGU(Cell):
    r"""Minimal gated unit, as in Flax: a GRU of one gate.

    .. math::
        f = \sigma(W_f h + U_f x + b_f), \qquad
        n = \tanh(U_n x + b_n + f \odot (W_n h + c_n)), \qquad
        h' = (1 - f) \odot n + f \odot h.

    For W = 0, J = diag(f).

    Args:
      forget_bias: b_f to begin with.

    Source:
      Zhou, Wu, Zhang & Zhou, Int. J. Autom. Comput. 13, 226 (2016), eq. 5-7, with f
      and 1 - f exchanged and the gate after the product, as `flax.linen.MGUCell`.
    """

    def make(self, key: Array, *, forget_bias: float = 1.0):
        keys = jax.random.split(key)
        self.f = orthogonal_affine(keys[0], self, bias(forget_bias))
        self.n = orthogonal_affine(keys[1], self)
        self.c = nnx.Param(self.zeros(self.features))

    def advance(self, carry, x):
        """``h = (1 - f) n + f h``."""
        h = carry
        a_f = self.f(h, x)
        reset = sigmoid(a_f) * (matmul(self.n.W[...], h) + self.c[...])
        n = tanh(matmul(self.n.U[...], x) + self.n.b[...] + reset)
        h = sigmoid(-a_f) * n + sigmoid(a_f) * h
        return h, h


@zoo("minimal_rnn", checked="equations in NumPy")
class MinimalRNN(Cell):
    r"""Minimal RNN: the state meets the input only at the gate.

    .. math::
        z = \tanh(W_x x + b_z), \qquad u = \sigma(U_h h + U_z z + b_u), \qquad
        h' = u \odot h + (1 - u) \odot z.

    $J = \mathrm{diag}(u) + \mathrm{diag}((h - z) \odot u') U_h$.

    Args:
      forget_bias: b_u to begin with.

    Source:
      Chen, arXiv:1711.06788 (2017), eq. 2-4; Chen, Pennington & Schoenholz, ICML
      (2018). U_h orthogonal, W_x and U_z N(0, 1/fan-in), b_z = 0.
    """

    def make(self, key: Array, *, forget_bias: float = 0.0):
        keys = jax.random.split(key, 3)
        N = self.features
        self.W_x = nnx.Param(input_matrix(keys[0], self))
        self.b_z = nnx.Param(self.zeros(N))
        # In the paper's letters u.W is U_h, and u.U is U_z.
        U_h = matrices.orthogonal(keys[1], N, dtype=self.dtype)
        U_z = fan_in_matrix(keys[2], (N, N), self.dtype)
        self.u = Affine(U_h, U_z, jnp.full(N, bias(forget_bias), self.dtype))

    def advance(self, carry, x):
        """``h = u h + (1 - u) z``."""
        h = carry
        z = tanh(matmul(self.W_x[...], x) + self.b_z[...])
        a_u = self.u(h, z)
        h = sigmoid(a_u) * h + sigmoid(-a_u) * z
        return h, h


@zoo("lstm", checked="nnx.LSTMCell; T log sigmoid(b) at W = 0")
class LSTM(MemoryCell):
    r"""Long short-term memory without peepholes, as in Flax.

    .. math::
        i, f, o &= \sigma(W_\cdot h + U_\cdot x + b_\cdot), \qquad
        g = \tanh(W_g h + U_g x + b_g), \\
        c' &= f \odot c + i \odot g, \qquad h' = o \odot \tanh(c').

    The carry is (c, h) and the state all of it, [c; h], 2 features numbers. At fixed h,
    $\partial c'/\partial c = \mathrm{diag}(f)$ whatever the weights; for W = 0 and
    x = 0 memory decays at the rate $\log \sigma(b_f)$.

    Args:
      forget_bias: b_f to begin with; the other biases are 0.

    Source:
      Hochreiter & Schmidhuber, Neural Comput. 9, 1735 (1997); forget gate: Gers,
      Schmidhuber & Cummins, Neural Comput. 12, 2451 (2000), its bias of 1:
      Jozefowicz, Zaremba & Sutskever, ICML (2015). Otherwise initialised as
      `flax.nnx.LSTMCell`, whose forget bias is 0.
    """

    def make(self, key: Array, *, forget_bias: float = 1.0):
        keys = jax.random.split(key, 4)
        self.i, self.g, self.o = (orthogonal_affine(k, self) for k in keys[:3])
        self.f = orthogonal_affine(keys[3], self, bias(forget_bias))

    def advance(self, carry, x):
        """``c = f c + i g``, ``h = o tanh(c)``."""
        c, h = carry
        i, f, o = (sigmoid(a(h, x)) for a in (self.i, self.f, self.o))
        c = f * c + i * tanh(self.g(h, x))
        h = o * tanh(c)
        return (c, h), h


@zoo("chrono_lstm", checked="E log f = -0.0430 (Tmax 100)")
class ChronoLSTM(LSTM):
    r"""An LSTM whose units begin with memories of 1 to Tmax steps.

    The equations are those of `LSTM`. The forget biases are
    $b_f = \log u$, $u \sim U[1, T_{max} - 1]$, and the input biases $b_i = -b_f$, so
    that unit i forgets in about u_i steps.

    Args:
      Tmax: longest dependence expected, in steps, at least 3.

    Source:
      Tallec & Ollivier, ICLR (2018), eq. 16.
    """

    def make(self, key: Array, *, Tmax: float = 100):
        largest = float(jnp.finfo(self.dtype).max)
        fits = f"at least 3 steps, and finite in {self.dtype}"
        _checks.number(Tmax, "Tmax", fits, lambda x: 3 <= x <= largest)
        keys = jax.random.split(key)
        super().make(keys[0])
        u = jax.random.uniform(
            keys[1], (self.features,), self.dtype, minval=1, maxval=Tmax - 1
        )
        self.f.b = nnx.Param(jnp.log(u))
        self.i.b = nnx.Param(-jnp.log(u))
