"""The truth about a product, fast: ball arithmetic. Imports nothing of ours.

Exact float64 factors are multiplied in balls of so many bits that what is not known of
the product is far below its smallest singular value. Its rank is that of the same
product modulo primes. The midpoints then go through a pivoted QR decomposition with as
many bits, after which the grading is in the rows of R, and one-sided Jacobi rotations
of R^T find every value, however far they are apart, with few bits (Demmel and Veselic,
SIAM J. Matrix Anal. Appl. 13, 1204 (1992)).
"""

# pyright: reportAttributeAccessIssue=false

import flint
import gmpy2
import numpy as np

# Bits in which the rotations are done, and below which two columns are orthogonal.
_JACOBI_BITS = 320
_ORTHOGONAL = 120

# Bits by which the balls are smaller than the smallest value.
_MARGIN = 110

# The largest primes below 2^61 - 1, in which powers of two return too soon.
_PRIMES = (2305843009213693921, 2305843009213693907)


def log_singular_values(matrices, times):
    """Log singular values of ``A_t ... A_1`` in nats, correctly rounded.

    Returns {t: (N,) descending}; -inf where the rank of the product, as the product of
    the given floats without any rounding, is too low.
    """
    matrices = np.asarray(matrices, float)[: max(times)]
    times = sorted(set(map(int, times)))
    ranks = _ranks(matrices, times)
    found, bits = {}, _bits(matrices)
    # At last nothing is rounded at all, so this ends.
    while missing := [t for t in times if t not in found]:
        for t, product in _products(matrices, missing, bits):
            values = _read(product, ranks[t], bits)
            if values is not None:
                found[t] = values
        bits *= 3
    return {t: found[t] for t in times}


def reverse(matrices):
    """The factors whose prefixes have the singular values of suffixes of `matrices`."""
    return np.swapaxes(np.asarray(matrices)[::-1], 1, 2)


def _bits(matrices):
    """Bits that are likely to be enough, by the QR method in floats."""
    basis, growth, spread = np.eye(matrices.shape[-1]), 0, 0
    for matrix in matrices:
        scale = np.abs(matrix).max() or 1
        basis, R = np.linalg.qr(matrix / scale @ basis)
        with np.errstate(divide="ignore"):
            change = np.log2(np.abs(np.diag(R)))
        growth = growth + np.where(np.isfinite(change), change, 0)
        spread = max(spread, np.ptp(growth))
    return int(1.05 * spread) + 500


def _products(matrices, times, bits):
    """Yield (t, balls around the product of t factors)."""
    with flint.ctx.workprec(bits):
        product = flint.arb_mat(np.eye(matrices.shape[-1]).tolist())
        for t, matrix in enumerate(matrices[: max(times)], start=1):
            product = flint.arb_mat(matrix.tolist()) * product
            if t in times:
                yield t, product


def _read(product, rank, bits):
    """Log singular values; None if the balls, or the bits, do not tell."""
    entries = np.array(product.tolist(), dtype=object)
    logs = np.full(len(entries), -np.inf)
    if rank == 0:
        return logs
    values = _singular_values(_midpoints(entries, bits), rank, bits)
    if not values:
        return None
    unknown = max(_exponent(entry.rad()) for entry in entries.flat)
    unknown = max(unknown, gmpy2.get_exp(values[0]) - bits + 64)
    unknown += len(entries).bit_length()
    if unknown + _MARGIN > gmpy2.get_exp(values[-1]):
        return None
    with gmpy2.context(precision=_JACOBI_BITS):
        logs[:rank] = [float(gmpy2.log(value)) for value in values]
    return logs


def _exponent(ball):
    """The smallest e for which an exact |ball| < 2^e."""
    mantissa, exponent = ball.man_exp()
    return int(mantissa).bit_length() + int(exponent) if mantissa else -(2**62)


def _midpoints(entries, bits):
    def midpoint(ball):
        mantissa, exponent = map(int, ball.mid().man_exp())
        if exponent < 0:
            return gmpy2.div_2exp(gmpy2.mpfr(mantissa), -exponent)
        return gmpy2.mul_2exp(gmpy2.mpfr(mantissa), exponent)

    with gmpy2.context(precision=bits):
        return np.array([[midpoint(ball) for ball in row] for row in entries])


def _singular_values(matrix, rank, bits):
    """The largest values, descending, to a hundred bits of each; none if one is 0."""
    with gmpy2.context(precision=bits):
        rows = _graded_rows(matrix, rank)
    if len(rows) < rank:
        return []
    with gmpy2.context(precision=_JACOBI_BITS):
        # Unary plus rounds.
        norms = _orthogonalised([np.array([+value for value in row]) for row in rows])
        values = sorted((gmpy2.sqrt(norm) for norm in norms), reverse=True)
    return values if values[-1] > 0 else []


def _graded_rows(matrix, rank):
    """Rows of R, columns in any order, by Gram and Schmidt's method with pivoting.

    Fewer than `rank` where so many bits do not show more.
    """
    columns, rows = matrix.copy(), []
    for _ in range(rank):
        norms = (columns * columns).sum(0)
        if max(norms) == 0:
            break
        pivot = columns[:, np.argmax(norms)] / gmpy2.sqrt(max(norms))
        rows.append(pivot @ columns)
        columns = columns - np.outer(pivot, rows[-1])
    return rows


def _orthogonalised(vectors):
    """Squared lengths of vectors after rotations that make them orthogonal."""
    norms = [v @ v for v in vectors]
    rotated = True
    while rotated:
        rotated = False
        for i in range(len(vectors)):
            for j in range(i):
                inner = vectors[i] @ vectors[j]
                small = gmpy2.div_2exp(gmpy2.sqrt(norms[i] * norms[j]), _ORTHOGONAL)
                if abs(inner) <= small:
                    continue
                rotated = True
                zeta = (norms[j] - norms[i]) / (2 * inner)
                tangent = 1 / (abs(zeta) + gmpy2.sqrt(1 + zeta * zeta))
                tangent = tangent if zeta >= 0 else -tangent
                cosine = 1 / gmpy2.sqrt(1 + tangent * tangent)
                sine = cosine * tangent
                vectors[i], vectors[j] = (
                    cosine * vectors[i] - sine * vectors[j],
                    sine * vectors[i] + cosine * vectors[j],
                )
                norms[i], norms[j] = vectors[i] @ vectors[i], vectors[j] @ vectors[j]
    return norms


def _ranks(matrices, times):
    """{t: exact rank of the product}: modulo a prime it can only be too low."""
    ranks = dict.fromkeys(times, 0)
    N = matrices.shape[-1]
    for prime in _PRIMES:
        if min(ranks.values()) == N:
            break
        product = flint.nmod_mat(N, N, np.eye(N, dtype=int).ravel().tolist(), prime)
        for t, residues in enumerate(_residues(matrices, prime), start=1):
            product = flint.nmod_mat(N, N, residues.ravel().tolist(), prime) * product
            if t in ranks:
                ranks[t] = max(ranks[t], product.rank())
    return ranks


def _residues(matrices, prime):
    """Every float as an integer times a power of two, modulo a prime."""
    mantissas, exponents = np.frexp(matrices)
    integers = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    distinct, index = np.unique(exponents, return_inverse=True)
    powers = np.array([pow(2, int(e) - 53, prime) for e in distinct], dtype=object)
    return integers * powers[index.reshape(exponents.shape)] % prime
