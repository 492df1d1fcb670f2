"""The directions that a gradient carried back through time turns to."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _checks
from vgjax._linalg import angle_to_span, matmul, varying_like
from vgjax._scaled import normalised
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.gradients._loss import Loss, Reading, reading_of
from vgjax.gradients._unrolled import unroll
from vgjax.products import identity, log_svd, push
from vgjax.theory.powers import principal_left_space

__all__ = ["Alignment", "alignment"]


def __dir__() -> list[str]:
    return __all__


class Alignment(NamedTuple):
    """Angles between a gradient carried back and the leading directions, by lag.

    Attributes:
      lags: (R,) steps.
      left_singular: (R,) radians, of the gradient that sets out.
      right_singular: (R,) radians, of the gradient that arrives.
      eigen: (R,) radians, of the gradient that arrives.
    """

    lags: Array
    left_singular: Array
    right_singular: Array
    eigen: Array


def alignment(
    step: Step,
    carry: Carry,
    inputs: Inputs,
    loss: Loss,
    *,
    length: int | None = None,
    every: int = 1,
) -> Alignment:
    r"""Return the angles of a gradient with the leading directions, over lag.

    The cotangent $\delta_T$ of the last state is carried back alone,
    $\delta_{T-k} = \Phi(T, T-k)^T \delta_T$. With the singular value decomposition of
    $\Phi(T, T-k)$, measured are the angles between

    - ``left_singular``: $\delta_T$ and the leading left singular vector: whether the
      loss asks for what these steps keep best;
    - ``right_singular``: $\delta_{T-k}$ and the leading right singular vector: the
      direction that all gradients end up in;
    - ``eigen``: $\delta_{T-k}$ and the leading left eigenvector of the step Jacobian
      $J_{T-k+1}$ that it has just come through, or the plane of a complex pair, or the
      space of several of equal modulus (`vgjax.theory.principal_left_space`).

    In a linear network $\Phi$ is a power of W and back-propagation the power method:
    the tangent of ``eigen`` falls as $|\lambda_2/\lambda_1|^k$.

    Args:
      step: as for `vgjax.rollout`.
      carry: initial carry; N numbers.
      inputs: (T, D) or a PyTree with time along the leading axis, or None.
      loss: as for `cotangents`. What it reads of earlier states is left out, and so are
        all outputs: the last output is made before the last state.
      length: T, needed where there are no inputs.
      every: record after every so many steps, from 1 to T.

    Returns:
      `Alignment` with R = T // every rows: lags (R,), steps; three angles (R,), radians
      from 0 to pi/2, small ones right to round-off. NaN where the gradient is exactly
      zero: where the loss does not read the last state, or a step annihilates it; and,
      for ``eigen``, where the Jacobian has no eigenvalue but 0. An angle with one of
      several equally large singular vectors means nothing.

    Raises:
      ValueError: as `cotangents` does; `every` outside 1..T.
      TypeError: as `cotangents` does; the step returns complex outputs; `every` is no
        whole number.

    Notes:
      Costs one Jacobian and one LU factorisation a step, and an SVD and an
      eigen-decomposition a record, O(T N^3); holds the T N numbers of the states. JAX
      has eigenvectors for CPU and CUDA, and no rule for them on TPU.

    Source:
      Goodfellow, Bengio & Courville, Deep Learning (2016), section 10.7, for
      back-propagation as a power method.

    Examples:
      >>> import jax.numpy as jnp
      >>> W = jnp.diag(jnp.array([0.8, 0.4]))
      >>> step = lambda h, x: (W @ h, None)
      >>> last = lambda trajectory: trajectory.carry.sum()
      >>> found = alignment(step, jnp.ones(2), None, last, length=3)
      >>> jnp.tan(found.eigen).round(4)
      Array([0.5  , 0.25 , 0.125], dtype=float32)
    """
    measured = system(step, carry, inputs, length)
    every = _checks.integer(every, "every", 1, measured.T)
    return _alignment(measured, reading_of(loss, measured), every=every)


@partial(jax.jit, static_argnames="every")
def _alignment(system: System, reading: Reading, *, every: int) -> Alignment:
    unrolled = unroll(system, reading)
    T, N, dtype = system.T, system.N, system.product_dtype
    start = _unit(unrolled.read.values.state[-1].astype(dtype))

    def back(carry, row):
        product, here, _ = carry
        J = system.jacobian(row.before, row.inputs)[1].astype(dtype)
        # XLA on CPU lays out an FFT as what reads it asks for, and then fails.
        J = jax.lax.optimization_barrier(J)
        return (push(product, J.T), _unit(matmul(J.T, here)), J), None

    def record(carry, rows):
        carry, _ = jax.lax.scan(back, carry, rows)
        product, here, J = carry
        # Of Phi^T: left and right are exchanged.
        svd = log_svd(product)
        left, right = svd.right[:, :1], svd.left[:, :1]
        directions = (start, left), (here, right), (here, principal_left_space(J))
        angles = [angle_to_span(*pair) for pair in directions]
        is_lost = jnp.any(jnp.isnan(here))
        return carry, tuple(jnp.where(is_lost, jnp.nan, angle) for angle in angles)

    def blocks(a):
        a = a[::-1][: T // every * every]
        return a.reshape(T // every, every, *a.shape[1:])

    backwards = jax.tree.map(blocks, unrolled)
    first_carry = (identity(N, dtype), start, jnp.zeros((N, N), dtype))
    first_carry = varying_like(first_carry, system)
    _, angles = jax.lax.scan(record, first_carry, backwards)
    lags = every * jnp.arange(1, T // every + 1, dtype=jnp.int32)
    return Alignment(lags, *angles)


def _unit(x: Array) -> Array:
    x, _ = normalised(x)
    return x / jnp.sqrt(jnp.sum(x**2))  # NaN of zero
