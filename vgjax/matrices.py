"""Recurrent matrices whose spectrum is known before they are made.

| function | eigenvalues | normal |
| --- | --- | --- |
| `gaussian` | fill a disc of radius `gain` | no |
| `orthogonal` | on the unit circle | yes |
| `normal` | those given | yes |
| `symmetric` | those given, real | yes |
| `rotation_blocks` | radius exp(+-i angle) | yes |
| `shear` | a, twice | only if b = 0 |
| `sparse` | fill a disc of radius `gain`, roughly | no |
| `with_spectral_radius` | those of a matrix, rescaled | as that is |

A normal matrix (one that commutes with its transpose) has singular values |lambda|,
and those of its powers are |lambda|^t: theory by eigenvalues is all there is to it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Float

from vgjax import _checks
from vgjax._linalg import exponent, matmul, near_one, scaled

__all__ = [
    "gaussian",
    "normal",
    "orthogonal",
    "rotation_blocks",
    "shear",
    "sparse",
    "symmetric",
    "with_spectral_radius",
]


def __dir__() -> list[str]:
    return __all__


def gaussian(
    key: Array, N: int, *, gain: float | Array = 1.0, dtype: jnp.dtype | None = None
) -> Float[Array, "N N"]:
    r"""Return a matrix of independent Gaussian entries, $W_{ij} \sim N(0, g^2/N)$.

    Args:
      key: JAX key.
      N: size, at least 1.
      gain: g, standard deviation of an entry times sqrt(N); dimensionless scalar.
      dtype: float32 or float64. Default: JAX's default float.

    Returns:
      (N, N). For large N its eigenvalues fill the disc of radius g evenly (the circular
      law), and its largest singular value comes to 2 g.

    Raises:
      ValueError: `N` is below 1, `gain` is no finite scalar, or `dtype` is float64
        while JAX's 64-bit mode is off.
      TypeError: `dtype` is neither float32 nor float64.

    Source:
      Girko, Theory Probab. Appl. 29, 694 (1985); Sompolinsky, Crisanti & Sommers,
      Phys. Rev. Lett. 61, 259 (1988), for the gain.
    """
    N = _checks.integer(N, "N", 1)
    dtype = _checks.dtype_or_default(dtype)
    return _scale(gain, "gain", dtype) * jax.random.normal(key, (N, N), dtype) / N**0.5


def orthogonal(
    key: Array, N: int, *, dtype: jnp.dtype | None = None
) -> Float[Array, "N N"]:
    """Return an orthogonal matrix, drawn evenly from all of them (Haar measure).

    Args:
      key: JAX key.
      N: size, at least 1.
      dtype: float32 or float64. Default: JAX's default float.

    Returns:
      (N, N). Its eigenvalues lie on the unit circle, its singular values are all 1.

    Raises:
      ValueError: `N` is below 1, or `dtype` is float64 while JAX's 64-bit mode is off.
      TypeError: `dtype` is neither float32 nor float64.

    Source:
      Mezzadri, Notices of the AMS 54, 592 (2007): the QR factorisation of a Gaussian
      matrix, its signs put right.
    """
    N = _checks.integer(N, "N", 1)
    return jax.random.orthogonal(key, N, dtype=_checks.dtype_or_default(dtype))


def normal(
    key: Array, eigenvalues: Array | np.ndarray | Sequence[complex]
) -> Float[Array, "N N"]:
    r"""Return a real normal matrix with the given eigenvalues, in a random basis.

    $W = Q B Q^T$ with Q Haar-orthogonal; B has the real eigenvalues on its diagonal and
    a 2 x 2 block [[x, -y], [y, x]] for every pair x +- iy.

    Args:
      key: JAX key.
      eigenvalues: (N,), concrete, float or complex, in any order; complex64 makes a
        float32 matrix. With every complex entry its exact conjugate must be there too:
        ``jnp.concatenate([z, z.conj()])``.

    Returns:
      (N, N), real. Its singular values are the magnitudes of the eigenvalues. Rounding
      moves all by about eps times the largest, so small ones have fewer digits.

    Raises:
      ValueError: `eigenvalues` is not of shape (N,) or not finite, or a conjugate is
        missing.
      TypeError: `eigenvalues` is of another type, such as integers.
    """
    # On the host: how many are real decides the shape of the blocks.
    values = np.asarray(eigenvalues)
    _checks.shape(values, "eigenvalues", "N")
    dtype = jnp.result_type(np.real(values))
    if dtype not in (jnp.float32, jnp.float64):
        msg = (
            "Argument `eigenvalues` must be float32, float64, complex64 or complex128, "
            f"but has dtype {values.dtype}."
        )
        raise TypeError(msg)
    _finite(values, "eigenvalues")
    real = np.real(values[np.imag(values) == 0])
    upper = np.sort(values[np.imag(values) > 0])
    lower = np.sort(values[np.imag(values) < 0].conj())
    if not np.array_equal(upper, lower):
        msg = (
            "Argument `eigenvalues` must have with every complex entry its exact "
            f"conjugate, but has {upper} above the real axis and, mirrored, {lower} "
            "below it."
        )
        raise ValueError(msg)
    pairs = _pair_blocks(
        jnp.asarray(np.real(upper), dtype), jnp.asarray(np.imag(upper), dtype)
    )
    B = jax.scipy.linalg.block_diag(jnp.diag(jnp.asarray(real, dtype)), pairs)
    Q = jax.random.orthogonal(key, len(values), dtype=dtype)
    return matmul(matmul(Q, B), Q.T)


def symmetric(key: Array, eigenvalues: Float[Array, " N"]) -> Float[Array, "N N"]:
    """Return a symmetric matrix with the given eigenvalues, in a random basis.

    Args:
      key: JAX key.
      eigenvalues: (N,), real, in any order.

    Returns:
      (N, N), symmetric to the last bit. Its singular values are the magnitudes of the
      eigenvalues. Rounding moves all by about eps times the largest.

    Raises:
      ValueError: `eigenvalues` is not of shape (N,), or not finite.
      TypeError: `eigenvalues` is not float32 or float64.
    """
    eigenvalues = jnp.asarray(eigenvalues)
    N = _checks.shape(eigenvalues, "eigenvalues", "N")["N"]
    dtype = _checks.real_floating(eigenvalues, "eigenvalues")
    _finite(eigenvalues, "eigenvalues")
    Q = jax.random.orthogonal(key, N, dtype=dtype)
    W = matmul(Q * eigenvalues[None, :], Q.T)
    return (W + W.T) / 2


def shear(a: float | Array, b: float | Array) -> Float[Array, "2 2"]:
    r"""Return [[a, b], [0, a]], the simplest matrix that is not normal.

    Its t-th power is $a^t$ [[1, $\tau$], [0, 1]], $\tau = t b / a$, with singular
    values $a^t (\sqrt{1 + \tau^2/4} \pm \tau/2)$: for a < 1 both vanish in the end, but
    the first may grow for long before.

    Args:
      a: eigenvalue, scalar.
      b: strength of the shear, scalar.

    Returns:
      (2, 2). Eigenvalue a, twice, with one eigenvector.

    Raises:
      ValueError: `a` or `b` is no finite scalar.
      TypeError: `a` or `b` is not float32 or float64.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    _checks.shape(a, "a", "")
    _checks.shape(b, "b", "")
    dtype = _common_dtype(a=a, b=b)
    a, b = a.astype(dtype), b.astype(dtype)
    return jnp.array([[a, b], [jnp.zeros((), dtype), a]])


def rotation_blocks(
    radii: Float[Array, " n"], angles: Float[Array, " n"]
) -> Float[Array, "2*n 2*n"]:
    r"""Return a block-diagonal matrix of rotations of the plane, each times a radius.

    Args:
      radii: (n,), what each block scales by; dimensionless.
      angles: (n,), what each block turns by, counter-clockwise; radians.

    Returns:
      (2n, 2n). Its eigenvalues are $r_k e^{\pm i \theta_k}$, and its singular values
      the magnitudes of the radii, each twice.

    Raises:
      ValueError: `radii` or `angles` is not of shape (n,) or not finite, or their sizes
        differ.
      TypeError: `radii` or `angles` is not float32 or float64.
    """
    radii, angles = jnp.asarray(radii), jnp.asarray(angles)
    sizes = _checks.shape(radii, "radii", "n")
    _checks.shape(angles, "angles", "n", **sizes)
    dtype = _common_dtype(radii=radii, angles=angles)
    radii, angles = radii.astype(dtype), angles.astype(dtype)
    return _pair_blocks(radii * jnp.cos(angles), radii * jnp.sin(angles))


def sparse(
    key: Array,
    N: int,
    *,
    nonzeros: int,
    gain: float | Array = 1.0,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "N N"]:
    r"""Return a matrix with a few Gaussian entries in each row, the others zero.

    Args:
      key: JAX key.
      N: size, at least 1.
      nonzeros: entries of a row that are not zero, in places drawn evenly; 1 to N.
      gain: g; an entry that is not zero is $N(0, g^2/\mathrm{nonzeros})$, so that the
        spectral radius is near g for large N.
      dtype: float32 or float64. Default: JAX's default float.

    Returns:
      (N, N).

    Raises:
      ValueError: `N` is below 1, `nonzeros` outside 1 to N, `gain` no finite scalar, or
        `dtype` float64 while JAX's 64-bit mode is off.
      TypeError: `dtype` is neither float32 nor float64.

    Source:
      Martens, ICML (2010), sec. 5, with 15 non-zeros.
    """
    N = _checks.integer(N, "N", 1)
    nonzeros = _checks.integer(nonzeros, "nonzeros", 1, N)
    dtype = _checks.dtype_or_default(dtype)
    gain = _scale(gain, "gain", dtype)
    places, entries = jax.random.split(key)
    # The order of N independent numbers is a random permutation, for each row.
    rank = jnp.argsort(jax.random.uniform(places, (N, N)), axis=1)
    W = jax.random.normal(entries, (N, N), dtype) / nonzeros**0.5
    return jnp.where(rank < nonzeros, gain * W, 0)


def with_spectral_radius(
    W: Float[Array, "N N"], radius: float | Array
) -> Float[Array, "N N"]:
    """Return W rescaled to a given spectral radius.

    Args:
      W: (N, N).
      radius: spectral radius, max |eigenvalue|, of the result; scalar. A negative one
        turns the sign of W.

    Returns:
      (N, N). NaN where W has no eigenvalue but zero.

    Raises:
      ValueError: `W` is not of shape (N, N), or `radius` is no finite scalar.
      TypeError: `W` is not float32 or float64.

    Notes:
      Costs an eigenvalue problem, O(N^3), which has no TPU rule in JAX.
    """
    W = _checks.array(W, "W")
    _checks.shape(W, "W", "N N")
    dtype = _checks.real_floating(W, "W")
    radius = _scale(radius, "radius", dtype)
    near, _ = near_one(W)
    largest = jnp.max(jnp.abs(jnp.linalg.eigvals(near)))
    e = exponent(largest)
    scale = radius / scaled(largest, -e)
    return jnp.where(largest > 0, scale * scaled(near, -e), jnp.nan)


def _pair_blocks(real: Array, imag: Array) -> Array:
    """(2n, 2n) with a block [[x, -y], [y, x]] for each of n pairs x +- iy."""
    n = len(real)
    blocks = jnp.stack([jnp.stack([real, -imag], 1), jnp.stack([imag, real], 1)], 1)
    k = jnp.arange(n)
    spread = jnp.zeros((n, 2, n, 2), real.dtype).at[k, :, k, :].set(blocks)
    return spread.reshape(2 * n, 2 * n)


def _scale(x: float | Array, name: str, dtype: np.dtype) -> Array:
    """Return a scalar in the dtype of a matrix, if it is finite there."""
    _checks.shape(x, name, "")
    if not isinstance(x, Tracer):
        if np.asarray(x).dtype.kind not in "iuf":
            msg = f"Argument `{name}` must be a number, but is {x!r}."
            raise ValueError(msg)
        _finite(x, name)
        with np.errstate(over="ignore"):
            small = not np.isfinite(np.asarray(x, dtype))
        if small:
            msg = f"Argument `{name}` must be finite in {dtype}, but is {x}."
            raise ValueError(msg)
    return jnp.asarray(x, dtype)


def _finite(x: float | Array | np.ndarray, name: str) -> None:
    """Refuse a NaN or an infinity, unless `jit` traces it."""
    if not isinstance(x, Tracer) and not np.all(np.isfinite(np.asarray(x))):
        msg = f"Argument `{name}` must be finite, but is {x}."
        raise ValueError(msg)


def _common_dtype(**arguments: Array) -> np.dtype:
    """Return the dtype of two arguments; a Python float takes that of the other."""
    for name, x in arguments.items():
        _checks.real_floating(x, name)
        _finite(x, name)
    return jnp.result_type(*arguments.values())
