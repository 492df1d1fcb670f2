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
| `spectra` | from a step to its exact spectra |
| `lyapunov` | Lyapunov exponents and vectors; leading spectra without Jacobians |
| `gradients` | gradients carried back through time: cotangents, lags, flow, alignment |
| `plots` | pictures (loads matplotlib when it is first touched) |
"""

import importlib
from typing import TYPE_CHECKING, Any

from vgjax import activations as activations
from vgjax import cells as cells
from vgjax import gradients as gradients
from vgjax import jacobians as jacobians
from vgjax import lyapunov as lyapunov
from vgjax import matrices as matrices
from vgjax import products as products
from vgjax import spectra as spectra
from vgjax import steps as steps
from vgjax import theory as theory
from vgjax import trajectories as trajectories
from vgjax.jacobians import propagator as propagator
from vgjax.jacobians import state_jacobians as state_jacobians
from vgjax.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from vgjax.spectra import growth_rates as growth_rates
from vgjax.spectra import jacobian_spectrum as jacobian_spectrum
from vgjax.trajectories import rollout as rollout

if TYPE_CHECKING:
    from vgjax import plots as plots

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("vgjax.plots")
    msg = f"module 'vgjax' has no attribute {name!r}"
    raise AttributeError(msg)
