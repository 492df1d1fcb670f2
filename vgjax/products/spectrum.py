"""Exact singular values of every prefix or suffix of a sequence of matrices."""

import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from vgjax import _checks
from vgjax._linalg import (
    add_compensated,
    any_in_batch,
    exponent,
    log_abs_det,
    log_abs_det_of_regular,
    scaled,
    varying_like,
)
from vgjax.products._errors import errors as errors_of
from vgjax.products._leaks import no_leaks
from vgjax.products._slopes import extended, with_slopes_of, without_lost_derivative
from vgjax.products.graded import (
    balanced_if_due,
    identity,
    push_plainly,
    push_unbalanced,
)
from vgjax.products.singular import couplings, values_of

__all__ = ["Spectrum", "product_spectrum"]


def __dir__() -> list[str]:
    return __all__


# Records are read in batches of SVDs, of the largest divisor of R up to this: memory
# grows with it, and a remainder would be a second program to compile.
_LARGEST_BATCH = 16

# Sizes that needed care: keys of `in_two_stages`, oldest first.
_NEED_CARE: dict[Hashable, None] = {}
_MOST_REMEMBERED = 256


class Spectrum(NamedTuple):
    """Singular values of a growing product, in logs.

    Attributes:
      steps: (R,) int32, the number of factors in each product; the lag, in reverse.
      log_singular_values: (R, N) nats, descending along the last axis; -inf for a
        direction that was annihilated.
      log_abs_det: (R,) nats, summed from the determinant of each factor.
      error: (R, N) nats, estimated bound on the error of each value; inf where rounding
        decides the value. None with ``errors=False``.
    """

    steps: Array
    log_singular_values: Array
    log_abs_det: Array
    error: Array | None = None


def product_spectrum(
    matrices: Array,
    *,
    every: int = 1,
    reverse: bool = False,
    errors: bool = True,
) -> Spectrum:
    r"""Return the exact log singular values of every product of leading matrices.

    Row r belongs to $\Phi = A_t \cdots A_2 A_1$ with t = ``steps[r]``: the newest
    factor on the left, `matrices[0]` on the right. However far the values are apart,
    each comes with an error in nats, an estimate within which the truth for the given
    matrices should lie. Where the rounding of this computation decides a value, the
    error is inf, and one RuntimeWarning says so.

    Args:
      matrices: (T, N, N), row = output, first factor first; float32 or float64.
      every: record the product after every so many factors, from 1 to T. Factors after
        the last record are not looked at.
      reverse: multiply from the other end: row r belongs to the last ``steps[r]``
        matrices, $A_T \cdots A_{T-k+1}$ with k = ``steps[r]``, a lag.
      errors: False leaves them out, ``error`` is None, and nothing is warned of. For
        inner loops: with errors a call takes 2 to 3 times as long, most where few
        records are taken of a large N.

    Returns:
      `Spectrum` with R = T // every rows. What a matrix annihilates reads -inf from
      then on. Its error is 0 where it is annihilated for certain, and inf where
      rounding decides that: a value so small may be there, as one that is finite and
      of infinite error may be none. ``log_abs_det`` is the sum of `slogdet` over the
      factors and knows nothing of the singular values: the sum of these should agree
      with it, but for their errors. A matrix with NaN or inf makes that row and all
      later ones NaN, and their errors.

    Raises:
      ValueError: a shape is not (T, N, N) or has a zero, or `every` is outside 1..T.
      TypeError: the dtype is not float32 or float64; `every` is no whole number.

    Notes:
      A random sample of what each step may round is carried along like the product
      itself (the leaks of `vgjax/products/_leaks.py`), and grows where the product
      grows; an error is what it may have done by then. That is an estimate and no
      proof; `scripts/bench --errors` holds it to the truth for 138,688 values of 556
      networks, and 23,808 in float32: none was off by more. Undecided are above all
      directions that fell by 1/eps, 36 nats (float32: 16), below others and overtake
      them later, and what these leak into below.

      `certified_spectrum` gives the truth of undecided values, with a proof.
      `sensitivity` tells how far the rounding of the matrices themselves moves them,
      of which an error says nothing: where that is large, no method can help; where it
      is small, only this method has lost them.

      Parts that do not feed each other (no chain of nonzero entries leads from one to
      another) never mix: each reads as it would alone.

      A matrix whose condition exceeds 1/eps for other reasons than the sizes of its
      rows and columns cannot be told from a singular one and reads -inf too, with
      infinite error. Subnormal numbers count as zero, and where one column mixes
      entries further apart than floats reach, so does the smaller.

      Beyond +-3.7e8 nats every value is NaN. The gradient of -inf is zero. Beside it
      gradients are right where the last factor annihilated what reads -inf. Where
      others follow, they are right to half the digits, or more, of values that stayed
      within half the digits of the largest, 18 nats (float32: 8), in every partial
      product, and infinite or NaN of those that are further below in the last. Of a
      value that fell d nats below and came back they may be off by $eps \, e^d$ of
      themselves (5e-5 was seen after 30 nats), without notice.

      Outside of a trace, the first call waits for its result: a plain program runs
      first, and one with more care after it where that asks for it.

      Costs about one LU factorisation and two matrix products a step, and two QR
      factorisations and one SVD a record: O(T N^3). Beside the matrices, and a copy of
      them for `reverse`, memory is O(N^2).

    Source:
      The idea of keeping a product as U D T is that of determinant quantum Monte
      Carlo (Loh et al., Phys. Rev. B 41, 9301 (1990); Bauer, SciPost Phys. Core 2, 11
      (2020)). Here U and T come from an elimination with pivots, an LU factorisation.
      Scales as integers, sorting, sweeping and decoupling are derived in
      docs/numerics.md.

    Examples:
      >>> import jax.numpy as jnp
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> spectrum = product_spectrum(jnp.stack([shear] * 400), every=200)
      >>> spectrum.log_singular_values.round(1)
      Array([[-132.6, -144.6],
             [-270.6, -283.9]], dtype=float32)
      >>> bool(spectrum.error.max() < 1e-3)
      True
    """
    matrices = _checks.array(matrices, "matrices")
    sizes = _checks.shape(matrices, "matrices", "T N N")
    dtype = _checks.real_floating(matrices, "matrices")
    every = _checks.integer(every, "every", 1, sizes["T"])
    if _checks.flag(reverse, "reverse"):
        # Suffixes of A are prefixes of the transposed factors in reversed order.
        matrices = jnp.swapaxes(matrices[::-1], 1, 2)
    errors = _checks.flag(errors, "errors")
    program = partial(
        _spectrum_of_stack, matrices, every=every, dtype=dtype, errors=errors
    )
    return in_two_stages(program, matrices, (every, errors))


def tracked_spectrum(
    factor: Callable[[Any, Any], tuple[Any, Array]],
    carry: Any,
    inputs: Any,
    *,
    N: int,
    T: int,
    every: int,
    dtype: jnp.dtype,
    errors: bool,
    careful: bool = True,
) -> tuple[Spectrum, Array]:
    """Spectrum of factors that are made one at a time, and forgotten.

    ``factor(carry, x) -> (carry, matrix)`` is called in time order, x running along the
    leading axis of the leaves of `inputs`. What is worked on at a time is one product
    and a few records. In `jax.shard_map`, `carry` or `inputs` must vary over all axes
    that the matrices vary over (`varying_like`).

    Returns the spectrum, and whether it needs care and has got none (`in_two_stages`):
    then it is worth nothing.
    """
    R = T // every
    batch = max(b for b in range(1, _LARGEST_BATCH + 1) if R % b == 0)
    shape = (R // batch, batch, every)
    # The index gives the scans their length where there are no inputs.
    inputs = (jnp.arange(T), inputs)
    inputs = jax.tree.map(
        lambda a: a[: R * every].reshape(*shape, *a.shape[1:]), inputs
    )

    def step(state, x):
        carry, product, (high, low), needs_care, is_lost, whole = state
        carry, matrix = factor(carry, x[1])
        matrix = matrix.astype(dtype)
        product = balanced_if_due(product)
        if careful:
            product, is_lost = without_lost_derivative(product, is_lost)
            product, delicate = push_unbalanced(product, matrix)
            whole = extended(whole, matrix)
        else:
            delicate = None
            product, reasons = push_plainly(product, matrix)
            needs_care = needs_care | reasons
        log_det = add_compensated(high, low, _log_det(matrix, delicate))
        return (carry, product, log_det, needs_care, is_lost, whole), None

    def record(state, xs):
        # Unrolled where it is one step: a loop in a loop copies the state twice.
        state, _ = jax.lax.scan(step, state, xs, unroll=every == 1)
        _, product, log_det, _, is_lost, whole = state
        seen, leaks = couplings(product, all_alive=not careful)
        total = log_det[0] + log_det[1]
        if careful:
            total = jnp.where(jnp.all(jnp.isfinite(seen.L)), total, jnp.nan)
        return state, ((seen, leaks, whole, is_lost), total)

    def read(seen, leaks, whole, is_lost):
        found = values_of(seen)
        error = None if leaks is None else errors_of(leaks, seen.exponents, found)
        found = with_slopes_of(whole, found, is_lost) if careful else found
        return found, error

    def records(state, xs):
        state, (seen, log_det) = jax.lax.scan(record, state, xs)
        return state, (*jax.vmap(read)(*seen), log_det)

    zero = jnp.zeros((), dtype)
    leaks = no_leaks(N, dtype) if errors else None
    product = identity(N, dtype)._replace(rotation=None, leaks=leaks)
    whole = product.left if careful else None
    no = jnp.zeros((), bool)
    nowhere = None if careful else jnp.zeros(N, bool)
    start = (carry, product, (zero, zero), nowhere, no, whole)
    start = varying_like(start, carry, inputs)
    state, (values, error, log_det) = jax.lax.scan(records, start, inputs)
    steps = every * jnp.arange(1, R + 1, dtype=jnp.int32)
    values = values.reshape(R, N)
    error = None if error is None else error.reshape(R, N)
    spectrum = Spectrum(steps, values, log_det.reshape(R), error)
    return spectrum, no if careful else jnp.any(state[3])


@jax.custom_jvp
def _log_det(matrix, is_delicate):
    """``log |det|``, by the careful LU where `is_delicate`; None: nowhere."""
    quick = log_abs_det_of_regular(matrix)
    if is_delicate is None:
        return quick

    def with_care(quick):
        return jnp.where(is_delicate, log_abs_det(matrix), quick)

    return jax.lax.cond(any_in_batch(is_delicate), with_care, lambda q: q, quick)


@_log_det.defjvp
def _log_det_rule(primals, tangents):
    """Zero where it reads -inf, so that it makes no NaN of gradients beside it."""
    (matrix, is_delicate), (change, _) = primals, tangents
    found = _log_det(matrix, is_delicate)
    e = -exponent(jnp.max(jnp.abs(matrix)))
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)
    regular = jnp.where(found == -jnp.inf, eye, scaled(matrix, e))
    change = jnp.where(found == -jnp.inf, 0, scaled(change, e))
    return found, jnp.trace(jnp.linalg.solve(regular, change))


def in_two_stages(
    program: Callable[..., tuple[Spectrum, Array]], arguments: Any, key: Hashable
) -> Spectrum:
    """Run ``program(careful=...) -> (spectrum, needs care)``, first without care.

    The program with care takes longer to compile, and most spectra need
    none; then it is never made, and the answer is the same to the last bit. Where one
    of a `key` did, later ones go straight to it. Under a trace there is no looking at
    the flag: then, as told by `arguments`, only the program with care is run.

    To be called by what the user calls: a warning names the line two frames up.
    """
    spectrum = _in_two_stages(program, arguments, key)
    if (sentence := undecided(spectrum)) is not None:
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)
    return spectrum


def _in_two_stages(program, arguments, key):
    leaves = jax.tree.leaves(arguments)
    key = (key, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
    if key not in _NEED_CARE and not any(isinstance(leaf, Tracer) for leaf in leaves):
        spectrum, needs_care = program(careful=False)
        # A tracer, still, if the program closes over one.
        if not isinstance(needs_care, Tracer) and not needs_care:
            return spectrum
        _NEED_CARE[key] = None
        while len(_NEED_CARE) > _MOST_REMEMBERED:
            del _NEED_CARE[next(iter(_NEED_CARE))]
    return program(careful=True)[0]


def undecided(spectrum: Spectrum) -> str | None:
    """What to tell of infinite errors; None: nothing, or they cannot be looked at."""
    error = spectrum.error
    if error is None or isinstance(error, Tracer) or not error.is_fully_addressable:
        return None
    is_undecided = np.isinf(np.asarray(error))
    if not is_undecided.any():
        return None
    count, N = int(is_undecided.any(axis=0).sum()), is_undecided.shape[1]
    first = np.asarray(spectrum.steps)[is_undecided.any(axis=1)][0]
    is_lost = np.isneginf(np.asarray(spectrum.log_singular_values)[is_undecided])
    what = "what they are"
    if is_lost.all():
        what = "whether they are annihilated, which they read (-inf), or only small"
    verb = "is" if count == 1 else "are"
    return (
        f"{count} of {N} log singular values {verb} undecided from step {first} on "
        f"(`error` is inf there): the rounding of this computation decides {what}. "
        "vgjax.products.certified_spectrum of the matrices (for a step: "
        "certified_spectrum(state_jacobians(...))) gives the truth, and "
        "vgjax.products.sensitivity tells whether the data determine it."
    )


@partial(jax.jit, static_argnames=("every", "dtype", "errors", "careful"))
def _spectrum_of_stack(matrices, *, every, dtype, errors, careful):
    T, N, _ = matrices.shape
    return tracked_spectrum(
        lambda carry, matrix: (carry, matrix),
        None,
        matrices,
        N=N,
        T=T,
        every=every,
        dtype=dtype,
        errors=errors,
        careful=careful,
    )
