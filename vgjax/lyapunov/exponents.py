"""Lyapunov exponents: what tangent vectors grow by per step in the long run."""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Float

from vgjax import _checks
from vgjax._frames import (
    Block,
    Chain,
    Reading,
    factored_steps,
    first_block,
    input_at,
    no_leaks,
    random_basis,
)
from vgjax._linalg import descending, exponent, scaled, varying_like
from vgjax._qr_interval import adaptive_steps
from vgjax._system import System, system
from vgjax._tolerances import EXPONENT_TOL
from vgjax._typing import Carry, Inputs, Step
from vgjax.lyapunov._records import error_by_batch_means, record_length, records

__all__ = ["Lyapunov", "lyapunov_spectrum"]


def __dir__() -> list[str]:
    return __all__


class Lyapunov(NamedTuple):
    """Lyapunov exponents of a trajectory, with their errors and history.

    Attributes:
      exponents: (k,) nats per step, descending.
      standard_error: (k,) nats per step, by batch means.
      history: (R, k) nats per step, the estimate after `steps` steps.
      steps: (R,) int32, counted from the end of the burn-in.
      resolved: (k,) bool, False where an exponent is round-off, or decided by it.
      frame: (N, k) orthonormal, after the last step.
    """

    exponents: Array
    standard_error: Array
    history: Array
    steps: Array
    resolved: Array
    frame: Array


def lyapunov_spectrum(
    step: Step,
    carry: Carry,
    inputs: Inputs = None,
    *,
    length: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
    qr_every: int = 1,
    tol: float | None = None,
    frame: Float[Array, "N k"] | None = None,
    mask: Bool[Array, " T"] | None = None,
) -> Lyapunov:
    r"""Return the k leading Lyapunov exponents of a trajectory.

    k orthonormal tangent vectors are pushed along, $J_t Q_{t-1} = Q_t R_t$; exponent i
    is the mean of $\log|R_{ii}|$ over the steps after the burn-in.

    Args:
      step: ``step(carry, x) -> (carry, y)``, as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D), or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.
      k: how many exponents, from 1 to N. Default: all N.
      burn_in: steps that are taken, vectors and all, before anything is measured.
      qr_every: orthonormalise after so many steps. With 1, the default, the exponents
        are those of a factorisation at every step to within `tol`. Any other number is
        used as given, even where exponents are then lost in round-off.
      tol: nats per step, what leaving out factorisations may cost where `qr_every` is
        1. They are left out where the growth seen so far allows it, and the steps are
        taken again, one by one, where that turns out wrong. What shrinks and grows
        back within a group of steps is not seen; where that may be, give 0, which
        leaves out none. Default: 3e-7 in float64, 1e-3 in float32 (eps to the power
        0.42).
      frame: (N, k), independent columns to start from; they are made orthonormal. With
        that of an earlier result, and the carry in which its trajectory ended, a run
        goes on. Default: random, always the same, so that the first steps after a
        `burn_in` of 0 measure how it turns to the growing directions.
      mask: (T,), False for steps of padding, at the end or anywhere: they neither move
        the state and the frame nor count, here and in `burn_in`. Padding without a mask
        counts, and a sequence padded to twice its length reads half its exponents where
        the padded steps change nothing.

    Returns:
      `Lyapunov`: exponents (k,), nats per step, descending; standard_error (k,), nats
      per step, from the scatter of at most 32 batches (NaN for a single one, and for an
      exponent of -inf); history
      (R, k), the running estimates in the order of the exponents, after steps (R,);
      resolved (k,), False for an exponent that is round-off, or that round-off
      decided; frame (N, k), orthonormal,
      after the last step, its first columns spanning what grows most. All
      T - burn_in steps after the burn-in count, in records of equal length (1 to 32
      steps, or `qr_every` if that is more), of which the last may be shorter; with a
      mask, records past the last step repeat the final estimate. A direction
      that a step annihilates reads -inf. A Jacobian with a NaN or an infinity makes
      exponents, errors and the history from there on NaN, and so does a mask that
      leaves no step; ``resolved`` speaks of round-off only.

    Raises:
      ValueError: as `vgjax.rollout` does; `k` outside 1..N; `burn_in` outside 0..
        T - `qr_every`; `qr_every` outside 1..T; `tol` below 0; `frame` is not of shape
        (N, k), or `mask` not of shape (T,).
      TypeError: as `vgjax.rollout` does; `k`, `burn_in` or `qr_every` is no integer;
        `frame` has not the dtype of the products, or `mask` is not of bools.

    Warns:
      RuntimeWarning: some exponents are not resolved (under `jit` only the flag says
        so). They lie more than 36/`qr_every` nats (float64; 16/`qr_every` in float32)
        below the largest, or a factorisation found no more of them than round-off;
        lower `qr_every` if it is above 1. With 1, such a direction reads -inf. Or one
      of them fell by some 24 nats (float32: 11) against another and came back, so that
      what it turned to may be rounding.

    Notes:
      Exponents are averages: at finite T they are not the log singular values of the
      product divided by T, see `vgjax.jacobian_spectrum`, which gives those. The batch
      means behind the standard error are taken as independent, so batches should be
      longer than the correlations of the trajectory.

      Rounding puts a little of each direction into the others, and that grows with what
      they grow by. It is followed from one factorisation to the next, and where it
      comes near one, the two directions and those between are not resolved. Of
      directions beyond the k nothing is known: with k < N, one that falls below
      round-off and overtakes the k goes unnoticed.

      Each step costs one product of the Jacobian with k vectors (forward-mode
      derivatives; with k = N this is still less than making the Jacobian and
      multiplying), and a QR factorisation of N k^2 operations for every group of steps.
      Holds N k numbers, and k for each record.

    Source:
      Benettin et al., Meccanica 15, 9 (1980); the treppen iteration of Eckmann &
      Ruelle, Rev. Mod. Phys. 57, 617 (1985).

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> step = lambda h, x: (jnp.array([[2.0, 1.0], [1.0, 1.0]]) @ h % 1.0, None)
      >>> found = vgjax.lyapunov_spectrum(step, jnp.ones(2), length=200, burn_in=50)
      >>> found.exponents.round(2)
      Array([ 0.96, -0.96], dtype=float32)
    """
    measured = system(step, carry, inputs, length)
    N, T = measured.N, measured.T
    if k is not None:
        k = _checks.integer(k, "k", 1, N)
    if frame is None:
        basis = random_basis(N, N if k is None else k, measured.product_dtype)
    else:
        basis = jnp.linalg.qr(_checked_frame(frame, measured, k))[0]
    if mask is not None:
        mask = _checked_mask(mask, T)
    qr_every = _checks.integer(qr_every, "qr_every", 1, T)
    burn_in = _checks.integer(burn_in, "burn_in", 0, T - qr_every)
    if tol is not None:
        wanted = "a number of at least 0"
        tol = _checks.number(tol, "tol", wanted, lambda x: x >= 0)
    found = _lyapunov_spectrum(
        measured, basis, mask, burn_in=burn_in, qr_every=qr_every, tol=tol
    )
    _warn_of_roundoff(found, qr_every)
    return found


def _checked_frame(frame: Any, measured: System, k: int | None) -> Array:
    frame = _checks.array(frame, "frame")
    sizes = {"N": measured.N} | ({} if k is None else {"k": k})
    _checks.shape(frame, "frame", "N k", **sizes)
    _checks.integer(frame.shape[1], "frame.shape[1]", 1, measured.N)
    _checks.same_dtype(frame, "frame", measured.product_dtype)
    return frame


def _checked_mask(mask: Any, T: int) -> Array:
    mask = _checks.array(mask, "mask")
    _checks.shape(mask, "mask", "T", T=T)
    _checks.same_dtype(mask, "mask", np.dtype(bool))
    return mask


def _warn_of_roundoff(found: Lyapunov, qr_every: int) -> None:
    if isinstance(found.resolved, Tracer) or bool(found.resolved.all()):
        return
    k, lost = len(found.resolved), int((~found.resolved).sum())
    reach = _digits(found.exponents.dtype) / qr_every
    remedy = f"lower `qr_every`, which is {qr_every}, or ask" if qr_every > 1 else "ask"
    msg = (
        f"{lost} of {k} Lyapunov exponents are lost in round-off (`resolved` is "
        f"False): {found.exponents.dtype} cannot see what lies more than about "
        f"{reach:.1f} nats per step below the largest. To be rid of them, {remedy} for "
        f"fewer by `k`."
    )
    warnings.warn(msg, RuntimeWarning, stacklevel=3)


def _digits(dtype: jnp.dtype) -> float:
    """Nats between one and what is round-off beside it."""
    return -math.log(jnp.finfo(dtype).eps)


@partial(jax.jit, static_argnames=("burn_in", "qr_every"))
def _lyapunov_spectrum(system: System, basis, mask, *, burn_in, qr_every, tol):
    k, T, dtype = basis.shape[1], system.T, system.product_dtype
    tol = float(jnp.finfo(dtype).eps) ** EXPONENT_TOL if tol is None else tol
    # Lay the steps out in records, those of the burn-in first.
    c = record_length(T - burn_in, qr_every)
    R = -(-(T - burn_in) // c)
    times, active = records(T, burn_in, c, mask)
    is_full = mask is None and times.size == T
    is_first = jnp.arange(len(times)) == len(times) - R

    # Push the frame, factor it, and keep the logs of its pivots.
    def push(at, frame, t):
        return system.push(at, input_at(system.inputs, t), frame)

    def read(reading: Reading):
        return jnp.log(jnp.abs(jnp.diagonal(reading.triangle))), reading.noise

    chain = Chain(push, read, (jnp.zeros(k, dtype), jnp.zeros(k, bool)))

    def record(block, xs):
        t, active, is_first = xs
        # What leaked during the burn-in has made the first frame another.
        leaks = jax.tree.map(
            lambda a: jnp.where(is_first, jnp.zeros_like(a), a), block.leaks
        )
        block = block._replace(leaks=leaks)
        if qr_every == 1:
            block, (logs, noise) = adaptive_steps(chain, block, t, active, c * tol)
            return block, (jnp.sum(logs, axis=0), jnp.any(noise, axis=0))
        return _record_by_qr(chain, block, t, active, qr_every)

    block = first_block(system.start, basis, system, active)
    block = varying_like(block._replace(leaks=no_leaks(k, dtype)), block)
    xs = (times, None if is_full else active, is_first)
    end, (growth, noise) = jax.lax.scan(record, block, xs)

    # Sum up what came after the burn-in.
    counts = jnp.sum(active[-R:], axis=1, dtype=jnp.int32)
    assert end.leaks is not None  # it began with some
    is_noise = jnp.any(noise[-R:], axis=0) | end.leaks.decided
    return _summary(growth[-R:], is_noise, counts, qr_every, end.basis)


def _record_by_qr(chain: Chain, block: Block, t: Array, active, qr_every: int):
    """Growth of one record with a QR factorisation after every `qr_every` steps.

    Nothing looks whether so many steps leave the range of floats, so powers of two are
    kept beside the frame.
    """

    def push_near_one(carry, frame, t):
        at, e = carry
        at, frame = chain.push(at, frame, t)
        own = exponent(jax.lax.stop_gradient(jnp.max(jnp.abs(frame))))
        return (at, e + own), scaled(frame, -own)

    near_one = chain._replace(push=push_near_one)
    block = block._replace(carry=(block.carry, jnp.zeros((), jnp.int32)))
    stretch = factored_steps(near_one, block, t, active, qr_every)
    end, (logs, noise) = stretch.block, stretch.readings
    at, e = end.carry
    growth = jnp.sum(logs, axis=0) + e.astype(logs.dtype) * math.log(2)
    return end._replace(carry=at), (growth, jnp.any(noise, axis=0))


def _summary(
    growth: Array, noise: Array, counts: Array, qr_every: int, frame: Array
) -> Lyapunov:
    dtype = growth.dtype
    steps = jnp.cumsum(counts, dtype=jnp.int32)
    growth = jnp.where(counts[:, None] > 0, growth, 0)
    history = jnp.cumsum(growth, axis=0) / steps[:, None].astype(dtype)
    order = descending(history[-1])
    exponents = history[-1][order]
    reach = _digits(dtype) / qr_every
    above = (qr_every == 1) | ~(exponents < exponents[0] - reach)
    return Lyapunov(
        exponents,
        standard_error=error_by_batch_means(growth[:, order], counts),
        history=history[:, order],
        steps=steps,
        resolved=above & ~noise[order],
        frame=frame,
    )
