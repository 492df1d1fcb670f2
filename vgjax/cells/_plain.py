"""One matrix, one nonlinearity."""

from typing import Any

import jax
from jax import Array

from vgjax import _checks, activations
from vgjax.cells._cell import Affine, Cell, input_matrix, passes_on, recurrent_matrix
from vgjax.cells._registry import zoo

__all__ = ["Recurrent"]


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


@zoo("linear", checked="diag(phi') W; all 1 for an orthogonal W", activation="linear")
@zoo("tanh", checked="diag(phi') W; mpmath at gain 8, 16, 32", activation="tanh")
@zoo("relu", checked="diag(phi') W", activation="relu")
@zoo("leaky_relu", checked="diag(phi') W", activation="leaky_relu")
@zoo("sigmoid", checked="diag(phi') W", activation="sigmoid")
@zoo(
    "irnn",
    checked="W = I, std of U",
    defaults={"recurrent": "identity", "input_std": 0.001},
    activation="relu",
)
@zoo(
    "smart_tanh",
    checked="radius 0.95, 15 non-zeros a row",
    defaults={"recurrent": "sparse", "spectral_radius": 0.95, "input_std": 0.01},
    activation="tanh",
)
class Recurrent(Cell):
    r"""The network of one matrix: $h_t = \phi(W h_{t-1} + U x_t + b)$.

    $J_t = \mathrm{diag}(\phi'(a_t)) W$, with $a_t$ the argument of $\phi$. Nothing
    keeps it from vanishing: $\|J_t\|_2 \le \max|\phi'| \, \|W\|_2$.

    Args:
      activation: $\phi$: "linear", or the name of one of `vgjax.activations`.
      input_std: standard deviation of the entries of U. Default: 1/sqrt(D).
      recurrence: recurrent="gaussian" | "orthogonal" | "identity" | "sparse", gain=1,
        spectral_radius=None and, of "sparse", nonzeros=15 a row.

    Source:
      Elman, Cogn. Sci. 14, 179 (1990). "irnn": ReLU, W = I, std of U 0.001 (Le,
      Jaitly & Hinton, arXiv:1504.00941 (2015)). "smart_tanh": 15 non-zeros a row,
      radius 0.95, std of U 0.01 (Pascanu, Mikolov & Bengio, ICML (2013), sec. 4).
    """

    @passes_on(recurrent_matrix)
    def make(
        self,
        key: Array,
        *,
        activation: str = "tanh",
        input_std: float | None = None,
        **recurrence: Any,
    ):
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
    keys = jax.random.split(key)
    return Affine(
        recurrent_matrix(keys[0], cell.features, cell.dtype, **recurrence),
        input_matrix(keys[1], cell, input_std),
        cell.zeros(cell.features),
    )
