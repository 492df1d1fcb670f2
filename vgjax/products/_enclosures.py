r"""Proved enclosures of the singular values of a matrix of balls.

The proof. Let $\Phi$ be the exact product, of rank r, and let U (N, r) and
$s_1 \ge \dots \ge s_r > 0$ be any exact numbers. Evaluate in balls
$Z = \Phi^T U S^{-1}$ and

    $\delta_U \ge \|U^T U - I\|$,  $\delta_Z \ge \|Z^T Z - I\|$,
    $\epsilon \ge \|U - \Phi Y\|$ for some Y (where r = N, 0).

Let P project onto the range of $\Phi$. Since the columns of $\Phi Y$ are in it,
$\|(I - P) U\| \le \epsilon$. Write $P = B B^T$ and $T = B^T U$, r by r. Then
$\Phi^T U = (\Phi^T B) T = Z S$, where $\Phi^T B$ has the r nonzero values of $\Phi$ and
$T^T T = U^T P U$ is within $\delta_T = \delta_U + \epsilon^2$ of I. A factor X moves
each singular value by a factor between its own smallest and largest (Ostrowski), so

    $|\log \sigma_i(\Phi) - \log s_i| \le
      -\frac12 \log(1 - \delta_T) - \frac12 \log(1 - \delta_Z)$.

How far the values are apart does not enter: if U is right to enough digits, Z is
orthonormal.
"""

from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

_MOST_SWEEPS = 40


def working_bits(rank: int, radius: float) -> int:
    """Bits that orthonormal columns are kept in, whatever the values' range."""
    return 64 + 2 * int(np.ceil(-np.log2(_tolerance(rank, radius))))


def _tolerance(rank, radius):
    return min(radius, 0.1) / (16 * rank)


def enclosed_logs(phi: Any, rank: int, radius: float, work: int) -> list[Any] | None:
    """Balls of the logs of the nonzero singular values, largest first.

    Each has at most this radius, in nats. None where the balls of `phi`, the precision
    of the context, or that of the columns, `work`, do not suffice.
    """
    if rank == 0:
        return []
    found = _triangular(phi.mid(), rank, work)
    if found is None:
        return None
    Q, columns, pivots = found
    with ctx.workprec(work):
        columns, J = _orthogonalised(columns, rank, _tolerance(rank, radius))
        values = [_norm(x).mid() for x in columns]
        order = sorted(range(rank), key=lambda k: values[k], reverse=True)
        values = [values[k] for k in order]
        J = _side_by_side([J[k] for k in order])
    U = (Q * J).mid()
    return _proved(phi, U, values, pivots, work, radius)


def _proved(phi, U, values, pivots, work, radius):
    """Logs of `values` with the radius that the module's docstring derives."""
    N, rank = U.nrows(), U.ncols()
    pulled = phi.transpose() * U
    outside = arb(0) if rank == N else _outside(phi, U, pulled, pivots)
    with ctx.workprec(work):
        inverses = [1 / s for s in values]
        scaled = [a * inverses[k % rank] for k, a in enumerate(pulled.entries())]
        delta_T = _from_identity(U) + outside
        delta_Z = _from_identity(arb_mat(N, rank, scaled))
        if not (delta_T < 1 and delta_Z < 1):
            return None
        moved = (-((1 - delta_T) * (1 - delta_Z)).log() / 2).upper()
        if not moved <= radius:
            return None
        return [s.log() + arb(0, moved) for s in values]


def _outside(phi, U, pulled, pivots):
    """Upper bound of the squared part of U outside of the range of phi."""
    columns = arb_mat([[row[k] for k in pivots] for row in phi.tolist()])
    rows = pulled.tolist()
    square = arb_mat([rows[k] for k in pivots]).transpose().mid()
    try:
        Y = square.inv().mid()  # U^T (columns Y) = I
    except ZeroDivisionError:
        return arb(1)
    return _most_squared(columns * Y - U)


def _from_identity(A):
    """Return an upper bound of the Frobenius norm of A^T A - I, an exact number."""
    n = A.ncols()
    one = arb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)])
    return _most_squared(A.transpose() * A - one).sqrt().upper()


def _most_squared(A):
    """Return an upper bound of the squared Frobenius norm."""
    # Not a * a: a ball around 0 would have squares below 0, and no root.
    return sum((a.abs_upper() ** 2 for a in A.entries()), arb(0)).upper()


def _norm(x):
    return (x.transpose() * x)[0, 0].sqrt()


def _side_by_side(columns):
    rows = zip(*(x.entries() for x in columns), strict=True)
    return arb_mat([list(row) for row in rows])


# How U and S are found: nothing here is proved, nor needs to be ---------------------


def _triangular(A, rank, work):
    """Pivoted Gram-Schmidt: Q (N, rank), the columns of A^T Q in few digits, pivots.

    None where A, in this precision, has a lower rank.
    """
    N = A.nrows()
    Q, rows, pivots = [], [], []
    for _ in range(rank):
        entries = A.entries()
        with ctx.workprec(64):
            squares = [a * a for a in entries]
            norms = [sum(squares[j::N], arb(0)).mid() for j in range(N)]
            pivot = max(range(N), key=lambda j: norms[j])
        q = arb_mat(N, 1, entries[pivot::N])
        norm = _norm(q).mid()
        if not norm > 0:
            return None
        q = (q * (1 / norm)).mid()
        # Once more: A holds its smallest columns to few digits, and q_1' q_N = 2^-100
        # would hide s_N below 2^-100 s_1.
        for other in Q:
            q = (q - other * (other.transpose() * q)[0, 0]).mid()
        q = (q * (1 / _norm(q).mid())).mid()
        row = (q.transpose() * A).mid()
        A = (A - q * row).mid()
        Q.append(q)
        pivots.append(pivot)
        with ctx.workprec(work):
            rows.append((row.transpose() * arb(1)).mid())
    return _side_by_side(Q), rows, pivots


def _orthogonalised(columns, rank, tolerance):
    """One-sided Jacobi: rotate columns until they are orthogonal, and the rotation.

    The columns are graded, largest first, and so is the rotation: each of its entries
    keeps its own relative accuracy.
    """
    X = list(columns)
    J = [arb_mat(rank, 1, [int(i == k) for i in range(rank)]) for k in range(rank)]
    squared = arb(tolerance) ** 2
    for _ in range(_MOST_SWEEPS):
        rotated = False
        for i in range(rank):
            for j in range(i + 1, rank):
                first = X[i].transpose()
                inner = (first * X[j])[0, 0].mid()
                a = (first * X[i])[0, 0].mid()
                b = (X[j].transpose() * X[j])[0, 0].mid()
                if not inner * inner > squared * a * b:
                    continue
                rotated = True
                zeta = (b - a) / (2 * inner)
                t = 1 / (abs(zeta) + (1 + zeta * zeta).sqrt())
                t = t if zeta.mid() >= 0 else -t
                c = (1 / (1 + t * t).sqrt()).mid()
                s = (c * t).mid()
                for V in (X, J):
                    V[i], V[j] = (
                        (V[i] * c - V[j] * s).mid(),
                        (V[i] * s + V[j] * c).mid(),
                    )
        if not rotated:
            break
    return X, J
