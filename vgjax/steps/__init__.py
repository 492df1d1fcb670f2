"""Steps: what other libraries call a cell, as ``step(carry, x) -> (carry, y)``.

A cell of Flax nnx is a step as it stands. Others are wrapped:

| from | by |
| --- | --- |
| Flax linen module and its variables | `from_linen` |
| Equinox cell, ``cell(x, carry)`` | `from_equinox` |
| plain function of parameters, ``fn(params, carry, x)`` | `from_function` |
| any of these, with derivatives exact in saturation | `exact` |

All are PyTrees whose leaves are the weights: new weights of the same shapes run the
program that is already compiled.
"""

from vgjax.steps._adapters import from_equinox, from_function, from_linen
from vgjax.steps._exact import exact

__all__ = ["exact", "from_equinox", "from_function", "from_linen"]


def __dir__() -> list[str]:
    return __all__
