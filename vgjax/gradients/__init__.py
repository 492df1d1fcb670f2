"""Gradients carried back through time: where they come from, and what is left of them.

The loss reads a trajectory: its last state, all outputs, or the carry. The *direct*
cotangent of a state is how the loss moves with it when nothing else does; the
cotangent, without more, is the total: all later steps take part.

| module | what is there |
| --- | --- |
| `cotangents` | `cotangents`: of every state, in one backward pass; `log_cotangents`: |
| | the logs of their norms, by lag |
| `lags` | `lag_contributions`: the gradient of the parameters split by how many steps |
| | it travelled |
| `noise` | `signal_to_noise`: the mean of these parts over a batch, and its error |
| `flow` | `gradient_flow`: from every step the loss reads to every earlier state |
| `alignment` | `alignment`: with singular vectors and eigenvectors, over lag |
"""

from vgjax.gradients.alignment import Alignment as Alignment
from vgjax.gradients.alignment import alignment as alignment
from vgjax.gradients.cotangents import cotangents as cotangents
from vgjax.gradients.cotangents import log_cotangents as log_cotangents
from vgjax.gradients.flow import gradient_flow as gradient_flow
from vgjax.gradients.lags import LagContributions as LagContributions
from vgjax.gradients.lags import lag_contributions as lag_contributions
from vgjax.gradients.noise import SignalToNoise as SignalToNoise
from vgjax.gradients.noise import signal_to_noise as signal_to_noise
