r"""What a matrix that is not normal does before its eigenvalues win.

A normal matrix has orthogonal eigenvectors, and $\|W^t\| = \rho^t$. Any other can grow
first: `henrici_departure` says how far from normal it is, `numerical_radius`,
`pseudospectral_radius` and `kreiss_constant` bound the growth, and `transient_growth`
is the growth itself.

All but `henrici_departure` run on the host in float64, on a concrete matrix: how often
they iterate depends on its values.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
import scipy  # its parts load when they are first touched
from jax import Array
from jaxtyping import Float

from vgjax import _checks
from vgjax._tolerances import DEFECTIVE_CONDITION, MAXIMUM_TOL, POWER_ROUNDING
from vgjax.theory._circles import (
    angles_at,
    highest_peak,
    log_resolvent,
    maximum_over_angles,
    reach,
    unit_angles,
    unit_projector,
)

__all__ = [
    "TransientGrowth",
    "henrici_departure",
    "kreiss_constant",
    "numerical_radius",
    "pseudospectral_radius",
    "transient_growth",
]


def __dir__() -> list[str]:
    return __all__


class TransientGrowth(NamedTuple):
    """The largest norm among the powers of a matrix, and where it is.

    Attributes:
      log_peak: The maximum over t >= 0 of log||W^t||_2, nats, at least 0.
      step: The first t where it is reached; -1 where it is not.
    """

    log_peak: float
    step: int


def henrici_departure(W: Float[Array, "N N"]) -> Float[Array, ""]:
    r"""Return how far a matrix is from normal, $(\|W\|_F^2 - \sum|\lambda_i|^2)^{1/2}$.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      Scalar, in the unit of the entries: the Frobenius norm of what stands above the
      diagonal of the Schur form. 0 if and only if W is normal; then rounding leaves
      about eps times the norm of W. NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Read off the Schur form, and not as that difference of squares, which leaves
      sqrt(eps) of the norm. LAPACK does that on the host, on any device. Costs O(N^3).

    Source:
      Henrici, Numer. Math. 4, 24 (1962).

    Examples:
      >>> import jax.numpy as jnp
      >>> henrici_departure(jnp.eye(5, k=1))
      Array(2., dtype=float32)
    """
    W = _checks.square(W)
    # JAX itself has the Schur form on CPU only.
    like = jax.ShapeDtypeStruct((), W.dtype)
    return jax.pure_callback(_departure, like, W, vmap_method="sequential")


def numerical_radius(W: Float[Array, "N N"]) -> float:
    r"""Return the largest $|x^* W x|$ over unit vectors.

    $w(W) = \max_\theta \lambda_{\max}((e^{i\theta} W + e^{-i\theta} W^T) / 2)$.

    Args:
      W: (N, N), float32 or float64; concrete.

    Returns:
      w, in the unit of the entries, to 1e-10, relative: $w \le \|W\|_2 \le 2 w$, and
      $\|W^t\|_2 \le 2 w^t$. NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      At any level, the angles where the curve crosses it are eigenvalues of a pencil,
      all of them; the level is raised until it is crossed no more. No grid, so no peak
      is missed. Costs O(N^3) with a large constant, a few times.

    Source:
      Mengi & Overton, IMA J. Numer. Anal. 25, 648 (2005), section 6; Berger, Notices
      Amer. Math. Soc. 12, 590 (1965), for the bound on powers.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(numerical_radius(jnp.eye(5, k=1)), 6)  # cos(pi / 6)
      0.866025
    """
    A, size = _scaled(_checks.host_square(W))
    if not 0 < size < np.inf:
        return 0.0 if size == 0 else math.nan

    def highest(angle):
        turned = np.exp(1j * angle) * A
        return scipy.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1]

    def crossings(level):
        N = len(A)
        return unit_angles(
            np.block([[np.zeros((N, N)), np.eye(N)], [-A.T, 2 * level * np.eye(N)]]),
            np.block([[np.eye(N), np.zeros((N, N))], [np.zeros((N, N)), A]]),
        )

    return size * maximum_over_angles(highest, crossings, np.linspace(0, np.pi, 9))


def pseudospectral_radius(W: Float[Array, "N N"], epsilon: float) -> float:
    r"""Return the largest modulus in the $\epsilon$-pseudospectrum of a matrix.

    $\rho_\epsilon = \max \{|z| : \sigma_{\min}(z - W) \le \epsilon\}$: the spectral
    radius of the worst W + E with $\|E\|_2 \le \epsilon$, E complex.

    Args:
      W: (N, N), float32 or float64; concrete.
      epsilon: size of the perturbation, in the unit of the entries; above 0.

    Returns:
      $\rho_\epsilon$, relative, to 1e-10 while epsilon is above 1e-9 of the norm of W;
      below, of a W as far from normal as a shift of 40, to some 1e-8. rho + epsilon if
      W is normal, more if not. inf beyond floats; NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix, or `epsilon` not a number above 0.
      TypeError: `W` is not float32 or float64.

    Notes:
      Rays find how far the set reaches at an angle, circles find all angles at which
      it reaches a radius, in turn. Costs O(N^3) with a large constant, a few times.
      An epsilon below about 1e-13 of the norm of W is lost in rounding.

    Source:
      Mengi & Overton, IMA J. Numer. Anal. 25, 648 (2005), the criss-cross method.
    """
    A = _checks.host_square(W)
    epsilon = float(_checks.positive(epsilon, "epsilon"))
    if not np.isfinite(A).all():
        return math.nan
    # Near one, or squares of entries would over- or underflow.
    e = math.frexp(max(np.abs(A).max(), epsilon))[1]
    A = np.ldexp(A, -e)
    epsilon = max(math.ldexp(epsilon, -e), float(np.finfo(float).tiny))
    values = np.linalg.eigvals(A)
    start = np.angle(values[np.argsort(-np.abs(values))[:4]])
    radius = maximum_over_angles(
        lambda angle: reach(A, angle, epsilon),
        lambda radius: angles_at(A, radius, epsilon),
        start,
    )
    with np.errstate(over="ignore"):
        return float(np.ldexp(radius, e))


def kreiss_constant(W: Float[Array, "N N"]) -> float:
    r"""Return the Kreiss constant, $\sup_{|z| > 1} (|z| - 1) \|(z - W)^{-1}\|_2$.

    The same as $\sup_{\epsilon > 0} (\rho_\epsilon - 1) / \epsilon$. It holds transient
    growth from both sides: $K \le \max_t \|W^t\|_2 \le e N K$.

    Args:
      W: (N, N), float32 or float64; concrete.

    Returns:
      K, dimensionless, at least 1; 1 if and only if the numerical radius is at most 1.
      Relative, to 1e-9; to 1e-8 where eigenvalues are nearer to the unit circle than
      1e-6 of it, and to 1e-4 nearer than 1e-9. inf if the spectral radius is above 1,
      or eigenvalues on the circle are defective: unit eigenvectors of condition above
      1e7 count as that. NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      The logarithm of the largest resolvent norm on |z| = r is convex in log r
      (Hadamard), so that chords bound it from above between radii where it is known;
      radii are added until no chord leaves room for more than was found. An eigenvalue
      is on the circle if within 1e-9 of it; then its spectral projector gives the
      limit |z| -> 1, and radii start at 1 + 1e-5.

    Source:
      Kreiss, BIT 2, 153 (1962); Spijker, BIT 31, 551 (1991), for e N K; Mitchell, SIAM
      J. Matrix Anal. Appl. 41, 1944 (2020), for other ways to compute it.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(kreiss_constant(jnp.array([[0.9, 5.0], [0.0, 0.9]])), 3)
      12.52
    """
    A = _checks.host_square(W)
    if not np.isfinite(A).all():
        return math.nan
    at_circle, w = unit_projector(A), numerical_radius(W)
    if math.isinf(at_circle):
        return math.inf
    if w <= 1 + MAXIMUM_TOL:
        return 1.0
    # From `stop` on, (r - 1) / (r - w) leaves no more than 1e-10.
    start, stop = 1e-5 if at_circle > 0 else 0.0, math.log(w + (w - 1) * 1e10)
    best = math.log(max(at_circle, 1.0))
    return math.exp(highest_peak(lambda t: log_resolvent(A, t), start, stop, best))


def transient_growth(
    W: Float[Array, "N N"], *, limit: int = 100_000
) -> TransientGrowth:
    r"""Return the largest norm that a power of a matrix has, $\max_t \|W^t\|_2$.

    Args:
      W: (N, N), float32 or float64; concrete.
      limit: look at no more than so many powers, at least 1.

    Returns:
      `TransientGrowth`: ``log_peak`` in nats, at least 0 since $W^0 = 1$, and
      its ``step``. (inf, -1) if powers grow without bound: the spectral radius is above
      1, or an eigenvalue on the unit circle defective, which eigenvectors of condition
      above 1e7 count as. (NaN, -1) if `limit` powers cannot tell, and if W has a NaN or
      an infinity.

    Raises:
      ValueError: `W` is not a square matrix, or `limit` is below 1.
      TypeError: `W` is not float32 or float64; `limit` is no whole number.

    Notes:
      Certain, up to 1e-12 nats: the search ends when $\|W^m\| \le 1$, for then
      $\|W^{m+t}\| \le \|W^t\|$; or when $\sum_i |\lambda_i|^m \|P_i\|$, with the
      spectral projectors P, is not above the peak. If several eigenvalues are on or
      near the unit circle, neither need come soon. A supremum that is only approached
      counts as reached within that. An eigenvalue within 1e-9 of the circle counts as
      on it. Costs O(N^3) a power.

    Source:
      Trefethen & Embree, Spectra and Pseudospectra (2005), part IV.

    Examples:
      >>> import jax.numpy as jnp
      >>> growth = transient_growth(jnp.array([[0.9, 5.0], [0.0, 0.9]]))
      >>> round(growth.log_peak, 4), growth.step
      (2.9642, 9)
    """
    A = _checks.host_square(W)
    limit = _checks.integer(limit, "limit", 1)
    if not np.isfinite(A).all():
        return TransientGrowth(math.nan, -1)
    if math.isinf(unit_projector(A)):
        return TransientGrowth(math.inf, -1)
    rates, log_weights = _modes(A)
    power, scale, peak, step = np.eye(len(A)), 0.0, 0.0, 0
    for t in range(1, limit + 1):
        power = power @ A
        norm = float(np.linalg.norm(power, 2))
        if norm == 0:
            return TransientGrowth(peak, step)
        scale, power = scale + math.log(norm), power / norm
        if scale > peak + POWER_ROUNDING:
            peak, step = scale, t
        later = np.logaddexp.reduce(log_weights + t * rates)
        if min(scale, later - peak) <= POWER_ROUNDING:
            return TransientGrowth(peak, step)
    return TransientGrowth(math.nan, -1)


def _modes(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""log|lambda_i| and log||P_i||, $W^t = \sum \lambda_i^t P_i$; inf if unknown."""
    values, V = np.linalg.eig(W)
    with np.errstate(divide="ignore"):
        rates = np.log(np.abs(values))
    if np.linalg.cond(V) > DEFECTIVE_CONDITION:
        return np.zeros_like(rates), np.full_like(rates, np.inf)
    sizes = np.linalg.norm(V, axis=0) * np.linalg.norm(np.linalg.inv(V), axis=1)
    return rates, np.log(sizes)


def _departure(matrix: Array) -> np.ndarray:
    W = np.asarray(matrix)
    if not np.isfinite(W).all():
        return np.asarray(np.nan, W.dtype)
    # Squares of what is far from one would over- or underflow.
    A, size = _scaled(W)
    T = np.asarray(scipy.linalg.schur(A)[0])
    # A block [[a, b], [c, a]] of a pair holds (b + c)^2 more than its eigenvalues.
    return np.asarray(size * np.linalg.norm(np.triu(T + T.T, 1)), W.dtype)


def _scaled(W: np.ndarray) -> tuple[np.ndarray, float]:
    """Return W with the entry of largest modulus 1, and what that modulus was."""
    size = np.abs(W).max()
    return (W / size if 0 < size < np.inf else W), float(size)
