r"""Activation functions, each with its first and second derivative in closed form.

All of the logistic family comes from one exponential, $e = e^{-|v|}$:

    S(v) = 1 / (1 + e)  for v >= 0,    e / (1 + e)  for v < 0,
    S'(v) = e / (1 + e)^2,    S''(v) = -S'(v) tanh(v / 2),

in which nothing cancels. The third derivative and those beyond are left to automatic
differentiation of these formulas.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax import _checks

__all__ = [
    "elu",
    "erf",
    "gelu",
    "hard_tanh",
    "leaky_relu",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]


def __dir__() -> list[str]:
    return __all__


# Real numbers as unevaluated sums of two floats: 2 sqrt(2 / pi), 0.044715 of it, and
# three times that.
GELU_LINEAR = (1.5957691216057308, -9.96930880911092e-17)
GELU_CUBIC = (0.07135481627260025, -6.175149918155315e-19)
GELU_SQUARE = (0.21406444881780073, 1.2025242832367862e-17)

TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)


def tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the hyperbolic tangent, $\tanh x$.

    $\tanh' = 4 e / (1 + e)^2$ with $e = e^{-2|x|}$, and $\tanh'' = -2 \tanh \tanh'$.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.numpy.tanh` gives. Derivatives are right to
      4 eps until they leave the normal numbers, at |x| = 44 in float32 and 354 in
      float64, and 0 beyond.

    Raises:
      TypeError: `x` is not float32 or float64.

    Examples:
      >>> import jax
      >>> from vgjax import activations
      >>> print(f"{jax.grad(jax.numpy.tanh)(20.0):.1e}")
      0.0e+00
      >>> print(f"{jax.grad(activations.tanh)(20.0):.1e}")
      1.7e-17
    """
    return _tanh(_real(x))


def sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the logistic function, $S(x) = 1 / (1 + e^{-x})$.

    $S' = e / (1 + e)^2$ with $e = e^{-|x|}$, and $S'' = -S' \tanh(x/2)$.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.nn.sigmoid` gives. Derivatives are right to
      4 eps until they leave the normal numbers, at |x| = 87 in float32 and 708 in
      float64, and 0 beyond.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return _sigmoid(_real(x))


def softplus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return $\log(1 + e^x)$, whose derivative is the logistic function.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.nn.softplus` gives. Derivatives are right to
      4 eps until they leave the normal numbers, and 0 beyond.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return _softplus(_real(x))


def silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return $x S(x)$ with the logistic function S, also called swish.

    $f' = S(x) (1 + x S(-x))$ and $f'' = S'(x) (2 - x \tanh(x/2))$.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.nn.silu` gives. Derivatives are right to
      4 eps of their largest term: the terms cancel for f' near x = -1.28, and for f''
      near -2.40 and 2.40.

    Raises:
      TypeError: `x` is not float32 or float64.

    Source:
      Hendrycks & Gimpel, arXiv:1606.08415 (2016).
    """
    return _silu(_real(x))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return $x S(v)$, $v = 2 \sqrt{2/\pi} (x + 0.044715 x^3)$: GELU by its tanh form.

    $f' = S(v) (1 + x v' S(-v))$ and $f'' = S'(v) (2v' + x v'' - x v'^2 \tanh(v/2))$,
    with v carried to twice the digits: its rounding alone would cost |v| eps.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.nn.gelu` gives with ``approximate=True``.
      Derivatives are right to 4 eps of their largest term: the terms cancel for f' near
      x = -0.75, and for f'' near -1.42 and 1.42. The value itself is JAX's, 0 for x
      below -5 in float32.

    Raises:
      TypeError: `x` is not float32 or float64.

    Source:
      Hendrycks & Gimpel, arXiv:1606.08415 (2016).
    """
    return _gelu(_real(x))


def erf(x: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the error function, $2/\sqrt{\pi} \int_0^x e^{-t^2} dt$.

    $f' = 2/\sqrt{\pi}\, e^{-x^2}$, with $x^2$ carried to twice the digits, and
    $f'' = -2 x f'$.

    Args:
      x: any shape, float32 or float64.

    Returns:
      The shape and dtype of `x`; what `jax.scipy.special.erf` gives. Derivatives are
      right to 4 eps until they leave the normal numbers, at |x| = 9.3 in float32 and
      26.6 in float64, and 0 beyond.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return _erf(_real(x))


def elu(x: Float[Array, "..."], alpha: float | Array = 1.0) -> Float[Array, "..."]:
    r"""Return x where it is positive, and $\alpha (e^x - 1)$ elsewhere.

    The derivative is $\alpha e^x$ for x <= 0, where JAX takes the value plus alpha.

    Args:
      x: any shape, float32 or float64.
      alpha: minus the limit at -inf; dimensionless scalar.

    Returns:
      The shape and dtype of `x`; what `jax.nn.elu` gives.

    Raises:
      TypeError: `x` is not float32 or float64.

    Source:
      Clevert, Unterthiner & Hochreiter, arXiv:1511.07289 (2015).
    """
    x = _real(x)
    return jnp.where(x > 0, x, alpha * expm1(jnp.where(x > 0, 0.0, x)))


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 0), with derivative 0 at 0: that of JAX as it is.

    Args:
      x: any shape, float32 or float64.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return jax.nn.relu(_real(x))


def leaky_relu(
    x: Float[Array, "..."], negative_slope: float | Array = 0.01
) -> Float[Array, "..."]:
    """Return x where it is not negative, and a fraction of it elsewhere: that of JAX.

    Args:
      x: any shape, float32 or float64.
      negative_slope: the fraction, dimensionless scalar. The derivative is 1 at 0.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return jax.nn.leaky_relu(_real(x), negative_slope)


def hard_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x clipped to [-1, 1], with derivative 1 at both ends: that of JAX.

    Args:
      x: any shape, float32 or float64.

    Raises:
      TypeError: `x` is not float32 or float64.
    """
    return jax.nn.hard_tanh(_real(x))


def _real(x: Array) -> Array:
    _checks.real_floating(x, "x")
    return jnp.asarray(x)


def _smooth(value: Callable, first: Callable, second: Callable) -> Callable:
    """Make a function of one array from its value and two derivatives."""

    @jax.custom_jvp
    def slope(x):
        return first(x)

    @slope.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return slope(x), second(x) * dx

    @jax.custom_jvp
    def f(x):
        return value(x)

    @f.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return f(x), slope(x) * dx

    return f


class _Tail(NamedTuple):
    """A number ``part * scale`` that may be too small to hold before it is used."""

    part: Array
    scale: Array


def _exponential(high: Array, low: Array | None = None) -> _Tail:
    """``exp(-high - low)`` for high >= 0 and a small correction, never subnormal.

    XLA flushes subnormal numbers to zero, also those that a factor is yet to lift.
    """
    shift = 64.0 if high.dtype == jnp.float32 else 512.0
    far = high > shift
    part = jnp.exp(jnp.where(far, shift, 0.0) - high)
    if low is not None:
        # exp(-high) * exp(-low) XLA would make exp(-high - low) again.
        part = part + part * jnp.expm1(-low)
    return _Tail(part, jnp.where(far, math.exp(-shift), 1.0).astype(high.dtype))


class _Logistic(NamedTuple):
    """What S(v) and its derivatives are made of."""

    small: Array  # S(-|v|) / scale
    large: Array  # S(|v|)
    scale: Array
    turn: Array  # tanh(v / 2)

    def at(self) -> Array:
        return jnp.where(self.turn < 0, self.small * self.scale, self.large)

    def slope(self, factor: Array | float = 1.0) -> Array:
        """``factor S'(v)``."""
        return factor * (self.small * self.large) * self.scale

    def gate(self, stretch: Array) -> Array:
        """``S(v) (1 + stretch S(-v))``, the derivative of x S(v) with stretch x v'."""
        left = self.turn < 0
        near = jnp.where(left, self.small, self.large)
        away = jnp.where(left, self.large, self.small * self.scale)
        return near * (1 + stretch * away) * jnp.where(left, self.scale, 1)


def _logistic(v: Array, tail: _Tail | None = None) -> _Logistic:
    size = jnp.abs(v)
    part, scale = _exponential(size) if tail is None else tail
    e = part * scale
    large = 1 / (1 + e)
    # 1 - e cancels near zero: there the continued fraction of tanh, to seven terms.
    y = jnp.clip(v / 2, -1, 1)
    z = y * y
    above = 135135 + z * (17325 + z * (378 + z))
    below = 135135 + z * (62370 + z * (3150 + z * 28))
    turn = jnp.where(size < 0.7, y * above / below, jnp.sign(v) * (1 - e) / (1 + e))
    return _Logistic(part * large, large, scale, turn)


def _halve(x: Array) -> tuple[Array, Array]:
    """Split x exactly into two halves whose products with other halves are exact.

    Not Dekker's way: XLA contracts its products and sums.
    """
    high = _leading(x)
    return high, x - high


def _leading(x: Array) -> Array:
    info = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, info.nexp, (info.nmant - 1) // 2)


def _constant(number: tuple[float, float], dtype: jnp.dtype) -> tuple[float, float]:
    """Halves of a constant, as `_halve` makes them."""
    bits = (jnp.finfo(dtype).nmant - 1) // 2 + 1
    mantissa, exponent = math.frexp(number[0])
    high = math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)
    return high, (number[0] - high) + number[1]


def _gaussian(x: Array) -> tuple[Array, _Tail]:
    """X within the range of ``exp(-x^2)``, and that."""
    x = jnp.clip(x, -40, 40)
    high, low = _halve(x)
    return x, _exponential(high * high, low * (x + high))


def _gelu_gate(x: Array) -> tuple[Array, tuple[Array, Array], _Logistic]:
    """X clipped to the range of S(v), v' as a sum of two, and S(v)."""
    x = jnp.clip(x, -40, 40)
    size = jnp.abs(x)
    numbers = (GELU_LINEAR, GELU_CUBIC, GELU_SQUARE)
    a, b, c = (_constant(number, x.dtype) for number in numbers)
    # |v| = size * y with y = a + b size^2, and v' = a + c size^2, as sums of two.
    x0, x1 = _halve(size)
    square = _leading(size * size)
    rest = (x0 * x0 - square) + x1 * (size + x0)
    y0 = _leading(a[0] + b[0] * square)
    y1 = ((a[0] - y0) + b[0] * square) + (a[1] + b[0] * rest + b[1] * size * size)
    high, low = x0 * y0, x1 * y0 + size * y1
    v = jnp.where(x < 0, -1, 1).astype(x.dtype) * (high + low)
    s0 = _leading(a[0] + c[0] * square)
    s1 = ((a[0] - s0) + c[0] * square) + (a[1] + c[0] * rest + c[1] * size * size)
    return x, (s0, s1), _logistic(v, _exponential(high, low))


def _gelu_first(x: Array) -> Array:
    x, (s0, s1), S = _gelu_gate(x)
    return S.gate(x * (s0 + s1))


def _gelu_second(x: Array) -> Array:
    x, (s0, s1), S = _gelu_gate(x)
    slope = s0 + s1
    bend = 6 * GELU_CUBIC[0] * x
    # x v'^2 as a sum of two, the first of which is exact: multiplied out at once it
    # costs the two roundings that are too many.
    t0 = _leading(s0 * s0)
    t1 = (s0 * s0 - t0) + s1 * (s0 + slope)
    x0, x1 = _halve(x)
    rest = 2 * slope + x * bend - (x1 * t0 + x * t1) * S.turn
    return S.slope(rest - x0 * t0 * S.turn)


def _silu_first(x: Array) -> Array:
    # Infinity times zero is to be zero.
    x = jnp.clip(x, -1000, 1000)
    return _logistic(x).gate(x)


def _silu_second(x: Array) -> Array:
    x = jnp.clip(x, -1000, 1000)
    S = _logistic(x)
    return S.slope(2 - x * S.turn)


def _erf_first(x: Array) -> Array:
    _, (part, scale) = _gaussian(x)
    return TWO_OVER_SQRT_PI * part * scale


def _erf_second(x: Array) -> Array:
    x, (part, scale) = _gaussian(x)
    return -2 * TWO_OVER_SQRT_PI * x * part * scale


def _sigmoid_first(x: Array) -> Array:
    return _logistic(x).slope()


def _sigmoid_second(x: Array) -> Array:
    S = _logistic(x)
    return S.slope(-S.turn)


def _tanh_second(x: Array) -> Array:
    S = _logistic(2 * x)
    return S.slope(-8 * S.turn)


_tanh = _smooth(jnp.tanh, lambda x: _logistic(2 * x).slope(4), _tanh_second)
_sigmoid = _smooth(jax.nn.sigmoid, _sigmoid_first, _sigmoid_second)
_softplus = _smooth(jax.nn.softplus, lambda x: _logistic(x).at(), _sigmoid_first)
_silu = _smooth(jax.nn.silu, _silu_first, _silu_second)
_gelu = _smooth(lambda x: jax.nn.gelu(x, approximate=True), _gelu_first, _gelu_second)
_erf = _smooth(jax.lax.erf, _erf_first, _erf_second)
expm1 = _smooth(jnp.expm1, jnp.exp, jnp.exp)
