"""Growth per step of the singular values: the slopes of their logs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from vgjax import _checks
from vgjax.products import Spectrum

__all__ = ["Rates", "growth_rates"]


def __dir__() -> list[str]:
    return __all__


class Rates(NamedTuple):
    """Growth per step of each singular value.

    Attributes:
      rate: (N,) nats per step, in the order of the singular values.
      standard_error: (N,) nats per step.
    """

    rate: Array
    standard_error: Array


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
    burn_in = _checks.integer(burn_in, "burn_in", 0)
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
