"""Exact, time-resolved spectra of the Jacobian products of recurrent networks.

A step is a pure callable PyTree ``step(carry, x) -> (carry, y)``; everything here is a
function of ``(step, carry, inputs)``, of a stack of matrices, or of one matrix.

| module | what it holds |
| --- | --- |
| `activations` | tanh, sigmoid and kin, with derivatives exact in saturation |
| `matrices` | recurrent matrices with a known spectrum |
| `products` | exact log singular values and vectors of products of matrices |
| `theory` | what mathematics predicts |
| `steps` | steps from linen, Equinox and plain functions; exact derivatives in any |
| `cells` | the zoo of Flax cells |
| `trajectories` | a step under `jax.lax.scan` |
| `jacobians` | state and input Jacobians, the propagator, saturation |
| `spectra` | from a step to its exact spectra, their rates; the leading values |
| `lyapunov` | Lyapunov exponents and covariant vectors |
| `gradients` | gradients carried back through time: cotangents, lags, flow, alignment |
| `plots` | pictures (loads matplotlib when it is first touched) |
"""

import importlib
from typing import TYPE_CHECKING, Any

from vgjax import (
    activations,
    cells,
    gradients,
    jacobians,
    lyapunov,
    matrices,
    products,
    spectra,
    steps,
    theory,
    trajectories,
)
from vgjax.gradients import LagContributions, lag_contributions
from vgjax.jacobians import propagator, state_jacobians
from vgjax.lyapunov import Lyapunov, lyapunov_spectrum
from vgjax.products import Spectrum
from vgjax.spectra import (
    LeadingSpectrum,
    Rates,
    growth_rates,
    jacobian_spectrum,
    leading_spectrum,
)
from vgjax.trajectories import Trajectory, rollout

if TYPE_CHECKING:
    from vgjax import plots

__all__ = [
    "LagContributions",
    "LeadingSpectrum",
    "Lyapunov",
    "Rates",
    "Spectrum",
    "Trajectory",
    "activations",
    "cells",
    "gradients",
    "growth_rates",
    "jacobian_spectrum",
    "jacobians",
    "lag_contributions",
    "leading_spectrum",
    "lyapunov",
    "lyapunov_spectrum",
    "matrices",
    "plots",
    "products",
    "propagator",
    "rollout",
    "spectra",
    "state_jacobians",
    "steps",
    "theory",
    "trajectories",
]

__version__ = "0.1.0"


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("vgjax.plots")
    msg = f"module 'vgjax' has no attribute {name!r}"
    raise AttributeError(msg)
