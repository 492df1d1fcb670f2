"""The largest singular values of a product of Jacobians, without any Jacobian."""

import math
import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from vgjax import _checks
from vgjax._frames import random_basis
from vgjax._linalg import varying_like, without_derivative_if
from vgjax._system import System, system
from vgjax._tolerances import LEADING_TOL, OVERSAMPLING, VALUE_ULPS
from vgjax._typing import Carry, Inputs, Step
from vgjax.products import identity, log_svd
from vgjax.products._errors import errors as errors_of
from vgjax.products._leaks import no_leaks
from vgjax.products._slopes import extended, with_slopes_of, without_lost_derivative
from vgjax.products.graded import balanced_if_due, push_unbalanced
from vgjax.products.singular import couplings
from vgjax.spectra._search import Estimate, search
from vgjax.spectra._sweeps import roundoff_per_step, sweeps

__all__ = ["LeadingSpectrum", "leading_spectrum"]


def __dir__() -> list[str]:
    return __all__


class LeadingSpectrum(NamedTuple):
    """The largest singular values of a product, in logs, with their vectors.

    Attributes:
      log_singular_values: (k,) nats, descending.
      left: (N, k), column i is the i-th left singular vector.
      right: (N, k), column i is the i-th right singular vector.
      change: (k,) nats, how far each value moved between the last two convergence
        checks.
      error: (k,) nats, estimated error: the residual bound, or the difference between
        forward and backward values if that is larger; inf where rounding decides.
      converged: (k,) bool, whether the error is within the tolerance.
      sweeps: () int32, forward and backward passes together count as one.
    """

    log_singular_values: Array
    left: Array
    right: Array
    change: Array
    error: Array
    converged: Array
    sweeps: Array


def leading_spectrum(
    step: Step,
    carry: Carry,
    inputs: Inputs = None,
    *,
    k: int,
    length: int | None = None,
    lag: int | None = None,
    tol: float | None = None,
    max_sweeps: int = 100,
    checkpoint_every: int | None = None,
) -> LeadingSpectrum:
    r"""Return the k largest log singular values of a Jacobian product, with vectors.

    A block of k + 8 vectors is carried forward by $\Phi$ and back by $\Phi^T$, sweep
    after sweep, orthonormalised on the way and its growth kept in logs: subspace
    iteration on $\Phi^T \Phi$, in any range. Where that is slow, the blocks of several
    sweeps are put together, and the best of their Krylov space begins the next. No
    Jacobian is made, so N may be as large as N (k + 8) numbers fit into memory some
    fifty times. Only where k + 8 vectors would be all there are is the product itself
    kept instead, as `vgjax.jacobian_spectrum` does.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D), or a PyTree with time along the leading axis, or None.
      k: how many singular values, from 1 to N.
      length: T, needed where there are no inputs.
      lag: the product of the last so many Jacobians, $\Phi(T, T - \mathrm{lag})$, from
        1 to T. Default: all of them, $\Phi(T, 0)$.
      tol: nats; sweeps end when no value is expected to be off by more. Default: 1e-9
        in float64, 2e-5 in float32.
      max_sweeps: after so many they end all the same.
      checkpoint_every: keep one state in so many, and recompute those between.
        Default: the square root of `lag`, rounded up.

    Returns:
      `LeadingSpectrum`: log_singular_values (k,), nats, descending, each from below
      but for round-off; left and right (N, k), $\Phi v_i \approx \sigma_i u_i$ and
      $\Phi^T u_i \approx \sigma_i v_i$; change (k,), nats, since the look before, which
      is one sweep back, or as many as blocks are collected; error (k,), nats, what a
      value may be off, by its residual, or by how much it is not the same there and
      back, or, where the product itself was kept, by what rounding did to it; inf where
      rounding decides; converged (k,), True where that is within `tol` and a few ulps;
      the number of sweeps, 0 where the product itself was kept. -inf is of an
      annihilated direction, or one that a single step shrinks to round-off: it cannot
      tell. After a Jacobian with a NaN or an infinity all is NaN, and not converged.

    Raises:
      ValueError: as `vgjax.rollout` does; `k` outside 1..N, `lag` or
        `checkpoint_every` outside 1..T, `max_sweeps` below 1; `tol` not above 0.
      TypeError: as `vgjax.rollout` does; `k`, `lag`, `max_sweeps` or `checkpoint_every`
        is no whole number.

    Warns:
      RuntimeWarning: some values have not converged in `max_sweeps`, or are settled
        but not the same there and back (under `jit` only the flag says so).

    Notes:
      Each sweep brings value i closer by $(\sigma_{k+9} / \sigma_i)^4$; the values of a
      cluster that ends within the k + 8 converge at its outer gap. Where all are nearly
      equal, as in a large network over few steps, that takes long; so where a sweep
      leaves a third of the error, blocks are collected, four at first, up to sixteen if
      four bring little. That is done only while the k + 8 values are within a third of
      the digits of each other, 12 nats in float64, or round-off would bury the
      smallest. Vectors converge half as fast: to about the square root of what their
      values do.

      The error is that of Rayleigh-Ritz values of $\Phi^T \Phi$ with relative residual
      r: r / 2, or $r^2 / 2$ over the gap if that is less, to the last of the k + 8. It
      is an estimate, as what is outside of the block is not known. The block is random
      at the start, always the same, so that no direction is missed.

      ``converged`` also asks that values are the same there and back, since round-off,
      eps times the norm of each Jacobian, is not. In a very non-normal product it can
      be what values are made of: with 30 steps of 0.5 on the diagonal of a 12 x 12
      matrix and 10 above it the largest value is 2e-6 off and the third 4e-3, and they
      say so; that of `vgjax.jacobian_spectrum` is right to 1e-14. So it is where a
      direction grows to be the largest after it was 36 nats (float32: 16) below others
      that it feeds or is fed by, and there no method is right: what rounding put into
      each vector of the block of the others is followed, and where it comes to be what
      a vector is made of, error is infinite. Where the product itself is kept, parts of
      the state that do not feed each other stay apart. What was below by more than the
      range of the dtype is lost without a trace. In float32 eight values of a tanh
      network of N = 4096 over 100 steps were 2e-6 off.

      A sweep costs 2 T products of a Jacobian with k + 8 vectors, four evaluations of
      each step, and factorisations of N (k + 8)^2; of a full space one of p^2 N (k +
      8)^2 every p sweeps, p up to 16. With s for `checkpoint_every`, memory is
      O((N + D) k + T N / s + s N), beside the inputs, of which 32 N (k + 8) numbers are
      the space. Differentiate in forward mode (`jax.jacfwd`): how often it sweeps
      depends on values, so there is no reverse mode. For N <= k + 8 nothing is swept:
      it multiplies the Jacobians, and has both modes.

    Source:
      Subspace iteration with Rayleigh-Ritz values: Halko, Martinsson & Tropp, SIAM Rev.
      53, 217 (2011), section 4.5, with the product kept in factors. Block Krylov
      spaces: Golub, Luk & Overton, ACM Trans. Math. Softw. 7, 149 (1981); Musco &
      Musco, NeurIPS (2015), algorithm 2. Error: Parlett, The Symmetric Eigenvalue
      Problem (1998), section 11.7 (Kato and Temple).

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> step = lambda h, x: (shear @ h, None)
      >>> found = vgjax.spectra.leading_spectrum(step, jnp.ones(2), k=1, length=400)
      >>> found.log_singular_values.round(1), bool(found.converged.all())
      (Array([-270.6], dtype=float32), True)
    """
    measured = system(step, carry, inputs, length)
    T = measured.T
    k = _checks.integer(k, "k", 1, measured.N)
    lag = T if lag is None else _checks.integer(lag, "lag", 1, T)
    if tol is not None:
        tol = _checks.positive(tol, "tol")
    max_sweeps = _checks.integer(max_sweeps, "max_sweeps", 1)
    c = math.isqrt(lag - 1) + 1
    if checkpoint_every is not None:
        c = _checks.integer(checkpoint_every, "checkpoint_every", 1, T)
    N, block = measured.N, k + OVERSAMPLING
    basis = random_basis(N, block, measured.product_dtype) if block < N else None
    found = _leading_spectrum(
        measured, basis, tol, k=k, lag=lag, c=min(c, lag), max_sweeps=max_sweeps
    )
    _warn_of_doubt(found, max_sweeps)
    return found


def _warn_of_doubt(found: LeadingSpectrum, max_sweeps: int) -> None:
    converged = found.converged
    if isinstance(converged, Tracer) or bool(converged.all()):
        return
    k, moving = len(converged), int((~converged).sum())
    if bool(jnp.isnan(found.log_singular_values).any()):
        msg = (
            f"All {k} leading singular values are NaN: a Jacobian of the trajectory "
            f"has a NaN or an infinity."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=3)
        return
    error = f"{float(found.error.max()):.1e} nats"
    msg = (
        f"{moving} of {k} leading singular values have not converged in "
        f"{found.sweeps} sweeps: they may be off by some {error}. They are lower "
        f"bounds, but for round-off. Raise `max_sweeps` or `tol`, ask for a `k` that "
        f"ends at a gap, or, of a very non-normal product, for "
        f"`vgjax.jacobian_spectrum`."
    )
    if found.sweeps < max_sweeps:
        msg = (
            f"{moving} of {k} leading singular values are lost in round-off: they "
            f"differ by up to {error} on the way there and on the way back. "
            f"`vgjax.jacobian_spectrum` keeps more digits, and float64 more than "
            f"float32."
        )
    warnings.warn(msg, RuntimeWarning, stacklevel=3)


@partial(jax.jit, static_argnames=("k", "lag", "c", "max_sweeps"))
def _leading_spectrum(system: System, basis, tol, *, k, lag, c, max_sweeps):
    system = system.last(lag)
    dtype = system.product_dtype
    tol = LEADING_TOL * float(jnp.finfo(dtype).eps) ** 0.5 if tol is None else tol
    if basis is None:
        return _from_the_product(system, k, tol)
    basis = varying_like(basis, system)
    roundoff = lag * roundoff_per_step(dtype)
    found = search(sweeps(system, c), basis, k, tol, max_sweeps, roundoff)
    found = _forward_only(found)
    return LeadingSpectrum(
        found.log_singular_values[:k],
        found.left[:, :k],
        found.right[:, :k],
        found.change[:k],
        found.error[:k],
        found.converged[:k],
        found.sweeps,
    )


@jax.custom_jvp
def _forward_only(found: Estimate) -> Estimate:
    """The same, with one sentence where it is differentiated in reverse mode."""
    return found


@_forward_only.defjvp
def _forward_only_jvp(primals, tangents):
    (found,), (moved,) = primals, tangents
    moved = jax.custom_derivatives.linear_call(_unmoved, _refuse_reverse, (), moved)
    return found, moved


def _unmoved(_, tangents):
    return tangents


def _refuse_reverse(*_):
    msg = (
        "Function `leading_spectrum` must be differentiated in forward mode, as by "
        "jax.jvp or jax.jacfwd, for how often it sweeps depends on values; "
        "vgjax.jacobian_spectrum has a reverse-mode derivative."
    )
    raise TypeError(msg)


def _from_the_product(system: System, k: int, tol: float) -> LeadingSpectrum:
    """All there is, where the block would be the whole space."""
    N, dtype = system.N, system.product_dtype
    eps = float(jnp.finfo(dtype).eps)

    def extend(state, at, x):
        product, whole, is_lost = state
        at, J = system.jacobian(at, x)
        J = J.astype(dtype)
        product, is_lost = without_lost_derivative(balanced_if_due(product), is_lost)
        return (push_unbalanced(product, J)[0], extended(whole, J), is_lost), at, None

    product = identity(N, dtype)._replace(leaks=no_leaks(N, dtype))
    start = (product, jnp.eye(N, dtype=dtype), jnp.zeros((), bool))
    (product, whole, is_lost), *_ = system.scan(extend, start)
    left, values, right = log_svd(product)
    seen, leaks = couplings(product)
    error = values if leaks is None else errors_of(leaks, seen.exponents, values)
    error = error[:k]
    values = with_slopes_of(whole, values, is_lost)
    left, right = (without_derivative_if(is_lost, basis) for basis in (left, right))
    change = jnp.where(jnp.isnan(values[:k]), jnp.nan, jnp.zeros(k, dtype))
    # No sweep would make it better, so what eps of a value is counts as none.
    size = jnp.where(jnp.isfinite(values[:k]), jnp.abs(values[:k]), 0)
    converged = error <= tol + VALUE_ULPS * eps * size
    if dtype == jnp.float32:  # few of whose values are known to `tol`
        converged = jnp.isfinite(error)
    return LeadingSpectrum(
        values[:k], left[:, :k], right[:, :k], change, error, converged, jnp.int32(0)
    )
