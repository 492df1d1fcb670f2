"""Maxima over circles in the complex plane, found with certainty.

Where a function of the angle has a given value is a question to an eigenvalue problem,
which answers with all such angles. So a maximum is not searched for on a grid: the
level is raised until it is not reached any more. On the host, in float64.
"""

import heapq
import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy  # its parts load when they are first touched

from vgjax._tolerances import DEFECTIVE_CONDITION, MAXIMUM_TOL, ON_CIRCLE, UNIT_MODULUS


def maximum_over_angles(
    value: Callable[[float], float],
    crossings: Callable[[float], np.ndarray],
    angles: np.ndarray,
) -> float:
    """Return the maximum over angles of a function with computable level sets.

    ``crossings(level)`` has all angles at which it has the value `level`, if not only
    those. Between two of them it is above or below throughout.
    """
    best = -math.inf
    while len(angles):
        found = max(value(angle) for angle in angles)
        if found <= best + MAXIMUM_TOL * abs(best):
            break
        best = found
        crossed = np.sort(crossings(best + MAXIMUM_TOL * abs(best)))
        following = np.append(crossed[1:], crossed[:1] + 2 * np.pi)
        angles = (crossed + following) / 2
    return float(best)


def unit_angles(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Angles of the eigenvalues of the pencil A - z B that lie on the unit circle."""
    top, bottom = np.asarray(scipy.linalg.eigvals(A, B, homogeneous_eigvals=True))
    a, b = np.abs(top), np.abs(bottom)
    return np.angle((top * bottom.conj())[np.abs(a - b) <= ON_CIRCLE * b])


def angles_at(W: np.ndarray, radius: float, epsilon: float) -> np.ndarray:
    """Angles of z with |z| = radius where epsilon is a singular value of z - W."""
    eye, zero = np.eye(len(W)), np.zeros_like(W)
    return unit_angles(
        np.block([[W, epsilon * eye], [zero, radius * eye]]),
        np.block([[radius * eye, zero], [epsilon * eye, W.T]]),
    )


def reach(W: np.ndarray, angle: float, epsilon: float) -> float:
    """Return the largest r with epsilon a singular value of r e^(i angle) - W."""
    turned, eye = np.exp(-1j * angle) * W, epsilon * np.eye(len(W))
    values = np.linalg.eigvals(np.block([[turned.conj().T, eye], [eye, turned]]))
    real = np.abs(values.imag) <= 1e-7 * np.abs(values).max()
    return float(values.real[real].max()) if real.any() else 0.0


def log_resolvent(W: np.ndarray, log_radius: float) -> float:
    """Return max over |z| = r of log ||(z - W)^-1||, for r outside the spectrum."""
    radius = math.exp(log_radius)

    def inverse_distance(angle):
        z = radius * np.exp(1j * angle)
        return 1 / np.linalg.svd(z * np.eye(len(W)) - W, compute_uv=False)[-1]

    start = np.append(np.angle(np.linalg.eigvals(W)), np.linspace(0, np.pi, 9))
    return math.log(
        maximum_over_angles(
            inverse_distance, lambda f: angles_at(W, radius, 1 / f), start
        )
    )


def highest_peak(
    f: Callable[[float], float], start: float, stop: float, best: float
) -> float:
    """Return the maximum of `best` and log(e^t - 1) + f(t), f convex."""
    ends = [(t, f(t)) for t in np.linspace(start, stop, 5)]
    intervals = [(-_room(*pair), *pair) for pair in itertools.pairwise(ends)]
    heapq.heapify(intervals)
    while -intervals[0][0] > best + 1e-10:
        _, left, right = heapq.heappop(intervals)
        t = (left[0] + right[0]) / 2
        middle = (t, f(t))
        best = max(best, math.log(math.expm1(t)) + middle[1])
        for pair in ((left, middle), (middle, right)):
            heapq.heappush(intervals, (-_room(*pair), *pair))
    return best


def _room(left: tuple[float, float], right: tuple[float, float]) -> float:
    """Return a bound of log(e^t - 1) + f(t) between two points of a convex f."""
    (a, fa), (b, fb) = left, right
    slope = (fb - fa) / (b - a)
    # Where log(e^t - 1) + slope t, which is concave, is largest.
    top = math.log(slope / (slope + 1)) if slope < -1 else math.inf
    t = min(max(top, a), b)
    return math.log(math.expm1(t)) + fa + slope * (t - a)


def unit_projector(W: np.ndarray) -> float:
    """Return the largest norm of the spectral projectors of unit eigenvalues.

    0 if all are inside the circle, inf if one is outside or defective.
    """
    inside = 1 - UNIT_MODULUS
    found = scipy.linalg.schur(W, "complex", sort=lambda z: abs(z) >= inside)
    T, n = found[0], found[-1]
    on, off = T[:n, :n], T[n:, n:]
    if n == 0 or np.abs(np.diag(on)).max() > 1 + UNIT_MODULUS:
        return math.inf if n else 0.0
    # Round-off would give the eigenvectors of a repeated eigenvalue any condition.
    on = np.where(np.abs(on) > 1e-12, on, 0)
    values, V = np.linalg.eig(on)
    if np.linalg.cond(V) > DEFECTIVE_CONDITION:
        return math.inf
    U = np.linalg.inv(V)
    # The projector on all of them is [[1, Y], [0, 0]] in the Schur basis.
    Y = scipy.linalg.solve_sylvester(on, -off, T[:n, n:]) if n < len(W) else T[:n, n:]
    close = [np.abs(values - value) < 1e-7 for value in values]
    parts = [V[:, k] @ U[k] for k in close]
    return max(float(np.linalg.norm(np.hstack([P, P @ Y]), 2)) for P in parts)
