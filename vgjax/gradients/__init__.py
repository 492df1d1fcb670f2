"""Gradients carried back through time: where they come from, and what is left of them.

The loss reads a trajectory: its last state, all outputs, or the carry. The *direct*
cotangent of a state is how the loss moves with it when nothing else does; the
cotangent, without more, is the total: all later steps take part.

| module | what is there |
| --- | --- |
| `cotangents` | `cotangents`: of every state, in one backward pass; |
| | `log_cotangents`: the logs of their norms by lag |
| `lags` | `lag_contributions`: the gradient of the parameters split by how many steps |
| | it travelled |
| `noise` | `signal_to_noise`: the mean of these parts over a batch, and its error |
| `flow` | `gradient_flow`: from every step the loss reads to every earlier state |
| `alignment` | `alignment`: with singular vectors and eigenvectors, over lag |
"""

from vgjax.gradients.alignment import Alignment, alignment
from vgjax.gradients.cotangents import cotangents, log_cotangents
from vgjax.gradients.flow import gradient_flow
from vgjax.gradients.lags import LagContributions, lag_contributions
from vgjax.gradients.noise import SignalToNoise, signal_to_noise

__all__ = [
    "Alignment",
    "LagContributions",
    "SignalToNoise",
    "alignment",
    "cotangents",
    "gradient_flow",
    "lag_contributions",
    "log_cotangents",
    "signal_to_noise",
]


def __dir__() -> list[str]:
    return __all__
