r"""Laws that the singular values of any product of matrices obey.

With $\Phi = J_T \cdots J_1$ and singular values in descending order,

    sum over all i of log sigma_i(Phi) = sum over t of log|det J_t|,
    sum_{i<=k} log sigma_i(Phi) <= sum over t of sum_{i<=k} log sigma_i(J_t)   (Horn),
    sum_{i<=k} log|lambda_i(Phi)| <= sum_{i<=k} log sigma_i(Phi)               (Weyl),

the last two for every k, with equality at k = N. A spectrum that breaks one is wrong,
whatever made it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Float

from vgjax import _checks
from vgjax._linalg import log_abs_det
from vgjax.products.graded import identity, push
from vgjax.products.singular import log_singular_values
from vgjax.products.spectrum import Spectrum

__all__ = ["Laws", "check_laws", "violations"]


def __dir__() -> list[str]:
    return __all__


class Laws(NamedTuple):
    """By how much a spectrum keeps each law, in nats: 0, or >= 0, where it does.

    Attributes:
      determinant: (R,) sum of log sigma - sum of log|det J_t|; 0.
      horn: (R, N) what the factors allow the k largest - what they are; >= 0.
      weyl: (R, N) what the k largest are - what eigenvalues need; >= 0.
      order: (R, N) log sigma_k - log sigma_(k+1), 0 for the last; >= 0.
      error: (R, N) what the sum of the k largest may be off, by the errors of the
        spectrum.
    """

    determinant: Array
    horn: Array
    weyl: Array | None
    order: Array
    error: Array | None = None


def check_laws(
    spectrum: Spectrum,
    jacobians: Float[Array, "T N N"],
    *,
    log_abs_eigenvalues: Float[Array, "R N"] | None = None,
    reverse: bool = False,
) -> Laws:
    r"""Hold a spectrum to what no product of these matrices can break.

    Args:
      spectrum: of the products of the first ``steps[r]`` of the matrices, with any
        ``every``; as `vgjax.products.product_spectrum` or `vgjax.jacobian_spectrum`
        give it, or any other code. R rows of N values.
      jacobians: (T, N, N), first factor first, of the dtype of the spectrum.
      log_abs_eigenvalues: (R, N), nats, $\log|\lambda_i(\Phi)|$ of each row, in any
        order. Of powers of one W it is ``steps[:, None] * eigenvalue_rates(W)``.
        Default: Weyl's law is not asked.
      reverse: the spectrum is of the last ``steps[r]`` matrices.

    Returns:
      `Laws`, in nats, with ``error``: what the errors of the k largest values add up
      to, 0 where the spectrum has none, inf from the first undecided value on. In
      ``determinant`` every row should be 0, and in ``horn`` the last column, but for
      rounding; nothing should be negative. Two -inf differ by 0: rank lost by a factor
      and by the spectrum alike. -inf on one side only reads
      +-inf: a value lost that no factor annihilates makes ``determinant`` -inf, one
      kept that a factor annihilates makes it +inf. What a NaN touches is NaN, and so
      are rows of more steps than there are matrices where `jit` traces the steps.

    Raises:
      ValueError: `jacobians` is not a stack of square matrices, or the spectrum or
        `log_abs_eigenvalues` does not have R rows of N; or it has a row of more steps
        than there are matrices.
      TypeError: `jacobians` is not float32 or float64, or another dtype than the rest;
        the steps are not whole numbers.

    Notes:
      The laws cannot tell a product from the one in another order of time, unless
      there are rows of fewer than T steps. Where rounding of a factor decides its rank,
      its determinant may be small and its singular value -inf. Costs O(T N^3).

    Source:
      Horn, Proc. Natl. Acad. Sci. 36, 374 (1950); Weyl, Proc. Natl. Acad. Sci. 35, 408
      (1949); Horn & Johnson, Topics in Matrix Analysis (1991), section 3.3.

    Examples:
      >>> import jax.numpy as jnp
      >>> from vgjax.products import product_spectrum
      >>> matrices = jnp.stack([jnp.array([[0.5, 1.0], [0.0, 0.5]])] * 100)
      >>> found = product_spectrum(matrices, every=50)
      >>> broken = violations(check_laws(found, matrices), 1e-3)
      >>> {law: bool(rows.any()) for law, rows in broken.items()}
      {'determinant': False, 'horn': False, 'order': False}
    """
    jacobians = _checks.array(jacobians, "jacobians")
    sizes = _checks.shape(jacobians, "jacobians", "T N N")
    T, N = sizes["T"], sizes["N"]
    dtype = _checks.real_floating(jacobians, "jacobians")
    values = jnp.asarray(spectrum.log_singular_values)
    sizes = _checks.shape(values, "spectrum.log_singular_values", "R N", N=N)
    steps = jnp.asarray(spectrum.steps)
    _checks.shape(steps, "spectrum.steps", "R", R=sizes["R"])
    if not jnp.issubdtype(steps.dtype, jnp.integer):
        msg = (
            f"Argument `spectrum.steps` must be whole numbers, but has dtype "
            f"{steps.dtype}."
        )
        raise TypeError(msg)
    if not isinstance(steps, Tracer) and not jnp.all((steps >= 1) & (steps <= T)):
        msg = (
            f"Argument `spectrum.steps` must be from 1 to the {T} factors of "
            f"`jacobians`, but is {np.asarray(steps)}."
        )
        raise ValueError(msg)
    _checks.same_dtype(values, "spectrum.log_singular_values", dtype)
    eigen = log_abs_eigenvalues
    if eigen is not None:
        eigen = jnp.asarray(eigen)
        _checks.shape(eigen, "log_abs_eigenvalues", "R N", **sizes)
        _checks.same_dtype(eigen, "log_abs_eigenvalues", dtype)
    # Neither determinants nor singular values change when a factor is transposed.
    factors = jacobians[::-1] if reverse else jacobians
    det, allowed = _of_factors(factors)
    # Below 0 an index would count from the end.
    at = jnp.where(steps < 1, len(jacobians), steps - 1)
    det, allowed = (
        jnp.cumsum(x, axis=0).at[at].get(mode="fill", fill_value=jnp.nan)
        for x in (det, allowed)
    )
    sums = jnp.cumsum(values, axis=1)
    weyl = None
    if eigen is not None:
        eigen = jnp.sort(eigen, axis=1, descending=True)
        weyl = _difference(sums, jnp.cumsum(eigen, axis=1))
    error = getattr(spectrum, "error", None)
    if error is None:
        error = jnp.zeros_like(values)
    _checks.errors(error, *values.shape)
    following = jnp.concatenate([values[:, 1:], values[:, -1:]], axis=1)
    return Laws(
        determinant=_difference(sums[:, -1], det),
        horn=_difference(allowed, sums),
        weyl=weyl,
        order=_difference(values, following),
        error=jnp.cumsum(jnp.asarray(error, dtype), axis=1),
    )


def violations(laws: Laws, tolerance: float) -> dict[str, Bool[Array, " R"]]:
    """Say which rows of a spectrum break which law by more than its errors allow.

    Sums of the k largest may be off by the tolerance and what their errors add up to:
    where that is inf they break nothing, but with NaN. How values are ordered is no
    matter of errors, and judged by the tolerance alone.

    Args:
      laws: as of `check_laws`.
      tolerance: nats, what rounding is given; at least 0.

    Returns:
      For each law that was asked, by name, (R,): whether the row breaks it. NaN breaks
      every law. "horn" and "weyl" include that there is equality for all N values.

    Raises:
      ValueError: `tolerance` is no number of at least 0.
    """
    _checks.number(tolerance, "tolerance", "a number of at least 0", lambda x: x >= 0)
    plain = jnp.full_like(laws.order, tolerance)
    allowed = plain if laws.error is None else plain + laws.error
    broken = {"determinant": ~(jnp.abs(laws.determinant) <= allowed[:, -1])}
    for law in ("horn", "weyl", "order"):
        slack = getattr(laws, law)
        if slack is not None:
            room = plain if law == "order" else allowed
            kept = jnp.all(slack >= -room, axis=1)
            broken[law] = ~(kept & (slack[:, -1] <= room[:, -1]))
    return broken


@jax.jit
@jax.vmap
def _of_factors(J: Array) -> tuple[Array, Array]:
    """log|det J|, and the sums of its k largest log singular values."""
    values = log_singular_values(push(identity(len(J), J.dtype), J))
    return log_abs_det(J), jnp.cumsum(values)


def _difference(a: Array, b: Array) -> Array:
    """Return a - b, where -inf less -inf is 0."""
    both = (a == -jnp.inf) & (b == -jnp.inf)
    return jnp.where(both, 0, a - jnp.where(both, 0, b))
