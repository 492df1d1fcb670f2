"""The zoo: cells of Flax nnx that are remedies for vanishing and exploding gradients.

`build` makes them by name, `names` lists the names, `options` says what can be chosen,
and `about` what a cell is and where it comes from; docs/cells.md has the table of all.
Their classes are here too, such as `vgjax.cells.GRU`, with equations and Jacobian in
their docstrings.

Each cell is a step ``cell(carry, x) -> (carry, y)``, and a PyTree whose leaves are the
weights: new weights of the same shapes run the program that is already compiled. The
first touch of a cell loads Flax.
"""

from typing import TYPE_CHECKING, Any

from vgjax.cells import _registry
from vgjax.cells._registry import about, build, is_over_depth, names, options

if TYPE_CHECKING:
    from vgjax.cells._attention import *  # noqa: F403
    from vgjax.cells._depth import *  # noqa: F403
    from vgjax.cells._gated import *  # noqa: F403
    from vgjax.cells._normalised import *  # noqa: F403
    from vgjax.cells._plain import *  # noqa: F403
    from vgjax.cells._residual import *  # noqa: F403
    from vgjax.cells._timescales import *  # noqa: F403
    from vgjax.cells._unitary import *  # noqa: F403

__all__ = ["about", "build", "is_over_depth", "names", "options"]


def __getattr__(name: str) -> Any:
    # Python asks for dunders of every module; no class has such a name.
    if not name.startswith("_") and name in _registry.classes():
        return _registry.classes()[name]
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*__all__, *_registry.classes()])
