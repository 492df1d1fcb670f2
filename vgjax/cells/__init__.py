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
from vgjax.cells._registry import About as About
from vgjax.cells._registry import about as about
from vgjax.cells._registry import build as build
from vgjax.cells._registry import is_over_depth as is_over_depth
from vgjax.cells._registry import names as names
from vgjax.cells._registry import options as options

if TYPE_CHECKING:
    from vgjax.cells._attention import *  # noqa: F403
    from vgjax.cells._depth import *  # noqa: F403
    from vgjax.cells._gated import *  # noqa: F403
    from vgjax.cells._normalised import *  # noqa: F403
    from vgjax.cells._plain import *  # noqa: F403
    from vgjax.cells._residual import *  # noqa: F403
    from vgjax.cells._timescales import *  # noqa: F403
    from vgjax.cells._unitary import *  # noqa: F403

_OTHERS = ("About", "about", "build", "is_over_depth", "names", "options")


def __getattr__(name: str) -> Any:
    # Not a list, in which every new class would have to be named again.
    if name == "__all__":
        return __dir__()
    # Python asks for other dunders of every module, which need not load Flax.
    if not name.startswith("_") and name in _registry.classes():
        return _registry.classes()[name]
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*_OTHERS, *_registry.classes()])
