r"""How long a linear network remembers its input, in the Fisher sense.

The state of $s_t = W s_{t-1} + v x_t + \mathrm{noise}$ tells of an input k steps ago by
the Fisher information J(k), that of the noise taken into account. What non-normality
buys a network is memory: a normal one has no more than 1 in all.
"""

import numpy as np
import scipy  # its parts load when they are first touched
from jax import Array
from jaxtyping import Float

from vgjax import _checks

__all__ = ["fisher_memory"]


def __dir__() -> list[str]:
    return __all__


# Doublings: 2^60 steps, after which a radius below one has left nothing.
_MOST = 60


def fisher_memory(
    W: Float[Array, "N N"], vector: Float[Array, " N"], lags: int
) -> np.ndarray:
    r"""Return the Fisher information of the state about inputs at each lag.

    $J(k) = v^T W^{kT} C^{-1} W^k v$ with $C = \sum_j W^j W^{jT}$, for noise of unit
    variance in every unit at every step.

    Args:
      W: (N, N), float32 or float64; concrete.
      vector: (N,), v, how the input enters.
      lags: how many lags, k = 0, 1, ...; at least 1.

    Returns:
      (lags,), per unit of noise variance, float64; not negative. For |v| = 1 their sum
      over all k is 1 if W is normal, and at most N. NaN where the spectral radius is 1
      or more; where transients amplify the noise so much that C is beyond float64, or,
      scaled to a diagonal of ones, has an eigenvalue below N (N + 1) eps; and where W
      or v has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix, `vector` not of shape (N,), or `lags`
        below 1.
      TypeError: `W` or `vector` is not float32 or float64; `lags` is no whole number.

    Notes:
      C is summed by doubling, of terms that do not cancel; its condition, which grows
      with the transients of W, is what digits are lost to. Costs O(N^3) for each
      doubling, and O(N^2) for each lag.

    Source:
      Ganguli, Huh & Sompolinsky, Proc. Natl. Acad. Sci. 105, 18970 (2008).

    Examples:
      >>> import jax.numpy as jnp
      >>> fisher_memory(0.5 * jnp.eye(2, k=-1), jnp.array([1.0, 0.0]), 2)
      array([1. , 0.2])
    """
    A = _checks.host_square(W)
    v = _checks.concrete(vector, "vector")
    _checks.real_floating(v, "vector")
    v = v.astype(float)
    _checks.shape(v, "vector", "N", N=len(A))
    lags = _checks.integer(lags, "lags", 1)
    unknown = np.full(lags, np.nan)
    if not (np.isfinite(A).all() and np.isfinite(v).all()):
        return unknown
    if np.abs(np.linalg.eigvals(A)).max() >= 1:
        return unknown
    noise = _summed_noise(A)
    if not np.isfinite(noise).all():
        return unknown
    # C >= 1. Its Cholesky factor is right row by row if it is scaled like this.
    size = np.sqrt(np.diag(noise))
    even = noise / np.outer(size, size)
    # Not its condition, for which rounding below zero is as good as above.
    N = len(A)
    if np.linalg.eigvalsh(even)[0] <= N * (N + 1) * np.finfo(float).eps:
        return unknown
    factor, found = np.linalg.cholesky(even), []
    for _ in range(lags):
        part = scipy.linalg.solve_triangular(factor, v / size, lower=True)
        found.append(part @ part)
        v = A @ v
    return np.array(found)


def _summed_noise(W: np.ndarray) -> np.ndarray:
    total, power = np.eye(len(W)), W
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_MOST):
            if not power.any() or not np.isfinite(total).all():
                break
            total, power = total + power @ total @ power.T, power @ power
    return total
