r"""How powers of a matrix come to be ruled by its largest eigenvalue.

A gradient carried back through t equal linear steps is a row vector times a power,
$x^T W^t$: the power method. It turns towards the principal left eigenvector, and
everything else that it knew is lost at the rate $\log|\lambda_2 / \lambda_1|$.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vgjax import _checks
from vgjax._linalg import angle_to_span, exponent, matmul, near_one, scaled
from vgjax.theory.eigenvalues import eigenvalue_rates, power_spectrum
from vgjax.theory.nonnormality import henrici_departure

__all__ = [
    "eigenvector_condition",
    "gelfand_rates",
    "power_method_angles",
    "power_method_rate",
    "principal_left_space",
]


def __dir__() -> list[str]:
    return __all__


def eigenvector_condition(W: Float[Array, "N N"]) -> Float[Array, ""]:
    r"""Return the condition number of the eigenvectors of a matrix.

    $\kappa(V) = \|V\| \|V^{-1}\|$ with unit eigenvectors in the columns of V. It bounds
    what powers can do beyond their eigenvalues: $\rho^t \le \|W^t\| \le \kappa(V)
    \rho^t$.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      Scalar, at least 1; 1 if W is normal to rounding. inf, or some number above
      eps^(-1/2), if W is defective. NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Unit columns come within sqrt(N) of the best scaling. Eigenvectors of an
      eigenvalue that W has more than once are not determined, and those found need not
      be the best conditioned, unless W is normal. Costs O(N^3); no TPU rule in JAX.

    Source:
      Bauer & Fike, Numer. Math. 2, 137 (1960); Trefethen & Embree, Spectra and
      Pseudospectra (2005), chapter 52; van der Sluis, Numer. Math. 14, 14 (1969), for
      the scaling.

    Examples:
      >>> import jax.numpy as jnp
      >>> eigenvector_condition(jnp.array([[1.0, 3.0], [0.0, 0.5]])).round(3)
      Array(12.083, dtype=float32)
    """
    W, _ = near_one(_checks.square(W))
    _, V = jnp.linalg.eig(W)
    sizes = jnp.linalg.svd(V, compute_uv=False)
    noise = 8 * len(W) * jnp.finfo(W.dtype).eps * jnp.max(jnp.abs(W))
    # LAPACK's eigenvectors of a repeated eigenvalue are anything, even so.
    normal = henrici_departure(W) <= noise
    return jnp.where(normal, jnp.ones((), W.dtype), sizes[0] / sizes[-1])


def gelfand_rates(
    W: Float[Array, "N N"], steps: Sequence[int] | Any
) -> Float[Array, " R"]:
    r"""Return the rates of growth of the norms of powers, $\log\|W^t\|_2 / t$.

    They tend to $\log \rho(W)$, and are never below it.

    Args:
      W: (N, N), float32 or float64.
      steps: (R,), t: whole numbers from 1 on, strictly increasing; concrete.

    Returns:
      (R,), nats per step. -inf where the power is 0; NaN if W has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix; `steps` is not of shape (R,), not strictly
        increasing, or has a number below 1 or above 10^7.
      TypeError: `W` is not float32 or float64; `steps` are not whole numbers.

    Notes:
      Convergence is slow where W is not normal: the excess is at most
      log(`eigenvector_condition`) / t. Costs as `power_spectrum`.

    Source:
      Gelfand, Mat. Sbornik 9, 3 (1941).
    """
    found = power_spectrum(W, steps)
    values = found.log_singular_values[:, 0]
    return values / found.steps.astype(values.dtype)


def power_method_rate(W: Float[Array, "N N"]) -> Float[Array, ""]:
    r"""Return the rate at which the power method forgets.

    That is $\log|\lambda_2 / \lambda_1|$, where $\lambda_1$ is the largest eigenvalue,
    or one of the largest pair, and $\lambda_2$ the largest of smaller modulus.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      Scalar, nats per step, negative. -inf if no eigenvalue but 0 is smaller; NaN if W
      has a NaN or an infinity, or no eigenvalue but 0.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Moduli within a factor 1 - sqrt(eps) of the largest count as the largest: a pair,
      or eigenvalues of opposite sign. A defective leading eigenvalue makes angles fall
      as 1/t, which no rate describes. Costs O(N^3); no TPU rule in JAX.

    Source:
      Golub & Van Loan, Matrix Computations (2013), section 7.3.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> power_method_rate(jnp.array([[1.0, 3.0], [0.0, 0.5]])).round(4)
      Array(-0.6931, dtype=float32)
    """
    below = eigenvalue_rates(_checks.square(W))
    below = below - below[0]
    return jnp.max(jnp.where(_leading(below), -jnp.inf, below))


def power_method_angles(
    W: Float[Array, "N N"], vector: Float[Array, " N"], steps: Sequence[int] | Any
) -> Float[Array, " R"]:
    r"""Return the angle between $x^T W^t$ and the principal left eigenvector of W.

    Measured by carrying the vector through the steps. Where the largest eigenvalue is
    one of a pair, or several have the largest modulus, the angle is that with the real
    plane, or space, that their left eigenvectors span.

    Args:
      W: (N, N), float32 or float64.
      vector: (N,), x, of the dtype of `W`; any length but 0.
      steps: (R,), t: whole numbers from 1 on, strictly increasing; concrete.

    Returns:
      (R,), radians, 0 to pi/2. Falls by `power_method_rate` per step, in nats, once
      other modes are gone; not below a few eps, the accuracy of the eigenvector. NaN
      once the vector is annihilated, if W has no eigenvalue but 0, and if W or the
      vector has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix, `vector` not of shape (N,); `steps` is not
        of shape (R,), not strictly increasing, or has a number below 1 or above 10^7.
      TypeError: `W` is not float32 or float64, or `vector` of another dtype; `steps`
        are not whole numbers.

    Notes:
      Rounding at every step puts the principal mode into a vector that lacks it.
      Costs O(N^3 + N^2 t); no TPU rule in JAX.

    Source:
      Golub & Van Loan, Matrix Computations (2013), section 7.3.1.
    """
    W = _checks.square(W)
    vector = jnp.asarray(vector)
    _checks.shape(vector, "vector", "N", N=len(W))
    _checks.same_dtype(vector, "vector", W.dtype)
    steps = jnp.asarray(_checks.steps_to_take(steps), jnp.int32)
    return _angles(W, vector, steps)


@jax.jit
def _angles(W: Array, vector: Array, steps: Array) -> Array:
    space = principal_left_space(W)
    W, _ = near_one(W)

    def record(x, more):
        x = jax.lax.fori_loop(0, more, lambda _, x: _near_one(matmul(x, W)), x)
        return x, angle_to_span(x, space)

    more = jnp.diff(steps, prepend=jnp.zeros(1, steps.dtype))
    return jax.lax.scan(record, _near_one(vector), more)[1]


def principal_left_space(W: Float[Array, "N N"]) -> Float[Array, "N N"]:
    r"""Return the space that back-propagation through equal steps ends up in.

    The real span of the left eigenvectors, $w^T W = \lambda w^T$, of the largest
    eigenvalue; of both of a complex pair; and of all that have the largest modulus.

    Args:
      W: (N, N), float32 or float64.

    Returns:
      (N, N), an orthonormal basis in the first columns, then zeros: one column for a
      single real eigenvalue, two for a pair. NaN if W has no eigenvalue but 0, and if
      it has a NaN or an infinity.

    Raises:
      ValueError: `W` is not a square matrix.
      TypeError: `W` is not float32 or float64.

    Notes:
      Moduli within a factor 1 - sqrt(eps) of the largest count as the largest. Costs
      O(N^3); no TPU rule in JAX.

    Source:
      Golub & Van Loan, Matrix Computations (2013), section 7.3.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> principal_left_space(jnp.diag(jnp.array([0.5, 2.0])))
      Array([[0., 0.],
             [1., 0.]], dtype=float32)
    """
    W, _ = near_one(_checks.square(W))
    values, V = jnp.linalg.eig(W.T)
    rates = jnp.log(jnp.abs(values))
    leads = _leading(rates - jnp.max(rates))
    V = jnp.where(leads[None, :], V, 0)
    parts = jnp.concatenate([jnp.real(V), jnp.imag(V)], axis=1)
    U, sizes, _ = jnp.linalg.svd(parts, full_matrices=False)
    tiny = jnp.sqrt(jnp.finfo(W.dtype).eps)
    space = jnp.where((sizes > tiny)[None, :], U, 0)
    return jnp.where(jnp.any(jnp.isfinite(rates)), space, jnp.nan)


def _leading(below: Array) -> Array:
    """Whether log moduli, relative to the largest, count as the largest."""
    return below > -(jnp.finfo(below.dtype).eps ** 0.5)


def _near_one(x: Array) -> Array:
    return scaled(x, -exponent(jnp.max(jnp.abs(x))))
