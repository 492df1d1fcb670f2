"""Pictures, each on a matplotlib Axes that it returns, and each of one question.

| picture | its question |
| --- | --- |
| `spectrum` | how does every singular value grow, and does theory say so? |
| `rates` | are measured growth rates those predicted? |
| `eigenvalues` | which modes of a matrix vanish, and which explode? |
| `compare` | how does one spectrum differ from others? |
| `exponents` | how many directions grow, and what dimension has the attractor? |
| `lags` | how far back does the gradient of the parameters come from? |
| `noise` | up to which lag does it stand out of its noise? |
| `flow` | how far does what the loss reads at one step reach back? |

Every function draws into `ax`, or into a new figure when that is None, and works in the
cells of ``plt.subplots(..., layout="constrained")``. The legend lies inside the axes,
with six entries at most; ``legend=False`` leaves it out. A batch, as `jax.vmap` makes
it, is drawn as its mean and a band of one standard deviation. What has no logarithm to
draw is left out and counted. `style` holds the colours, markers and line styles.
"""

from vgjax.plots import style as style
from vgjax.plots.compare import compare as compare
from vgjax.plots.eigenvalues import eigenvalues as eigenvalues
from vgjax.plots.exponents import exponents as exponents
from vgjax.plots.flow import flow as flow
from vgjax.plots.lags import lags as lags
from vgjax.plots.noise import noise as noise
from vgjax.plots.rates import rates as rates
from vgjax.plots.spectrum import spectrum as spectrum

__all__ = [
    "compare",
    "eigenvalues",
    "exponents",
    "flow",
    "lags",
    "noise",
    "rates",
    "spectrum",
    "style",
]


def __dir__() -> list[str]:
    return __all__
