"""Where the long-term part of the gradient drowns in its own fluctuations."""

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _calls
from vgjax._scaled import Scaled, at_exponent, log_norm
from vgjax._system import OwnedArrays, System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, Reading, as_cotangents, reading_of
from vgjax.gradients._parts import concrete_or_none, is_read_early, over_lags
from vgjax.gradients._unrolled import Unrolled, parameters, pulls, unroll

__all__ = ["SignalToNoise", "signal_to_noise"]


def __dir__() -> list[str]:
    return __all__


class SignalToNoise(NamedTuple):
    """The parts of the gradient over a batch, by lag.

    Attributes:
      lags: (T,) 0 to T-1, steps.
      log_signal: (T,) nats, log norm of the mean over the batch.
      log_noise: (T,) nats, log norm of the standard error of that mean.
      ratio: (T,) signal over noise, dimensionless.
    """

    lags: Array
    log_signal: Array
    log_noise: Array
    ratio: Array


def signal_to_noise(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
    wrt: Any = None,
) -> SignalToNoise:
    r"""Return how far the mean gradient part of each lag stands out of a batch.

    With $G_k^b$ the part of lag k (see `lag_contributions`) of member b of a batch of
    B, the signal is the norm of the mean over b, and the noise its standard error,

    $$\sqrt{\frac{1}{B} \sum_i \mathrm{var}_b \, (G_k^b)_i},$$

    the variances unbiased, the sum over all parameters. Where the members are
    independent and the expected part is zero, the mean of signal^2 is that of noise^2.

    Args:
      step: as for `lag_contributions`, the same for the whole batch.
      carry: initial carries, the batch along the leading axis of each leaf; B >= 2.
      inputs: (B, T, D), or a PyTree whose leaves have B and T in front, or None.
      loss: as for `cotangents`. The leading axis of its arrays is the batch:
        ``jax.tree_util.Partial(nll, labels)`` with labels (B, ...), which is called for
        one member at a time; or (B, T+1, N) direct cotangents.
      length: T, needed where there are no inputs.
      wrt: as for `lag_contributions`.

    Returns:
      `SignalToNoise`: lags (T,); log_signal and log_noise (T,), nats, -inf for exactly
      zero; ratio (T,), signal over noise, infinite where only the noise is zero and NaN
      where both are.

    Raises:
      ValueError: as `lag_contributions` does, for one member; the leaves do not share
        one batch axis of at least 2.
      TypeError: as `lag_contributions` does.

    Notes:
      Costs what `lag_contributions` does for every member; holds B gradients, not T B.
      One member whose loss reads an earlier step than the last makes all pay for it;
      outside of a trace a first program says whether one does, and is waited for.

    Examples:
      >>> import jax, jax.numpy as jnp, vgjax
      >>> def scale(w, h, x):
      ...     return w * h + x, None
      >>> step = vgjax.steps.from_function(scale, jnp.array(0.5))
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> inputs = jnp.array([[[1.0]] * 3, [[2.0]] * 3])
      >>> found = signal_to_noise(step, jnp.ones((2, 1)), inputs, last)
      >>> found.ratio.round(2)
      Array([3.33, 4.  ,  inf], dtype=float32)
    """
    loss = _Batched(loss if callable(loss) else as_cotangents(loss))
    _check_batch(carry=carry, inputs=inputs, loss=loss.arrays)
    measured = _member_system(step, carry, inputs, length)
    _, places = parameters(step, wrt)
    reading = reading_of(loss.member(), measured)
    batch = jax.tree.map(jnp.asarray, (jax.tree.leaves(carry), inputs, loss.arrays))
    unrolled, read_early = _unrolled(measured, reading, batch)
    found = _signal_to_noise(
        measured, unrolled, places=places, read_early=concrete_or_none(read_early)
    )
    return SignalToNoise(jnp.arange(measured.T, dtype=jnp.int32), *found)


class _Batched:
    """A loss whose arrays have the batch along their leading axis."""

    def __init__(self, loss: Any):
        self.owner, self.call = _calls.owned(loss)
        self.owned = OwnedArrays(self.owner)
        self.arrays = self.owned.arrays

    def member(self) -> Any:
        """The loss of the first member."""
        first = self.owned.put_back(_member(self.arrays))
        if not callable(first):
            return first
        return jax.tree_util.Partial(self.call, first)


def _member_system(step: Step, carry: Any, inputs: Any, length: Any) -> System:
    """Return the system of the first member."""
    try:
        return system(step, _member(carry), _member(inputs), length)
    except Exception as error:
        # N members of one number each are more likely one carry for the whole batch.
        if not any(jnp.ndim(leaf) == 1 for leaf in jax.tree.leaves(carry)):
            raise
        raise ValueError(_unbatched(jax.tree.leaves(carry))) from error


def _unbatched(leaves: list) -> str:
    shapes = " ".join(str(jnp.shape(leaf)) for leaf in leaves)
    return (
        f"Argument `carry` must have the batch along its leading axis, as `inputs` "
        f"have, but has shape {shapes}; for one carry that all members share write "
        f"jnp.broadcast_to(carry, (B, *carry.shape))."
    )


def _check_batch(**trees: Any) -> None:
    """Refuse leaves that do not have the batch of the first of them in front."""
    carry, inputs = (jax.tree.leaves(trees[name]) for name in ("carry", "inputs"))
    if inputs and jnp.ndim(inputs[0]) > 2:
        B = len(inputs[0])
        if any(jnp.ndim(leaf) == 1 and len(leaf) != B for leaf in carry):
            raise ValueError(_unbatched(carry))
    B = None
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        (name, *inside), found = path, jnp.shape(leaf)
        if name.key == "loss":  # its arrays have no other names here
            inside = []
        members = found[0] if found else 0
        fits = members >= 2 if B is None else members == B
        if not fits:
            wanted = "at least 2" if B is None else f"B = {B}"
            msg = (
                f"Argument `{name.key}{jax.tree_util.keystr(tuple(inside))}` must have "
                f"the batch, {wanted} members, along its leading axis, but has shape "
                f"{found}."
            )
            raise ValueError(msg)
        B = members


def _member(batch: Any) -> Any:
    return jax.tree.map(lambda a: a[0], batch)


@jax.jit
def _unrolled(system: System, reading: Reading, batch) -> tuple[Unrolled, Array]:
    def one(carry, inputs, arrays):
        member = replace(system.from_carry(carry), inputs=inputs)
        return unroll(member, replace(reading, arrays=arrays))

    unrolled = jax.vmap(one)(*batch)
    return unrolled, is_read_early(unrolled, jax.vmap)


@partial(jax.jit, static_argnames=("places", "read_early"))
def _signal_to_noise(system: System, unrolled: Unrolled, *, places, read_early):
    dtype, B = system.product_dtype, len(unrolled.before.state)
    error = 0.5 * math.log(B * (B - 1))

    def measure(parts: Scaled):
        top = jnp.max(parts.exponent)
        parts = jax.vmap(at_exponent, in_axes=(0, None))(parts, top)
        mean = jax.tree.map(lambda a: jnp.mean(a, axis=0), parts)
        off = jax.tree.map(lambda a, m: a - m[None], parts, mean)
        signal = log_norm(Scaled(mean, top), dtype)
        return signal, log_norm(Scaled(off, top), dtype) - error

    back = pulls(system, places)
    signal, noise = over_lags(
        back,
        unrolled,
        system.T,
        measure,
        read_early=read_early,
        vectorised=jax.vmap,
    )
    return signal, noise, jnp.exp(signal - noise)
