"""Activation functions whose derivatives are right where those of JAX are lost.

Automatic differentiation takes the derivative of tanh as ``1 - tanh^2``, which is zero
from x = 20 on in float64 and x = 8 in float32; the derivative itself is 1.7e-17 and
4.5e-7 there, and with it go whole rows of a state Jacobian.

| what | where |
| --- | --- |
| `tanh`, `sigmoid`, `softplus`, `silu`, `gelu`, `erf`, `elu` | values of JAX, derivatives from formulas that do not cancel |
| `relu`, `leaky_relu`, `hard_tanh` | those of JAX, whose derivatives are exact |
| `exact` | any function, with these derivatives in place of JAX's |
| `plain` | any function, with JAX's derivatives in place of these |
"""  # noqa: E501

from vgjax.activations.functions import (
    elu,
    erf,
    gelu,
    hard_tanh,
    leaky_relu,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from vgjax.activations.rewrite import exact, plain

__all__ = [
    "elu",
    "erf",
    "exact",
    "gelu",
    "hard_tanh",
    "leaky_relu",
    "plain",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]


def __dir__() -> list[str]:
    return __all__
