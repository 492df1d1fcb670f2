"""Answers the slow way. Imports nothing of ours."""

import mpmath
import numpy as np


def log_singular_values(matrices, times, digits=200):
    """Log singular values of ``A_t ... A_1`` in arithmetic of so many digits.

    Returns {t: (N,) descending}. What is below 10^(-0.7 digits) of the largest is an
    exact zero, and reads -inf: choose digits accordingly, one for every 2.3 nats
    between the largest and the smallest and as many again.
    """
    with mpmath.workdps(digits):
        product = mpmath.eye(matrices.shape[-1])
        found = {}
        for t, matrix in enumerate(np.asarray(matrices, float), start=1):
            product = mpmath.matrix(matrix.tolist()) * product
            if t in times:
                found[t] = _logs(mpmath.svd_r(product, compute_uv=False), digits)
            if t == max(times):
                break
    return found


def _logs(values, digits):
    values = sorted(values, reverse=True)
    zero = values[0] * mpmath.mpf(10) ** (-0.7 * digits)
    return np.array([float(mpmath.log(v)) if v > zero else -np.inf for v in values])


def log_svd(matrices, digits=200):
    """U, log values, V of the whole product, as float arrays."""
    with mpmath.workdps(digits):
        product = mpmath.eye(matrices.shape[-1])
        for matrix in np.asarray(matrices, float):
            product = mpmath.matrix(matrix.tolist()) * product
        U, S, V = mpmath.svd_r(product)
        return _array(U), _logs(S, digits), _array(V).T


def _array(matrix):
    return np.array(matrix.tolist(), dtype=float)


def multiply_then_svd(matrices):
    """What a user would do instead: log singular values of each prefix, (T, N)."""
    product = np.eye(matrices.shape[-1])
    rows = []
    for matrix in np.asarray(matrices):
        product = matrix @ product
        with np.errstate(divide="ignore"):
            rows.append(np.log(np.linalg.svd(product, compute_uv=False)))
    return np.array(rows)


def sums_of_log_r(matrices):
    """Sorted sums of log |R_ii|, the QR method for Lyapunov exponents, (T, N)."""
    basis = np.eye(matrices.shape[-1])
    growth = []
    for matrix in np.asarray(matrices):
        basis, R = np.linalg.qr(matrix @ basis)
        growth.append(np.log(np.abs(np.diag(R))))
    return -np.sort(-np.cumsum(growth, axis=0), axis=1)


def log_abs_det(matrices):
    """Sums of log |det A_t|, (T,)."""
    return np.cumsum(np.linalg.slogdet(np.asarray(matrices))[1])


def central_difference(f, x, h):
    """Jacobian of f at x, (outputs, inputs)."""
    columns = [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))]
    return np.stack(columns, axis=1)


def sigmoid(a):
    """Logistic function."""
    return 1 / (1 + np.exp(-a))


def tanh_slope(a):
    """``tanh'`` without the cancellation of 1 - tanh^2."""
    e = np.exp(-2 * np.abs(a))
    return 4 * e / (1 + e) ** 2
