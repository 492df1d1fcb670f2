"""The gradient of the parameters by how many steps each part of it travelled."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax._linalg import scaled
from vgjax._scaled import Scaled, at_exponent, log_norm, normalised
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, Reading, reading_of, real_parts
from vgjax.gradients._parts import (
    concrete_or_none,
    is_read_early,
    over_lags,
    total_gradient,
)
from vgjax.gradients._unrolled import Unrolled, parameters, pulls, unroll

__all__ = ["LagContributions", "lag_contributions"]


def __dir__() -> list[str]:
    return __all__


class LagContributions(NamedTuple):
    """The gradient of the parameters, split by lag.

    Attributes:
      lags: (T,) 0 to T-1, steps.
      log_norm: (T,) nats, log norm of the part of each lag.
      log_norms: The same of each parameter leaf, by its path.
      fraction: (T,) share of the gradient that lags up to this one explain.
      gradient: The sum of all parts, by the path of each leaf.
    """

    lags: Array
    log_norm: Array
    log_norms: dict[str, Array]
    fraction: Array
    gradient: dict[str, Array]


def lag_contributions(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
    wrt: Any = None,
) -> LagContributions:
    r"""Split the gradient of the parameters by the number of steps it travelled.

    With $f_t$ the step t, which makes $s_t$ and $y_t$ of $s_{t-1}$, and $d_t$ the
    direct cotangent of what it made, the part of lag k is what the loss, reading at t,
    says of the parameters used k steps before:

    $$G_k = \sum_t d_t^T \, \Phi(t, t-k) \, \partial f_{t-k} / \partial\theta,
    \qquad dL/d\theta = \sum_{k=0}^{T-1} G_k.$$

    Lag 0 is the very step that the loss reads.

    Args:
      step: as for `vgjax.rollout`. Its parameters are what an optimiser would move:
        the `nnx.Param` of a Flax nnx module, and every floating or complex leaf of any
        other PyTree; give a function its own by `vgjax.steps.from_function`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      loss: as for `cotangents`.
      length: T, needed where there are no inputs.
      wrt: other parameters than these: a class of `flax.nnx.Variable`, or a function
        of a leaf's path that says whether it is one.

    Returns:
      `LagContributions`: lags (T,); log_norm (T,) and, for each leaf, by its path as of
      `jax.tree_util.keystr`, log_norms (T,): nats, -inf for a part that is zero;
      fraction (T,), $\langle G_0 + \dots + G_k, G \rangle / \|G\|^2$, which ends
      at 1 and may leave [0, 1] on the way, NaN where the gradient G is zero; gradient,
      the leaves of G, as `jax.grad` gives them, which read 0 or infinity outside the
      range of the dtype.

    Raises:
      ValueError: as `cotangents` does; the step has no parameters.

    Notes:
      Any number of steps, vanishing or exploding, reads a finite norm: every cotangent
      carries its scale as a power of two. It is one for all N numbers: what is smaller
      than the largest by the range of the dtype, 708 nats (float32: 87), counts as
      zero, and a leaf that nothing else reaches reads -inf. A direct cotangent that is
      subnormal counts as zero too.

      Where the loss reads the last step alone, this costs three backward passes, O(T);
      otherwise T passes through all steps at once, O(T^2) work and O(T) memory. Under
      `jax.vmap` one member of the batch that reads an earlier step makes all pay for
      it. Outside of a trace a first program says which of the two it is, and is waited
      for. The initial carry is no parameter.

    Source:
      Bengio, Simard & Frasconi, IEEE Trans. Neural Networks 5, 157 (1994); Pascanu,
      Mikolov & Bengio, ICML (2013), equations 3 to 5, the temporal components.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> def scale(w, h, x):
      ...     return w * h + x, None
      >>> step = vgjax.steps.from_function(scale, jnp.array(0.5))
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> ones = jnp.ones((3, 1))
      >>> parts = lag_contributions(step, jnp.ones(1), ones, last)
      >>> parts.log_norm.round(2), parts.gradient[".params"]
      (Array([ 0.56, -0.29, -1.39], dtype=float32), Array(2.75, dtype=float32))
    """
    measured = system(step, carry, inputs, length)
    names, places = parameters(step, wrt)
    reading = reading_of(loss, measured)
    unrolled, read_early = _unrolled(measured, reading)
    found = _lag_contributions(
        measured, unrolled, places=places, read_early=concrete_or_none(read_early)
    )
    norm, norms, fraction, gradient = found
    return LagContributions(
        jnp.arange(measured.T, dtype=jnp.int32),
        norm,
        dict(zip(names, norms, strict=True)),
        fraction,
        dict(zip(names, gradient, strict=True)),
    )


@jax.jit
def _unrolled(system: System, reading: Reading) -> tuple[Unrolled, Array]:
    unrolled = unroll(system, reading)
    return unrolled, is_read_early(unrolled)


@partial(jax.jit, static_argnames=("places", "read_early"))
def _lag_contributions(system: System, unrolled: Unrolled, *, places, read_early):
    back = pulls(system, places)
    dtype = system.product_dtype
    of_leaves = real_parts([system.arrays[i] for i in places])[1]
    gradient = normalised(*total_gradient(back, unrolled))
    square = _inner(gradient.values, gradient.values, dtype)
    safe = jnp.where(square == 0, 1, square)  # its quotient has a derivative

    def measure(part: Scaled):
        part = normalised(*part)
        leaves = of_leaves(part.values)
        norms = [
            log_norm(Scaled(real_parts(leaf)[0], part.exponent), dtype)
            for leaf in leaves
        ]
        along = _inner(part.values, gradient.values, dtype) / safe
        along = jnp.where(square == 0, jnp.nan, along)
        along = scaled(along, part.exponent - gradient.exponent)
        return log_norm(part, dtype), norms, along

    norm, norms, along = over_lags(
        back, unrolled, system.T, measure, read_early=read_early
    )
    at_one = at_exponent(gradient, jnp.zeros((), jnp.int32))
    # As `jax.grad` has it: the conjugate of the derivative by both parts.
    leaves = [jnp.conj(a) if jnp.iscomplexobj(a) else a for a in of_leaves(at_one)]
    return norm, norms, jnp.cumsum(along), leaves


def _inner(a: list, b: list, dtype: jnp.dtype) -> Array:
    pairs = zip(a, b, strict=True)
    products = [jnp.sum(x.astype(dtype) * y.astype(dtype)) for x, y in pairs]
    return sum(products[1:], products[0])
