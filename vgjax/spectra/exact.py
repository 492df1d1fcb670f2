"""From a step to the exact singular values of its Jacobian products."""

from functools import partial

import jax
import jax.numpy as jnp

from vgjax import _checks
from vgjax._system import System, system
from vgjax._typing import Carry, Inputs, Step
from vgjax.products import Spectrum
from vgjax.products.spectrum import in_two_stages, tracked_spectrum

__all__ = ["jacobian_spectrum"]


def __dir__() -> list[str]:
    return __all__


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
    every = _checks.integer(every, "every", 1, measured.T)
    reverse = _checks.flag(reverse, "reverse")
    if dtype is not None:
        dtype = _checks.floating_dtype(dtype, "dtype")
    errors = _checks.flag(errors, "errors")
    options = {"every": every, "reverse": reverse, "dtype": dtype, "errors": errors}
    program = partial(_jacobian_spectrum, measured, **options)
    return in_two_stages(program, measured, (measured.program, *options.values()))


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
