"""Steps made from what other libraries call a cell.

A cell of Flax nnx is a step as it stands. The others are wrapped:

| from | by |
| --- | --- |
| Flax linen module and its variables | `from_linen` |
| Equinox cell, ``cell(x, carry)`` | `from_equinox` |
| plain function of parameters, ``fn(params, carry, x)`` | `from_function` |

What these return are PyTrees whose leaves are the weights: new weights of the same
shapes run the program that is already compiled.
"""

from vgjax.cells._adapters import from_equinox as from_equinox
from vgjax.cells._adapters import from_function as from_function
from vgjax.cells._adapters import from_linen as from_linen
