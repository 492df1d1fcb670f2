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
from vgjax._linalg import any_in_batch, matmul
from vgjax._typing import Carry, Inputs, Step
from vgjax.jacobians import advance_with_jacobian
from vgjax.lyapunov._growth import Chain, Reading, first_block, grow, random_basis
from vgjax.lyapunov._tangent import pull_back, push_forward
from vgjax.products import LogSVD, identity, log_svd, push
from vgjax.trajectories import first, flat_step, prepare, state_size

# Vectors that go along beside the k asked for: value i converges by the square of
# sigma_(k+8+1) / sigma_i in each half of a sweep.
_SPARE = 8
# Times the square root of eps: 1e-9 nats in float64, 2e-5 in float32.
_DEFAULT_TOL = 0.07
# What round-off may add to the log of a pivot at each step, as a power of eps: 1e-11 in
# float64, 1e-5 in float32.
_ERROR = 0.7
# What round-off moves a value by from one sweep to the next.
_ULPS = 16
# Changes are not expected to follow each other by a larger ratio than this; round-off,
# at the end, has none.
_SLOWEST = 0.99


class LeadingSpectrum(NamedTuple):
    """What `leading_spectrum` found."""

    log_singular_values: Array  # (k,) nats, descending
    left: Array  # (N, k), column i is the i-th left singular vector
    right: Array  # (N, k), column i is the i-th right singular vector
    change: Array  # (k,) nats, how far the last sweep moved each value
    converged: Array  # (k,) bool
    sweeps: Array  # () int32, forward and back again


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
    iteration on $\Phi^T \Phi$, in any range. No Jacobian is made, so N may be as large
    as N (k + 8) numbers fit into memory a few times. Only where k + 8 vectors would be
    all there are is the product itself kept instead, as `vgjax.jacobian_spectrum` does.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D), or a PyTree with time along the leading axis, or None.
      k: how many singular values, from 1 to N.
      length: T, needed where there are no inputs.
      lag: the product of the last so many Jacobians, $\Phi(T, T - \mathrm{lag})$, from
        1 to T. Default: all of them, $\Phi(T, 0)$.
      tol: nats; sweeps end when no value is expected to move by more, or by more than
        16 eps of its size. Default: 1e-9 in float64, 2e-5 in float32.
      max_sweeps: after so many they end all the same.
      checkpoint_every: keep one state in so many, and recompute those between.
        Default: the square root of `lag`, rounded up.

    Returns:
      `LeadingSpectrum`: log_singular_values (k,), nats, descending, each from below;
      left and right (N, k), $\Phi v_i \approx \sigma_i u_i$ and
      $\Phi^T u_i \approx \sigma_i v_i$; change (k,), nats, of the last sweep; converged
      (k,), True where that change, and those that it lets expect to follow, are within
      `tol`; the number of sweeps, 0 where the product itself was kept. An annihilated
      direction reads -inf. After a Jacobian with a NaN or an infinity all is NaN, and
      not converged.

    Raises:
      ValueError: as `vgjax.rollout` does; `k` outside 1..N, `lag` or
        `checkpoint_every` outside 1..T, `max_sweeps` below 1; `tol` not above 0.
      TypeError: as `vgjax.rollout` does; one but `tol` is no whole number.

    Warns:
      RuntimeWarning: some values have not converged (under `jit` only the flag says
        so).

    Notes:
      Each sweep brings value i closer by $(\sigma_{k+9} / \sigma_i)^4$. Where many
      values are nearly equal, as in a large network over few steps, that takes long;
      the values of a cluster that ends within the k + 8 converge at its outer gap.
      Vectors converge half as fast: to about the square root of what their values do.

      The block is random at the start, always the same. Of a direction that stands out
      by g nats it has little, 1 / N, and some log(N) / (4 g) sweeps go by before values
      move by as much as g; until then their changes grow, which keeps ``converged``
      False, unless they are too small for values of that size to show.

      ``converged`` speaks of sweeps, not of round-off: eps times the norm of each
      Jacobian, which in a very non-normal product counts for more than in
      `vgjax.jacobian_spectrum`. On 30 steps of 0.5 on the diagonal of a matrix and 10
      above it the largest value was 1e-6 off, that of the spectrum 4e-15. In
      float32, with N = 4096 and all values within a nat, one was 0.2 nats too large,
      and not converged: use float64 there.

      A sweep costs 2 T products of a Jacobian with k + 8 vectors, three evaluations of
      each step, and factorisations of N (k + 8)^2. With s for `checkpoint_every`,
      memory is O((N + D) k + T N / s + s N), beside the inputs. Has no reverse-mode
      derivative: how often it sweeps depends on values.

    Source:
      Subspace iteration with Rayleigh-Ritz values: Halko, Martinsson & Tropp, SIAM Rev.
      53, 217 (2011), section 4.5, with the product kept in factors.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> step = lambda h, x: (shear @ h, None)
      >>> found = vgjax.lyapunov.leading_spectrum(step, jnp.ones(2), k=1, length=400)
      >>> found.log_singular_values.round(1), bool(found.converged.all())
      (Array([-270.6], dtype=float32), True)
    """
    prepared = prepare(step, carry, inputs, length)
    k = _checks.whole(k, "k", 1, state_size(prepared.carry))
    lag = prepared.T if lag is None else _checks.whole(lag, "lag", 1, prepared.T)
    if tol is not None:
        tol = _checks.positive(tol, "tol")
    max_sweeps = _checks.whole(max_sweeps, "max_sweeps", 1)
    c = math.isqrt(lag - 1) + 1
    if checkpoint_every is not None:
        c = _checks.whole(checkpoint_every, "checkpoint_every", 1, prepared.T)
    found = _leading_spectrum(*prepared, k, lag, min(c, lag), tol, max_sweeps)
    _warn_of_movement(found)
    return found


def _warn_of_movement(found: LeadingSpectrum) -> None:
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
    msg = (
        f"{moving} of {k} leading singular values have not converged in "
        f"{found.sweeps} sweeps: the last moved them by up to "
        f"{float(found.change.max()):.1e} nats. They are lower bounds. Raise "
        f"`max_sweeps` or `tol`, or ask for a `k` that ends at a gap."
    )
    warnings.warn(msg, RuntimeWarning, stacklevel=3)


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _leading_spectrum(frozen, weights, carry, inputs, T, k, lag, c, tol, max_sweeps):
    step, flat, _ = flat_step(frozen, weights, carry, first(inputs))
    skipped, inputs = (
        jax.tree.map(lambda a, part=part: a[part], inputs)
        for part in (slice(None, T - lag), slice(T - lag, None))
    )
    flat, _ = jax.lax.scan(
        lambda flat, x: (step(flat, x)[0], None), flat, skipped, length=T - lag
    )
    N, dtype = flat.state.size, flat.state.dtype
    block = k + _SPARE
    if block >= N:
        return _from_the_product(step, flat, inputs, lag, k)
    sweep = _sweeps(step, flat, inputs, lag, c)
    eps = float(jnp.finfo(dtype).eps)
    tol = _DEFAULT_TOL * eps**0.5 if tol is None else tol

    def is_moving(found: LeadingSpectrum) -> Array:
        known = ~jnp.any(jnp.isnan(found.log_singular_values))
        return known & ~jnp.all(found.converged[:k]) & (found.sweeps < max_sweeps)

    def advance(old: LeadingSpectrum) -> LeadingSpectrum:
        left, values, right = sweep(old.right)
        same = values == old.log_singular_values  # also where both are -inf
        change = jnp.where(same, 0, jnp.abs(values - old.log_singular_values))
        # What is still to come, if each change is smaller than the last by this ratio.
        ratio = jnp.minimum(change / old.change, _SLOWEST)
        ratio = jnp.where(jnp.isfinite(old.change), ratio, _SLOWEST)
        to_come = jnp.where(change > 0, change * ratio / (1 - ratio), 0)
        within = jnp.maximum(tol, _ULPS * eps * jnp.abs(values))
        converged = (change <= within) & (to_come <= within)
        return LeadingSpectrum(values, left, right, change, converged, old.sweeps + 1)

    basis = random_basis(N, block, dtype)
    unknown = jnp.full(block, jnp.inf, dtype)
    never = jnp.zeros(block, bool)
    start = LeadingSpectrum(unknown, basis, basis, unknown, never, jnp.int32(0))
    found = jax.lax.while_loop(is_moving, advance, start)
    return LeadingSpectrum(
        found.log_singular_values[:k],
        found.left[:, :k],
        found.right[:, :k],
        found.change[:k],
        found.converged[:k],
        found.sweeps,
    )


def _from_the_product(step, flat, inputs, T: int, k: int) -> LeadingSpectrum:
    """All there is, where the block would be the whole space."""
    advance = advance_with_jacobian(step)

    def extend(state, x):
        flat, product = state
        flat, J = advance(flat, x)
        return (flat, push(product, J)), None

    N, dtype = flat.state.size, flat.state.dtype
    start = (flat, identity(N, dtype))
    (_, product), _ = jax.lax.scan(extend, start, inputs, length=T)
    left, values, right = log_svd(product)
    known = ~jnp.isnan(values[:k])
    change = jnp.where(known, jnp.zeros(k, dtype), jnp.nan)
    return LeadingSpectrum(
        values[:k], left[:, :k], right[:, :k], change, known, jnp.int32(0)
    )


def _sweeps(step, flat, inputs, T: int, c: int):
    """Make ``sweep(right) -> LogSVD`` of Phi, restricted to the image of a block."""
    chunks = -(-T // c)
    # The first chunk is filled up from before the first step.
    times = jnp.arange(chunks * c, dtype=jnp.int32).reshape(chunks, c) - (
        chunks * c - T
    )
    push_block, pull_block = push_forward(step), pull_back(step)
    error = c * float(jnp.finfo(flat.state.dtype).eps) ** _ERROR
    padded = chunks * c > T

    def active(t):
        return t >= 0 if padded else None

    def at(t):
        return jax.tree.map(lambda a: a[jnp.maximum(t, 0)], inputs)

    def keep(flat, t):
        new, _ = step(flat, at(t))
        if padded:
            new = jax.tree.map(lambda n, f: jnp.where(t >= 0, n, f), new, flat)
        return new, flat

    def chunk_start(flat, t):
        return jax.lax.scan(lambda f, t: (keep(f, t)[0], None), flat, t)[0], flat

    _, checkpoints = jax.lax.scan(chunk_start, flat, times)

    forward = Chain(lambda flat, V, t: push_block(flat, V, at(t)), lambda _: (), ())

    def along(block, t):
        return grow(forward, block, t, active(t), error)

    def pull_at(_, U, at_time):
        flat, t = at_time
        return (), pull_block(flat, U, at(t))

    def read(seen: Reading):
        return seen.triangle, jnp.ones((), bool)

    def multiply(product, seen):
        triangle, done = seen
        return jax.lax.cond(
            any_in_batch(done), push, lambda p, _: p, product, triangle
        ), None

    def sweep(right: Array) -> LogSVD:
        k = right.shape[1]
        eye = jnp.eye(k, dtype=right.dtype)
        backward = Chain(pull_at, read, (eye, jnp.zeros((), bool)))

        def back(state, x):
            block, product = state
            t, start = x
            _, states = jax.lax.scan(keep, start, t)
            last_first = jax.tree.map(lambda a: a[::-1], (states, t))
            block, seen = grow(backward, block, last_first, active(t[::-1]), error)
            product, _ = jax.lax.scan(multiply, product, seen)
            return (block, product), None

        image = jax.lax.scan(along, first_block(flat, right), times)[0].basis
        start = (first_block((), image), identity(k, right.dtype))
        in_time = (times, checkpoints)
        end = jax.lax.scan(back, start, in_time, reverse=True)[0]
        A, values, B = log_svd(end[1])
        return LogSVD(matmul(image, B), values, matmul(end[0].basis, A))

    return sweep
