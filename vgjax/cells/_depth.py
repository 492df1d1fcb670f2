"""Depth as time: a network of layers is a step, and its layers are what is scanned.

With weights of their own, the layers are the inputs of the step: a layer whose arrays
have depth along their leading axis. Shared weights belong to the step, which then has
no inputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from vgjax import _checks, matrices, theory
from vgjax._linalg import matmul
from vgjax.activations import gelu
from vgjax.cells._cell import Cell, fan_in_matrix, heads_that_divide, passes_on
from vgjax.cells._normalised import BatchNorm, LayerNorm
from vgjax.cells._plain import NONLINEARITIES
from vgjax.cells._registry import zoo

__all__ = [
    "BatchNormDense",
    "Dense",
    "LayerNormDense",
    "Layers",
    "ResidualDense",
    "SharedLayers",
    "TransformerBlock",
]

HIGHEST = jax.lax.Precision.HIGHEST


class Layer(nnx.Module):
    """A layer ``layer(h) -> h``, whose state h does not change its shape.

    Args:
      features: width, the size of h, or of each of its rows.
      key: JAX key.
      dtype: float32 or float64. Default: JAX's default float.
      options: those of the layer.
    """

    rows: tuple[str, int, int] | None = None
    """Where h is (rows, features): option that says how many, the least, default."""

    def __init__(self, features: int, *, key: Array, dtype: Any = None, **options: Any):
        dtype = _checks.dtype_or_default(dtype)
        features = _checks.integer(features, "features", 1)
        self.make(features, dtype, key, **options)

    def make(self, features: int, dtype: np.dtype, key: Array) -> None:
        """Draw the weights; keyword-only arguments are the options of the layer."""
        raise NotImplementedError


class Dense(Layer):
    r"""A layer $h' = \phi(W h + b)$, with $J = \mathrm{diag}(\phi') W$.

    Args:
      activation: $\phi$, as for `Recurrent`.
      gain: entries of W are N(0, gain^2/features), b = 0. Default:
        `vgjax.theory.random_walk_gain`, at which log||J ... J v|| is a random walk
        without drift for "linear" and "relu"; of "relu" for "leaky_relu" too, and of
        "linear" for all others.

    Source:
      Sussillo & Abbott, arXiv:1412.6558 (2014).
    """

    def make(
        self,
        features: int,
        dtype: np.dtype,
        key: Array,
        *,
        activation: str = "relu",
        gain: float | Array | None = None,
    ):
        _checks.choice(activation, "activation", NONLINEARITIES)
        self.activation = NONLINEARITIES[activation]
        if gain is None:
            kind = "relu" if "relu" in activation else "linear"
            gain = theory.random_walk_gain(features, kind)
        _checks.positive(gain, "gain")
        self.W = nnx.Param(matrices.gaussian(key, features, gain=gain, dtype=dtype))
        self.b = nnx.Param(jnp.zeros(features, dtype))

    def __call__(self, h: Array) -> Array:
        """``phi(W h + b)``, (features,)."""
        return self.activation(matmul(self.W[...], h) + self.b[...])


class ResidualDense(Dense):
    r"""A layer $h' = h + \epsilon \phi(W h + b)$.

    $J = I + \epsilon \, \mathrm{diag}(\phi') W$.

    Args:
      activation: as for `Dense`.
      gain: as for `Dense`.
      eps: $\epsilon$, above 0.

    Source:
      He, Zhang, Ren & Sun, CVPR (2016), eq. 1.
    """

    def make(
        self,
        features: int,
        dtype: np.dtype,
        key: Array,
        *,
        activation: str = "relu",
        gain: float | Array | None = None,
        eps: float = 0.1,
    ):
        super().make(features, dtype, key, activation=activation, gain=gain)
        self.eps = float(_checks.positive(eps, "eps"))

    def __call__(self, h: Array) -> Array:
        """``h + eps phi(W h + b)``, (features,)."""
        return h + self.eps * super().__call__(h)


class BatchNormDense(Dense):
    r"""A layer $h' = \phi(\mathrm{BN}(W h) + b)$ of a whole batch, the state.

    $\mathrm{BN}(z) = \gamma \odot (z - \mu)/\sigma$ by mean and variance of the batch;
    1e-5 is added to the variance, $\gamma = 1$ to begin with. Options as for `Dense`;
    h is (batch, features).

    Source:
      Ioffe & Szegedy, ICML (2015), alg. 1; gradients through depth: Yang, Pennington,
      Rao, Sohl-Dickstein & Schoenholz, ICLR (2019).
    """

    rows = ("batch", 2, 8)

    @passes_on(Dense.make)
    def make(self, features: int, dtype: np.dtype, key: Array, **options: Any):
        super().make(features, dtype, key, **options)
        self.norm = BatchNorm(features, 1.0, dtype)

    def __call__(self, h: Array) -> Array:
        """``phi(BN(W h) + b)``, (batch, features)."""
        z = self.norm(matmul(h, self.W[...].T))
        return self.activation(z + jnp.broadcast_to(self.b[...], z.shape))


class LayerNormDense(Dense):
    r"""A layer $h' = \phi(\mathrm{LN}(W h))$, normalised over its units.

    $\mathrm{LN}(a) = \alpha \odot (a - \mu)/\sigma + \beta$, 1e-5 added to the
    variance; alpha = 1, beta = 0 to begin with. Options as for `Dense`.

    Source:
      Ba, Kiros & Hinton, arXiv:1607.06450 (2016), eq. 3.
    """

    @passes_on(Dense.make)
    def make(self, features: int, dtype: np.dtype, key: Array, **options: Any):
        super().make(features, dtype, key, **options)
        self.norm = LayerNorm(features, dtype)
        del self.b

    def __call__(self, h: Array) -> Array:
        """``phi(LN(W h))``, (features,)."""
        return self.activation(self.norm(matmul(self.W[...], h)))


class TransformerBlock(Layer):
    r"""A pre-norm Transformer block on the residual stream of its tokens, the state.

    .. math::
        u = h + \mathrm{MHA}(\mathrm{LN}_1(h)), \qquad
        h' = u + W_2 \, \mathrm{gelu}(W_1 \mathrm{LN}_2(u) + b_1) + b_2,

    with h (tokens, features), one token a row, and MHA the heads'
    $\mathrm{softmax}(Q K^T / \sqrt{d}) V$ side by side, times $W_O$, d = features /
    heads; 1e-5 is added to the variances. $J = I + $ what the two branches add.

    Args:
      heads: of attention; divides `features`.
      causal: a token sees itself and those before it only.
      hidden: width of the second branch. Default: 4 features.

    Source:
      Vaswani et al., NeurIPS (2017); pre-norm: Xiong et al., ICML (2020). Matrices
      N(0, 1/fan-in), biases 0.
    """

    rows = ("tokens", 1, 4)

    def make(
        self,
        features: int,
        dtype: np.dtype,
        key: Array,
        *,
        heads: int = 2,
        causal: bool = False,
        hidden: int | None = None,
    ):
        self.heads = heads_that_divide(features, heads)
        self.causal = _checks.flag(causal, "causal")
        hidden = (
            4 * features if hidden is None else _checks.integer(hidden, "hidden", 1)
        )
        keys = jax.random.split(key, 6)
        square = (features, features)
        self.W_Q, self.W_K, self.W_V, self.W_O = (
            nnx.Param(fan_in_matrix(k, square, dtype)) for k in keys[:4]
        )
        self.W_1 = nnx.Param(fan_in_matrix(keys[4], (hidden, features), dtype))
        self.W_2 = nnx.Param(fan_in_matrix(keys[5], (features, hidden), dtype))
        self.b_1 = nnx.Param(jnp.zeros(hidden, dtype))
        self.b_2 = nnx.Param(jnp.zeros(features, dtype))
        self.LN_1 = LayerNorm(features, dtype)
        self.LN_2 = LayerNorm(features, dtype)

    def __call__(self, h: Array) -> Array:
        """(tokens, features) to (tokens, features)."""
        u = h + self.attention(jax.vmap(self.LN_1)(h))
        return u + jax.vmap(self.feed_forward)(jax.vmap(self.LN_2)(u))

    def attention(self, h: Array) -> Array:
        """Every token looks at every other, (tokens, features)."""
        L, F = h.shape
        Q, K, V = (
            matmul(h, W[...].T).reshape(L, self.heads, F // self.heads)
            for W in (self.W_Q, self.W_K, self.W_V)
        )
        # Not jax.nn.dot_product_attention, which takes its softmax in float32.
        scores = jnp.einsum("ihd,jhd->hij", Q, K, precision=HIGHEST)
        if self.causal:
            scores = jnp.where(jnp.tri(L, dtype=bool)[None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores / (F // self.heads) ** 0.5)
        seen = jnp.einsum("hij,jhd->ihd", weights, V, precision=HIGHEST)
        return matmul(seen.reshape(L, F), self.W_O[...].T)

    def feed_forward(self, z: Array) -> Array:
        """Second branch, for one token: (features,)."""
        z = gelu(matmul(self.W_1[...], z) + self.b_1[...])
        return matmul(self.W_2[...], z) + self.b_2[...]


class Layers(Cell):
    """A network whose layers have weights of their own: they are the inputs.

    ``cell(h, layer) -> (layer(h), layer(h))``. `random_inputs` draws the layers: one
    layer module whose arrays have depth along their leading axis.

    Args:
      inputs: 0, since what a network over depth is given is its first state.
      features: width.
      key: JAX key; not needed, because the weights are in the layers.
      dtype: as for all cells.
      layer: `Dense`, `ResidualDense`, `BatchNormDense`, `LayerNormDense` or
        `TransformerBlock`.
      options: those of the layer, and batch=8 of `BatchNormDense` or tokens=4 of
        `TransformerBlock`: the rows of h, which is (features,) for the others.
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
        if inputs != 0:
            msg = (
                f"Argument `inputs` must be 0 for a network over depth, whose input is "
                f"its first state, but is {inputs!r}."
            )
            raise ValueError(msg)
        super().__init__(1, features, key=key, dtype=dtype, **options)
        self.inputs = 0

    def make(self, key: Array, *, layer: Any = Dense, **options: Any):
        if not (isinstance(layer, type) and issubclass(layer, nnx.Module)):
            msg = f"Argument `layer` must be a class of layers, but is {layer!r}."
            raise TypeError(msg)
        self.layer_class: Any = layer
        self.carry_shape = (self.features,)
        if (rows := getattr(layer, "rows", None)) is not None:
            name, low, default = rows
            count = _checks.integer(options.pop(name, default), name, low)
            self.carry_shape = (count, self.features)
        gain = options.get("gain")
        if isinstance(gain, Tracer):
            msg = "Argument `gain` must be known when layers are built, but is traced."
            raise TypeError(msg)
        if gain is not None:
            # No array: what is not trained is part of the program.
            options["gain"] = float(_checks.positive(gain, "gain"))
        self.options = tuple(sorted(options.items()))
        # A wrong option is refused here, not when the layers are drawn.
        jax.eval_shape(self.make_layer, key)

    def make_layer(self, key: Array) -> nnx.Module:
        """One layer."""
        options = dict(self.options)
        return self.layer_class(self.features, key=key, dtype=self.dtype, **options)

    def __call__(self, carry, inputs):
        """Pass one layer, which is the input of this step."""
        self.check_carry(carry)
        if not isinstance(inputs, nnx.Module):
            msg = (
                f"Argument `inputs` must be layers, as of random_inputs, "
                f"but is {type(inputs).__name__}."
            )
            raise TypeError(msg)
        layer: Any = inputs
        h = layer(carry)
        return h, h

    def check_carry(self, carry: Array) -> None:
        """Refuse a state of another shape, which BN would take for another batch."""
        if jnp.shape(carry) != self.carry_shape:
            msg = (
                f"Argument `carry` must have shape {self.carry_shape}, "
                f"but has shape {jnp.shape(carry)}."
            )
            raise ValueError(msg)

    def initialize_carry(self, input_shape=None, rngs=None, carry_init=None):
        """Return the first state of a network over depth: its input, standard normal.

        Args:
          input_shape: not needed.
          rngs: `flax.nnx.Rngs`, or a JAX key.
          carry_init: not needed.
        """
        del input_shape, carry_init
        key = rngs.carry() if isinstance(rngs, nnx.Rngs) else _checks.key(rngs, "rngs")
        return jax.random.normal(key, self.carry_shape, self.dtype)

    def random_inputs(self, key, length):
        """Draw layers, their arrays with depth along the leading axis."""
        keys = jax.random.split(_checks.key(key), _checks.integer(length, "length", 1))
        return jax.vmap(self.make_layer)(keys)


class SharedLayers(Layers):
    """A network all of whose layers share their weights, those of the cell.

    ``cell(h, None) -> (layer(h), layer(h))``: run it with ``length=`` and no inputs.
    Arguments as for `Layers`.
    """

    def make(self, key: Array, *, layer: Any = Dense, **options: Any):
        super().make(key, layer=layer, **options)
        self.layer = self.make_layer(key)

    def __call__(self, carry, inputs=None):
        """Pass the one layer there is."""
        del inputs
        self.check_carry(carry)
        h = self.layer(carry)
        return h, h

    def random_inputs(self, key, length):
        """None: there are no inputs."""
        del key, length


def over_depth(name: str, layer: Any, checked: str) -> None:
    """Register two networks of a layer: each depth with its own weights, or shared."""
    zoo(name, checked=checked, layer=layer)(Layers)
    repeated = "equals its layer repeated"
    zoo(f"shared_{name}", checked=repeated, layer=layer)(SharedLayers)


over_depth("layers", Dense, "equations in NumPy; random-walk gain")
over_depth("residual_layers", ResidualDense, "equations in NumPy")
over_depth("batch_norm_layers", BatchNormDense, "equations in NumPy; coupling")
over_depth("layer_norm_layers", LayerNormDense, "equations in NumPy")
over_depth("transformer", TransformerBlock, "equations in NumPy; causality")
