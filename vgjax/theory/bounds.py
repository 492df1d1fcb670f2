r"""Bounds of gradients of simple networks, by Pascanu, Mikolov & Bengio.

With $\gamma = \sup|\phi'|$, a step $x_t = W \phi(x_{t-1}) + \ldots$ multiplies no
gradient by more than $\gamma \sigma_{\max}(W)$.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from vgjax import _checks
from vgjax._linalg import exponent, scaled

__all__ = [
    "can_explode",
    "must_vanish",
    "pascanu_bound",
    "slope_bound",
    "vanishing_gain",
]


def __dir__() -> list[str]:
    return __all__


_SLOPES = {
    "identity": 1.0,
    "linear": 1.0,
    "tanh": 1.0,
    "hard_tanh": 1.0,
    "sigmoid": 0.25,
    "erf": 1.1283791670955126,  # 2 / sqrt(pi), at 0
    "relu": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
    "softplus": 1.0,
    "silu": 1.099839320128867,  # at x = 2.3994
    "gelu": 1.1289930686587717,  # at x = 1.4185
}


def slope_bound(activation: str) -> float:
    r"""Return the largest slope of an activation, $\gamma = \sup_x |\phi'(x)|$.

    Args:
      activation: the name of a function of `vgjax.activations`, with its default
        options, or "identity" or "linear".

    Returns:
      gamma, dimensionless: 1 for tanh, ReLU, leaky ReLU, ELU, hard tanh and softplus;
      1/4 for sigmoid; 2/sqrt(pi) for erf, which is not the one of `mean_field`;
      1.099839 for silu and 1.128993 for gelu, which are not monotonic.

    Raises:
      ValueError: `activation` is another.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), section 2.1, for tanh and sigmoid.

    Examples:
      >>> slope_bound("sigmoid")
      0.25
    """
    return _SLOPES[_checks.choice(activation, "activation", _SLOPES)]


def vanishing_gain(activation: str) -> float:
    r"""Return the spectral norm below which gradients must vanish, $1 / \gamma$.

    Args:
      activation: a name, as in `slope_bound`.

    Returns:
      $1/\gamma$, dimensionless: 1 for tanh, 4 for sigmoid. A recurrent matrix with a
      smaller $\sigma_{\max}$ lets no gradient live.

    Raises:
      ValueError: `activation` is another.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), section 2.1.
    """
    return 1 / slope_bound(activation)


def pascanu_bound(
    W: Float[Array, "N N"], gamma: float | Array, steps: Sequence[int] | Any
) -> Float[Array, " R"]:
    r"""Return the bound of the norm of a propagator, in logs.

    $\log \|\Phi(t + k, t)\|_2 \le k \log(\gamma \, \sigma_{\max}(W))$.

    Args:
      W: (N, N), the recurrent matrix; float32 or float64.
      gamma: bound of the slope of the activation, as of `slope_bound`; scalar, above 0.
      steps: (R,), k: whole numbers from 1 on, strictly increasing; concrete.

    Returns:
      (R,), nats. -inf if W is 0; NaN if it has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix, `gamma` no number above 0; `steps` is not
        of shape (R,), not strictly increasing, or has a number below 1.
      TypeError: `W` is not float32 or float64; `steps` are not whole numbers.

    Notes:
      Holds for x_t = W phi(x_{t-1}) and for h_t = phi(W h_{t-1}) alike, whatever the
      inputs and biases; the bound is reached by orthogonal W and linear units.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), equations 6 and 7, and supplement.

    Examples:
      >>> import jax.numpy as jnp
      >>> pascanu_bound(2 * jnp.eye(3), slope_bound("sigmoid"), [1, 100]).round(3)
      Array([ -0.693, -69.315], dtype=float32)
    """
    W = _checks.square(W)
    steps = jnp.asarray(_checks.static_steps(steps), W.dtype)
    return steps * _log_growth(W, gamma)


def must_vanish(W: Float[Array, "N N"], gamma: float | Array) -> Bool[Array, ""]:
    r"""Say whether gradients must vanish, $\sigma_{\max}(W) < 1/\gamma$.

    Sufficient, not necessary: they mostly vanish beyond it too.

    Args:
      W: (N, N), the recurrent matrix; float32 or float64.
      gamma: bound of the slope of the activation, as of `slope_bound`; scalar, above 0.

    Returns:
      Scalar bool. False if W has a NaN or an infinity. At equality, to rounding, both
      this and `can_explode` are in doubt.

    Raises:
      ValueError: `W` is not a square matrix, or `gamma` no number above 0.
      TypeError: `W` is not float32 or float64.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), section 2.1.
    """
    return _log_growth(_checks.square(W), gamma) < 0


def can_explode(W: Float[Array, "N N"], gamma: float | Array) -> Bool[Array, ""]:
    r"""Say whether gradients can explode at all, $\sigma_{\max}(W) > 1/\gamma$.

    Necessary, not sufficient: a slope below gamma may undo it.

    Args:
      W: (N, N), the recurrent matrix; float32 or float64.
      gamma: bound of the slope of the activation, as of `slope_bound`; scalar, above 0.

    Returns:
      Scalar bool. False if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix, or `gamma` no number above 0.
      TypeError: `W` is not float32 or float64.

    Source:
      Pascanu, Mikolov & Bengio, ICML (2013), section 2.1.
    """
    return _log_growth(_checks.square(W), gamma) > 0


def _log_growth(W: Array, gamma: float | Array) -> Array:
    """log(gamma sigma_max(W)), whatever the size of W."""
    gamma = _checks.positive(gamma, "gamma")
    log = jnp.log if isinstance(gamma, Array) else math.log  # float32 may be too short
    e = exponent(jnp.max(jnp.abs(W)))
    largest = jnp.log(jnp.linalg.norm(scaled(W, -e), 2))
    log_gamma = jnp.asarray(log(gamma), W.dtype)
    return largest + e.astype(W.dtype) * math.log(2) + log_gamma
