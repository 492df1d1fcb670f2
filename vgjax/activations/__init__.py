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

from vgjax.activations.functions import elu as elu
from vgjax.activations.functions import erf as erf
from vgjax.activations.functions import gelu as gelu
from vgjax.activations.functions import hard_tanh as hard_tanh
from vgjax.activations.functions import leaky_relu as leaky_relu
from vgjax.activations.functions import relu as relu
from vgjax.activations.functions import sigmoid as sigmoid
from vgjax.activations.functions import silu as silu
from vgjax.activations.functions import softplus as softplus
from vgjax.activations.functions import tanh as tanh
from vgjax.activations.rewrite import exact as exact
from vgjax.activations.rewrite import plain as plain
