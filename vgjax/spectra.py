"""From a step to the exact singular values of its Jacobian products."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from vgjax import _checks
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.products import Spectrum
from vgjax.products.spectrum import in_two_stages, tracked_spectrum


def jacobian_spectrum(
    step: Step,
    carry: Carry,
    inputs: Inputs = None,
    *,
    length: int | None = None,
    every: int = 1,
    reverse: bool = False,
    dtype: jnp.dtype | None = None,
    errors: bool = True,
) -> Spectrum:
    r"""Return every log singular value of every Jacobian product of a trajectory.

    Row r belongs to $\Phi(t, 0) = J_t \cdots J_1$ with t = ``steps[r]``: how a change
    of the first state grows. With ``reverse=True`` it belongs to the lag
    k = ``steps[r]``, $\Phi(T, T-k)$: what back-propagation multiplies a gradient by,
    $\partial L/\partial s_{T-k} = \Phi(T, T-k)^T \, \partial L/\partial s_T$.

    Args:
      step: ``step(carry, x) -> (carry, y)``: a Flax nnx cell, one of `vgjax.cells`, or
        a plain function.
      carry: initial carry, a PyTree of real floating arrays of one dtype, N numbers.
      inputs: (T, D), or a PyTree with time along the leading axis, or None.
      length: T, needed where there are no inputs.
      every: record after every so many steps, from 1 to T.
      reverse: products that end at T, by lag, instead of those that begin at 0.
      dtype: what to multiply in, float32 or float64. Default: that of the carry. The
        Jacobians are made in the carry's dtype, whatever this is.
      errors: False leaves them out, ``error`` is None, and nothing is warned of. For
        inner loops: with errors a call takes 2 to 3 times as long.

    Returns:
      `Spectrum` with R = T // every rows: steps (R,), log_singular_values (R, N) in
      nats, descending, log_abs_det (R,) in nats, and error (R, N), an estimate in nats
      of how far each value is from the truth for these Jacobians. Where the rounding of
      this computation decides a value, its error is inf, and one RuntimeWarning says
      so. What a step annihilates reads -inf for good, with error 0 where that is
      certain, and inf where rounding decides it. From the step on whose Jacobian has a
      NaN or an infinity, everything reads NaN.

    Raises:
      ValueError: as `vgjax.rollout` does; `every` outside 1..T; `dtype` is float64
        while JAX's 64-bit mode is off.
      TypeError: as `vgjax.rollout` does; `every` is no whole number; `dtype` is neither
        float32 nor float64.

    Notes:
      Errors come of what rounding may leak from direction to direction, carried along
      with the product, as `vgjax.products.product_spectrum` tells. They are about the
      Jacobians as they are: a cell whose derivative autodiff rounds to zero, as tanh
      does from 20 on, gives Jacobians that are not right, and all Jacobians are
      rounded. `vgjax.products.certified_spectrum` of ``state_jacobians(...)`` gives the
      truth of undecided values, and `vgjax.products.sensitivity` tells whether the
      Jacobians, so rounded, determine them. Parts of the state that do not feed each
      other never mix.

      Costs N backward passes, about one LU factorisation and two matrix products a
      step, and two QR factorisations and one SVD a record, O(T N^3). Holds O(N^2) and
      the recorded output, and for ``reverse`` the T N numbers of the states; never the
      (T, N, N) Jacobians.

    Source:
      `vgjax.products.product_spectrum` says how.

    Examples:
      >>> import jax.numpy as jnp, vgjax
      >>> step = lambda h, x: (jnp.array([[0.9, 5.0], [0.0, 0.9]]) @ h, None)
      >>> spectrum = vgjax.jacobian_spectrum(step, jnp.ones(2), length=200, every=100)
      >>> spectrum.log_singular_values.round()
      Array([[ -4., -17.],
             [-14., -28.]], dtype=float32)
      >>> bool(spectrum.error.max() < 1e-3)
      True
    """
    measured = system(step, carry, inputs, length)
    every = _checks.whole(every, "every", 1, measured.T)
    reverse = _checks.flag(reverse, "reverse")
    if dtype is not None:
        dtype = _checks.floating_dtype(dtype, "dtype")
    errors = _checks.flag(errors, "errors")
    options = {"every": every, "reverse": reverse, "dtype": dtype, "errors": errors}
    program = partial(_jacobian_spectrum, measured, **options)
    return in_two_stages(program, measured, (measured.program, *options.values()))


class Rates(NamedTuple):
    """Growth per step of each singular value."""

    rate: Array  # (N,) nats per step, in the order of the singular values
    standard_error: Array  # (N,) nats per step


def growth_rates(spectrum: Spectrum, *, burn_in: int = 0) -> Rates:
    r"""Return the slope of every log singular value over steps, by least squares.

    Args:
      spectrum: R records of N values.
      burn_in: leave out the records of the first so many steps.

    Returns:
      `Rates`: rate (N,) and its standard error (N,), nats per step. A value that is
      -inf in a record used has rate -inf and standard error NaN. Two records have a
      slope but no standard error (NaN); under `jit`, fewer than two after `burn_in`
      read NaN. A value that is NaN in a record used reads NaN. Where the error of a
      value is infinite in a record used, its standard error is inf, in all but the
      last of these cases; where that error is NaN, so is the standard error.

    Raises:
      ValueError: `burn_in` is below 0, or fewer than two records lie after it.
      TypeError: `burn_in` is no whole number.

    Notes:
      The standard error takes the deviations from the line as independent. They follow
      each other, so it is too small, for a network driven by noise by some factor
      between 3 and 10; compare several seeds where it matters.

      Where the spectrum has errors, what they can do to the slope at worst,
      $\sum_r |w_r| e_r$ with the weights w of least squares, is added to it as the
      root of the sum of squares: rounding knows nothing of the deviations.
    """
    burn_in = _checks.whole(burn_in, "burn_in", 0)
    _checks.kind(spectrum, "spectrum", Spectrum, "as of jacobian_spectrum")
    R = _checks.shape(
        spectrum.log_singular_values, "spectrum.log_singular_values", "R N"
    )["R"]
    if spectrum.error is not None:
        _checks.errors(spectrum.error, *spectrum.log_singular_values.shape)
    used = spectrum.steps > burn_in
    if R < 2 or (not isinstance(used, Tracer) and used.sum() < 2):
        msg = (
            f"Argument `burn_in` must leave at least two records of `spectrum`, "
            f"but is {burn_in} for a spectrum of {R} records."
        )
        raise ValueError(msg)
    return _growth_rates(spectrum, used)


@jax.jit
def _growth_rates(spectrum: Spectrum, used: Array) -> Rates:
    y = spectrum.log_singular_values
    lost = jnp.any(used[:, None] & (y == -jnp.inf), axis=0)
    weight = used.astype(y.dtype)
    n = weight.sum()
    y = jnp.where(used[:, None] & ~lost[None, :], y, 0)
    steps = spectrum.steps.astype(y.dtype)
    steps = jnp.where(used, steps - (weight * steps).sum() / n, 0)
    y = jnp.where(used[:, None], y - y.sum(0)[None, :] / n, 0)
    spread = (steps**2).sum()
    rate = (steps[:, None] * y).sum(0) / spread
    rest = ((y - steps[:, None] * rate[None, :]) ** 2).sum(0)
    error = jnp.sqrt(rest / (n - 2) / spread)
    error = jnp.where(lost | (n < 3), jnp.nan, error)
    rate = jnp.where(lost, -jnp.inf, rate)
    if spectrum.error is not None:
        off = jnp.where(used[:, None], spectrum.error.astype(y.dtype), 0)
        is_undecided = jnp.any(jnp.isinf(off), axis=0) & ~jnp.isnan(rate)
        weights = jnp.abs(steps) / spread
        off = (weights[:, None] * jnp.where(jnp.isinf(off), 0, off)).sum(0)
        error = jnp.where(is_undecided, jnp.inf, jnp.hypot(error, off))
    return Rates(rate, error)


@partial(jax.jit, static_argnames=("every", "reverse", "dtype", "errors", "careful"))
def _jacobian_spectrum(system: System, *, every, reverse, dtype, errors, careful):
    options = {
        "N": system.N,
        "T": system.T,
        "every": every,
        "errors": errors,
        "careful": careful,
        "dtype": system.product_dtype if dtype is None else dtype,
    }
    start, inputs = system.start, system.inputs
    if not reverse:
        return tracked_spectrum(system.jacobian, start, inputs, **options)

    def points_before(_, at, x):
        return None, system.step(at, x)[0], at

    # Suffixes are prefixes of the transposed factors, last one first.
    points = system.scan(points_before)[2]
    last_first = jax.tree.map(lambda a: a[::-1], (points, inputs))

    def factor(_, point_and_input):
        return None, system.jacobian(*point_and_input)[1].T

    return tracked_spectrum(factor, None, last_first, **options)
