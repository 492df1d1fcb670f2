"""Normalisation within a step: over the units of a layer, or over a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks
from vgjax._linalg import matmul
from vgjax._typing import Carry
from vgjax.activations import sigmoid, tanh
from vgjax.cells._cell import (
    Affine,
    Cell,
    Constant,
    MemoryCell,
    bias,
    orthogonal_affine,
)
from vgjax.cells._registry import zoo

__all__ = [
    "BatchNormLSTM",
    "BatchNormRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LayerNormRNN",
]

EPSILON = 1e-5


def standardised(z: Array, axis: int) -> Array:
    r"""Return $(z - \mathrm{mean}) / \sqrt{\mathrm{var} + 10^{-5}}$ along an axis."""
    mean = z.mean(axis, keepdims=True)
    var = ((z - mean) ** 2).mean(axis, keepdims=True)
    return (z - mean) / jnp.sqrt(var + EPSILON)


class LayerNorm(nnx.Module):
    r"""$\mathrm{LN}(z) = \alpha \odot (z - \mu)/\sigma + \beta$, over all of z."""

    def __init__(self, size: int, dtype: Any):
        self.alpha = nnx.Param(jnp.ones(size, dtype))
        self.beta = nnx.Param(jnp.zeros(size, dtype))

    def __call__(self, z: Array) -> Array:
        """Normalise z, (size,)."""
        return self.alpha[...] * standardised(z, -1) + self.beta[...]


@zoo("layer_norm_rnn", checked="projector of its Jacobian; scale invariance")
class LayerNormRNN(Cell):
    r"""Layer normalisation in the network of one matrix.

    $h_t = \tanh(\mathrm{LN}(W h_{t-1} + U x_t))$, with
    $\mathrm{LN}(a) = \alpha \odot (a - \mu)/\sigma + \beta$ and mean and standard
    deviation over the units, $\sigma^2 = \mathrm{var} + 10^{-5}$. With
    $\hat a = (a - \mu)/\sigma$, $J_t = \mathrm{diag}(\tanh' \odot \alpha / \sigma)
    (I - 1 1^T/N - \hat a \hat a^T / N) W$: changes of the mean and of the scale of
    the pre-activations are (nearly) annihilated, and the spectral norm of $J_t$ falls
    as $1/\sigma$ where pre-activations grow.

    Source:
      Ba, Kiros & Hinton, arXiv:1607.06450 (2016), eq. 4. W orthogonal, U of variance
      1/D, alpha = 1, beta = 0.
    """

    def make(self, key: Array):
        a = orthogonal_affine(key, self)
        self.W, self.U = a.W, a.U
        self.norm = LayerNorm(self.features, self.dtype)

    def advance(self, carry, x):
        """``h = tanh(LN(W h + U x))``."""
        a = matmul(self.W[...], carry) + matmul(self.U[...], x)
        h = tanh(self.norm(a))
        return h, h


@zoo("layer_norm_gru", checked="equations in NumPy")
class LayerNormGRU(Cell):
    r"""Layer normalisation in a gated recurrent unit.

    .. math::
        (z, r) &= \sigma(\mathrm{LN}_1(W_{zr} h) + \mathrm{LN}_2(U_{zr} x)), \\
        n &= \tanh(\mathrm{LN}_3(U_n x) + r \odot \mathrm{LN}_4(W_n h)), \\
        h' &= (1 - z) \odot n + z \odot h.

    Each LN acts on a whole vector, those of z and r on both at once;
    $\sigma^2 = \mathrm{var} + 10^{-5}$ in all.

    Source:
      Ba, Kiros & Hinton (2016), supplement, eq. 23-26, with z and 1 - z exchanged, as
      in `GRU`. alpha = 1, beta = 0.
    """

    def make(self, key: Array):
        keys = jax.random.split(key, 3)
        zr = stacked(keys[:2], self)
        self.W_zr, self.U_zr = zr.W, zr.U
        n = orthogonal_affine(keys[2], self)
        self.W_n, self.U_n = n.W, n.U
        F = self.features
        sizes = (2 * F, 2 * F, F, F)
        self.norms = nnx.List([LayerNorm(size, self.dtype) for size in sizes])

    def advance(self, carry, x):
        """``h = (1 - z) n + z h``."""
        h = carry
        LN_1, LN_2, LN_3, LN_4 = self.norms
        zr = LN_1(matmul(self.W_zr[...], h)) + LN_2(matmul(self.U_zr[...], x))
        z, r = jnp.split(zr, 2)
        reset = sigmoid(r) * LN_4(matmul(self.W_n[...], h))
        n = tanh(LN_3(matmul(self.U_n[...], x)) + reset)
        h = sigmoid(-z) * n + sigmoid(z) * h
        return h, h


@zoo("layer_norm_lstm", checked="equations in NumPy")
class LayerNormLSTM(MemoryCell):
    r"""Layer normalisation in an LSTM.

    .. math::
        (i, f, o, g) &= \mathrm{LN}_1(W h) + \mathrm{LN}_2(U x) + b, \\
        c' &= \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \qquad
        h' = \sigma(o) \odot \tanh(\mathrm{LN}_3(c')).

    The carry is (c, h), the state [c; h]; 1e-5 is added to each variance. At fixed h,
    dc'/dc is diag(sigma(f)), as in `LSTM`.

    Args:
      forget_bias: what b has for f to begin with; 0 for the others.

    Source:
      Ba, Kiros & Hinton (2016), supplement, eq. 20-22. alpha = 1, beta = 0.
    """

    def make(self, key: Array, *, forget_bias: float = 1.0):
        keys = jax.random.split(key, 4)
        self.ifog = stacked(keys, self, (0.0, bias(forget_bias), 0.0, 0.0))
        F = self.features
        sizes = (4 * F, 4 * F, F)
        self.norms = nnx.List([LayerNorm(size, self.dtype) for size in sizes])

    def advance(self, carry, x):
        """``c = f c + i g``, ``h = o tanh(LN(c))``."""
        c, h = carry
        LN_1, LN_2, LN_3 = self.norms
        a = LN_1(matmul(self.ifog.W[...], h)) + LN_2(matmul(self.ifog.U[...], x))
        i, f, o, g = jnp.split(a + self.ifog.b[...], 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(LN_3(c))
        return (c, h), h


def stacked(
    keys: Array, cell: Cell, biases: tuple[float | Array, ...] | None = None
) -> Affine:
    """Several gates in one `Affine`, one under the other."""
    biases = (0.0,) * len(keys) if biases is None else biases
    gates = [orthogonal_affine(k, cell, b) for k, b in zip(keys, biases, strict=True)]
    W, U, b = (
        jnp.concatenate([getattr(a, name)[...] for a in gates]) for name in "WUb"
    )
    return Affine(W, U, b)


class BatchNorm(nnx.Module):
    r"""$\mathrm{BN}(z) = \gamma \odot (z - \mu) / \sqrt{v + 10^{-5}}$.

    Mean and variance are those of the batch, along the leading axis of z, or where
    `statistics` is not None what it holds, (2, size).
    """

    def __init__(self, size: int, gain: float | Array, dtype: Any):
        self.gamma = nnx.Param(jnp.broadcast_to(jnp.asarray(gain, dtype), (size,)))
        self.statistics = Constant(None)

    def __call__(self, z: Array) -> Array:
        """Normalise z, (batch, size), or (size,) by frozen statistics."""
        statistics = self.statistics.get_value()
        if statistics is None:
            return jnp.broadcast_to(self.gamma[...], z.shape) * standardised(z, 0)
        mean, var = statistics
        return self.gamma[...] * (z - mean) / jnp.sqrt(var + EPSILON)


class _BatchNormCell(Cell):
    """A cell some of whose pre-activations are normalised by name, in `norms`."""

    def __call__(self, carry, inputs):
        """Take one step of the whole batch, inputs (batch, D); frozen, of one, (D,)."""
        self.check_carry(carry)
        if self.batch is None:
            _checks.shape(inputs, "inputs", "D", D=self.inputs)
        else:
            sizes = {"batch": self.batch, "D": self.inputs}
            _checks.shape(inputs, "inputs", "batch D", **sizes)
        return self._advance(carry, inputs, lambda name, z: self.norms[name](z))

    norms: nnx.Dict

    def _advance(self, carry: Carry, x: Array, norm: Callable[[str, Array], Array]):
        """Take one step with ``norm(name, z)`` in the place of each BN."""
        raise NotImplementedError

    def freeze(self, carry: Carry, inputs: Array) -> "_BatchNormCell":
        """Return a cell with frozen statistics: the average over a run of this one.

        Args:
          carry: as `initialize_carry` gives it, or any for a batch of any size.
          inputs: (T, batch, D).

        Returns:
          A cell of the same weights that takes x (D,), and whose state is that of one
          member of a batch. Early steps, whose statistics differ, count like all.

        Raises:
          ValueError: `inputs` has another shape, or a batch of one; or the statistics
            of this cell are frozen already.
        """
        sizes = _checks.shape(inputs, "inputs", "T batch D", D=self.inputs)
        if self.batch is None or sizes["batch"] < 2:
            msg = (
                "Argument `inputs` must be those of a batch of at least two, of a cell "
                f"whose statistics are not frozen yet, but has shape {inputs.shape}."
            )
            raise ValueError(msg)

        def step(carry, x):
            seen = {}

            def norm(name, z):
                seen[name] = jnp.stack([z.mean(0), z.var(0)])
                return self.norms[name](z)

            carry, _ = self._advance(carry, x, norm)
            return carry, seen

        _, seen = jax.lax.scan(step, carry, inputs)
        frozen = nnx.clone(self)
        frozen.batch = None
        for name, statistics in seen.items():
            frozen.norms[name].statistics = Constant(statistics.mean(0))
        return frozen

    def _normalise(
        self, key: Array, batch: int | None, gain: float | Array, **sizes: int
    ) -> None:
        """Make `norms`; without a batch by the statistics of a run on noise."""
        self.batch = None if batch is None else _checks.integer(batch, "batch", 2)
        _checks.positive(gain, "gain")
        self.norms = nnx.Dict(
            {name: BatchNorm(size, gain, self.dtype) for name, size in sizes.items()}
        )
        if batch is None:
            self._freeze_on_noise(key)

    def _freeze_on_noise(self, key: Array) -> None:
        shape = (_NOISE_STEPS, _NOISE_BATCH, self.inputs)
        inputs = jax.random.normal(key, shape, self.dtype)
        self.batch = _NOISE_BATCH
        frozen = self.freeze(self.initialize_carry(), inputs)
        self.batch = None
        self.norms = frozen.norms

    def carry_shape(self) -> tuple[int, ...]:
        """(batch, features), or (features,) with frozen statistics."""
        one = (self.features,)
        return one if self.batch is None else (self.batch, *one)

    def first_carry(self):
        """Zeros: (batch, features), or (features,) with frozen statistics."""
        return self.zeros(*self.carry_shape())

    def random_inputs(self, key, length):
        """Independent standard normal numbers, (T, batch, D); frozen, (T, D)."""
        shape = (
            _checks.integer(length, "length", 1),
            *self.carry_shape()[:-1],
            self.inputs,
        )
        return jax.random.normal(_checks.key(key), shape, self.dtype)


_NOISE_STEPS = 64
_NOISE_BATCH = 64


@zoo("batch_norm_rnn", checked="coupling of the batch; E tanh'^2")
class BatchNormRNN(_BatchNormCell):
    r"""Recurrent batch normalisation in the network of one matrix.

    $h_t = \tanh(\mathrm{BN}(W h_{t-1}; \gamma_h) + \mathrm{BN}(U x_t; \gamma_x) + b)$,
    with $\mathrm{BN}(z; \gamma) = \gamma \odot (z - \mu)/\sigma$,
    $\sigma^2 = \mathrm{var} + 10^{-5}$. With the statistics of the batch the state is
    the whole batch, (batch, features), and $J_t$ couples its members: for unit k,
    $\partial \mathrm{BN}(z)_m / \partial z_n = (\gamma_k / \sigma_k)
    (\delta_{mn} - 1/B - \hat z_m \hat z_n / B)$. With frozen statistics it is
    $\mathrm{diag}(\tanh' \odot \gamma_h / \sigma) W$ for each member by itself.

    Args:
      features: size of h of one member.
      gain: gamma to begin with, of both; above 0.
      batch: size of the batch, at least 2; or None for frozen statistics, those of a
        run on standard normal inputs. `freeze` takes them from inputs of your own.

    Source:
      Cooijmans, Ballas, Laurent, Gulcehre & Courville, ICLR (2017), sec. 3, and sec. 4
      for the gain of 0.1; here without gates. Theirs are statistics for each step; here
      one set serves all.
    """

    def make(self, key: Array, *, gain: float | Array = 0.1, batch: int | None = 8):
        keys = jax.random.split(key)
        self.a = orthogonal_affine(keys[0], self)
        self._normalise(keys[1], batch, gain, h=self.features, x=self.features)

    def _advance(self, carry, x, norm):
        a = norm("h", matmul(carry, self.a.W[...].T))
        a = a + norm("x", matmul(x, self.a.U[...].T))
        h = tanh(a + jnp.broadcast_to(self.a.b[...], a.shape))
        return h, h


@zoo("batch_norm_lstm", checked="equations in NumPy")
class BatchNormLSTM(_BatchNormCell):
    r"""Recurrent batch normalisation in an LSTM.

    .. math::
        (i, f, o, g) &= \mathrm{BN}(W h; \gamma_h) + \mathrm{BN}(U x; \gamma_x) + b, \\
        c' &= \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \qquad
        h' = \sigma(o) \odot \tanh(\mathrm{BN}(c'; \gamma_c)).

    The carry is (c, h), (batch, features) each. At fixed h, dc'/dc is diag(sigma(f)):
    the path of the memory is not normalised.

    Args:
      features: size of c and of h of one member.
      gain: gamma to begin with, of all three; above 0.
      forget_bias: what b has for f to begin with; 0 for the others.
      batch: as for `BatchNormRNN`.

    Source:
      Cooijmans et al., ICLR (2017), sec. 3; beta_c = 0.
    """

    def make(
        self,
        key: Array,
        *,
        gain: float | Array = 0.1,
        forget_bias: float = 1.0,
        batch: int | None = 8,
    ):
        keys = jax.random.split(key, 5)
        self.ifog = stacked(keys[:4], self, (0.0, bias(forget_bias), 0.0, 0.0))
        F = self.features
        self._normalise(keys[4], batch, gain, h=4 * F, x=4 * F, c=F)

    def _advance(self, carry, x, norm):
        c, h = carry
        a = norm("h", matmul(h, self.ifog.W[...].T))
        a = a + norm("x", matmul(x, self.ifog.U[...].T))
        a = a + jnp.broadcast_to(self.ifog.b[...], a.shape)
        i, f, o, g = jnp.split(a, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(norm("c", c))
        return (c, h), h

    def first_carry(self):
        """(c, h): zeros, each (batch, features), or (features,) if frozen."""
        return self.zeros(*self.carry_shape()), self.zeros(*self.carry_shape())


# After both, because that is the order of their names.
zoo("frozen_batch_norm_rnn", checked="diag(tanh' gamma/sigma) W", batch=None)(
    BatchNormRNN
)
zoo("frozen_batch_norm_lstm", checked="equations in NumPy", batch=None)(BatchNormLSTM)
