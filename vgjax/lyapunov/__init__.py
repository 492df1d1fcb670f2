"""Lyapunov exponents and covariant vectors of trajectories.

| module | what is there |
| --- | --- |
| `exponents` | `lyapunov_spectrum` |
| `dimension` | `kaplan_yorke_dimension`, `entropy` of a spectrum |
| `covariant` | `covariant_vectors` |
"""

from vgjax.lyapunov.covariant import CovariantVectors, covariant_vectors
from vgjax.lyapunov.dimension import entropy, kaplan_yorke_dimension
from vgjax.lyapunov.exponents import Lyapunov, lyapunov_spectrum

__all__ = [
    "CovariantVectors",
    "Lyapunov",
    "covariant_vectors",
    "entropy",
    "kaplan_yorke_dimension",
    "lyapunov_spectrum",
]


def __dir__() -> list[str]:
    return __all__
