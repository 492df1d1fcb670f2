"""A product of many matrices, kept as factors whose scales are integers.

    Phi = left @ diag(2^exponents) @ right @ rotation.T

`left` and `right` are well-conditioned with entries near 1, `rotation` is orthogonal,
and the scales, however far apart, are whole numbers: scaling by them is exact, and
adding them up is exact. They run from -2^29 to 2^29 bits, +-3.7e8 nats; where one of
them leaves this range every later singular value is NaN.

What a rounding adds to `left` may grow with the directions that it leaks into, what it
adds to `right` moves no value by more than eps times the condition of `right`. So the
left factor is made by elimination, which rounds every entry by its own size, and parts
that do not feed each other never mix; the right one may be rotated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vgjax import _checks
from vgjax._linalg import (
    any_in_batch,
    descending,
    exponent,
    is_before,
    lu,
    matmul,
    power_of_two,
    qr,
    roundoff,
    scaled,
    unpacked,
    varying_like,
    without_derivative_if,
)
from vgjax.products._elimination import ABSENT, eliminated, sizes_of_products
from vgjax.products._leaks import (
    Leaks,
    Roundings,
    Transport,
    carried,
    doubt_of,
    dropped_by,
    no_leaks,
    of_elimination,
    of_factorisation,
    of_multiplied,
    of_right,
    rebased,
    reordered,
    unit_of_rows,
)

__all__ = ["GradedProduct", "identity", "multiply", "push"]


def __dir__() -> list[str]:
    return __all__


# Pushes between two balancings, which keep `right` near a diagonal. Without them the
# error after 1,000 steps of degenerate pairs is 5e-12 nats instead of 2e-13.
PUSHES_PER_BALANCE = 8
# int32 has no -inf. Half of it is the limit: what is annihilated may drift upwards.
_ANNIHILATED = ABSENT
_LARGEST = 2**29  # of the exponents that mean something, in bits
# What a triangle's entries and a column order may be off by, in bits, before the
# plain factorisation is done again with more care.
_SLACK = 8
# What directions may be out of order, in bits, before they are sorted: what is rounded
# behind them is magnified by as much.
_DISORDER = 2


class GradedProduct(NamedTuple):
    """A product of square matrices, ``left diag(2^exponents) right rotation^T``.

    Made by `identity`, extended by `push` and `multiply`, read by
    `log_singular_values` and `log_svd`. A row of zeros in `right` is a direction that
    was annihilated.
    """

    left: Array  # (N, N) well-conditioned
    exponents: Array  # (N,) int32, binary orders of magnitude
    right: Array  # (N, N) well-conditioned
    rotation: Array | None  # (N, N) orthogonal; None where only values are wanted
    age: Array  # () int32, pushes since `right` was last made triangular
    leaks: Leaks | None = None  # what rounding may have done; None: nobody asked


class _Factors(NamedTuple):
    """What ``matrix @ basis @ diag(2^old)`` is, its columns taken in some order.

    ``(matrix @ basis)[:, columns] @ diag(2^old[columns]) = left @ diag(2^exponents) @
    M``.
    """

    left: Array  # (N, N) well-conditioned
    exponents: Array  # (N,) int32
    M: Array  # (N, N) upper triangular, near one
    columns: Array  # (N,)
    transport: Transport | None  # of what rounding may have done, if it is wanted


def identity(n: int, dtype: jnp.dtype) -> GradedProduct:
    """Return the empty product: the n x n identity, ready to `push` onto.

    Args:
      n: size of the matrices, at least 1.
      dtype: float32 or float64, that of the matrices to come.

    Returns:
      `GradedProduct` with all its factors the identity.

    Raises:
      ValueError: `n` is below 1, or `dtype` is float64 while JAX's 64-bit mode is off.
      TypeError: `n` is no whole number, or `dtype` is neither float32 nor float64.
    """
    n = _checks.whole(n, "n", 1)
    dtype = _checks.floating_dtype(dtype, "dtype")
    eye = jnp.eye(n, dtype=dtype)
    zero = jnp.zeros((), jnp.int32)
    return GradedProduct(eye, jnp.zeros(n, jnp.int32), eye, eye, zero)


def push(product: GradedProduct, matrix: Array) -> GradedProduct:
    """Multiply a product by one more matrix, from the left.

    Two matrix products and one LU factorisation, O(N^3), and a QR factorisation every
    eighth time; a matrix whose columns span many orders of magnitude, or one that loses
    rank, costs two eliminations with complete pivoting more.

    Args:
      product: N x N.
      matrix: (N, N), row = output, of the product's dtype. A matrix with a NaN or
        an infinity turns every later singular value into NaN.

    Returns:
      The product with `matrix` as its newest, leftmost factor. Its derivatives are NaN
      once a direction was annihilated before; `product_spectrum` has others.

    Raises:
      ValueError: `matrix` is not (N, N).
      TypeError: `matrix` has another dtype than the product.
    """
    _checks.kind(product, "product", GradedProduct, "as of products.identity")
    N = product.left.shape[0]
    matrix = _checks.array(matrix, "matrix")
    _checks.shape(matrix, "matrix", "N N", N=N)
    _checks.same_dtype(matrix, "matrix", product.left.dtype)
    product = varying_like(product, product, matrix)
    product = balanced_if_due(product)
    left = without_derivative_if(has_annihilated(product), product.left)
    return push_unbalanced(product._replace(left=left), matrix)[0]


def multiply(left: GradedProduct, right: GradedProduct) -> GradedProduct:
    """Multiply two products, ``left @ right``: merge what was pushed apart.

    Associative to round-off, so that a long product can be made in a tree. One
    elimination with complete pivoting, N rank-one updates one after the other, O(N^3);
    where a matrix is to be multiplied on, `push` is several times faster.

    Args:
      left: N x N, the product of the newer factors.
      right: N x N, of the same dtype, the product of the older ones.

    Returns:
      The product of both. What either annihilated, and what the range of `right` loses
      in the null space of `left`, is annihilated. After a NaN all is NaN.

    Raises:
      ValueError: they differ in size; `left` holds values only: its `rotation` is None.
      TypeError: they differ in dtype, or one is no `GradedProduct`.

    Examples:
      >>> import jax.numpy as jnp
      >>> shear = jnp.array([[0.5, 1.0], [0.0, 0.5]])
      >>> once = push(identity(2, jnp.float32), shear)
      >>> four = multiply(multiply(once, once), multiply(once, once))
      >>> (four.left * 2.0**four.exponents) @ four.right @ four.rotation.T
      Array([[0.0625, 0.5   ],
             [0.    , 0.0625]], dtype=float32)
    """
    for product, name in ((left, "left"), (right, "right")):
        _checks.kind(product, name, GradedProduct, "as of products.identity")
    N = len(left.left)
    _checks.shape(right.left, "right.left", "N N", N=N)
    _checks.same_dtype(right.left, "right", left.left.dtype)
    left, right = varying_like((left, right), left, right)
    middle = matmul(left.right, rotation_of(left, "left").T)
    between = matmul(middle, right.left)
    finite = jnp.all(jnp.isfinite(between)) & jnp.all(jnp.isfinite(right.right))
    between = jnp.where(finite, between, 0)
    sums = sizes_of_products(middle, right.left, matmul)
    above, below = _present(left.exponents), _present(right.exponents)
    found = eliminated(between, sums, above, below)
    above, below = above[found.rows], below[found.columns]
    lower = found.lower * gaps(above, middle.dtype)
    lower = jnp.zeros_like(lower).at[found.rows].set(lower)
    exponents, M = _scaled_triangle(found.upper, below)
    product = right._replace(
        left=matmul(left.left, lower), age=jnp.zeros_like(right.age), leaks=None
    )
    exponents = jnp.where(found.is_pivot, exponents + above, _ANNIHILATED)
    return _near_one(product, exponents, matmul(M, right.right[found.columns]), finite)


def balanced_if_due(product: GradedProduct) -> GradedProduct:
    """Make `right` diagonal once every `PUSHES_PER_BALANCE` pushes."""
    due = product.age >= PUSHES_PER_BALANCE
    due = due & jnp.all(jnp.isfinite(product.right))
    return jax.lax.cond(any_in_batch(due), balanced, lambda p: p, product)


def has_annihilated(product: GradedProduct) -> Array:
    """Whether a derivative of the next push is lost.

    That along a direction that was annihilated has no scale to be held at, and the next
    matrix may mix it with others.
    """
    return jnp.any(product.exponents <= -_LARGEST)


def push_unbalanced(
    product: GradedProduct, matrix: Array
) -> tuple[GradedProduct, Array]:
    """Push without a look at how long ago the product was last balanced.

    Returns the product, and whether the matrix needed care.
    """
    # Beside what was annihilated before, a pivot that is lost goes unnoticed.
    is_blind = has_annihilated(product)
    finite = jnp.all(jnp.isfinite(matrix))
    matrix = jnp.where(finite, matrix, jnp.eye(*matrix.shape, dtype=matrix.dtype))
    matrix, overall = _brought_near(matrix)
    factors, delicate = _factored(matrix, product)
    right = matmul(factors.M, product.right[factors.columns])
    leaks = carried(
        product.leaks,
        factors.transport,
        factors.columns,
        overall,
        product.exponents,
        factors.exponents + overall,
    )
    pushed = product._replace(left=factors.left, age=product.age + 1, leaks=leaks)
    pushed = _near_one(pushed, factors.exponents + overall, right, finite)
    return pushed, delicate | ~finite | is_blind


def push_plainly(product: GradedProduct, matrix: Array) -> tuple[GradedProduct, Array]:
    """Push as if no care were needed, and flag, (N,), what needed some.

    Where nothing did, the product is that of `push_unbalanced` to the last bit, in a
    shorter program; else it is worth nothing.
    """
    matrix, overall = _brought_near(matrix)
    image = _image(matrix, product.left, product.exponents)
    quick = _quickly(matrix, image, product)
    factors = quick.factors
    right = matmul(factors.M, product.right[factors.columns])
    size = exponent(jnp.max(jnp.abs(right), axis=1))
    right = scaled(right, -size[:, None])
    exponents = factors.exponents + size + overall
    # Left per column: a reduction of flags is two kernels to compile. A NaN or an
    # infinity is in every column of the image, for 0 * inf is NaN, and so in a pivot.
    reasons = _delicacy(matrix, product.left, image, quick)
    reasons = reasons | (image.row_size == 0) | _is_out_of_range(exponents)
    reasons = reasons | ~jnp.isfinite(quick.pivots)
    product = product._replace(
        left=factors.left,
        exponents=exponents,
        right=right,
        age=product.age + 1,
        leaks=carried(
            product.leaks,
            factors.transport,
            factors.columns,
            overall,
            product.exponents,
            exponents,
        ),
    )
    return product, reasons


def _near_one(
    product: GradedProduct, exponents: Array, right: Array, finite: Array
) -> GradedProduct:
    """Put scales and the right factor in, its rows near one; NaN where not finite."""
    size = jnp.max(jnp.abs(right), axis=1)
    exponents = jnp.where(size == 0, _ANNIHILATED, exponents + exponent(size))
    held = finite & ~jnp.any((size != 0) & _is_out_of_range(exponents))
    right = jnp.where(held, scaled(right, -exponent(size)[:, None]), jnp.nan)
    return product._replace(exponents=exponents, right=right)


def _brought_near(matrix: Array) -> tuple[Array, Array]:
    """A matrix of entries of ordinary size, and the power of two taken out of it."""
    overall = exponent(jnp.max(jnp.abs(matrix))) - _highest(matrix.dtype)
    return scaled(matrix, -overall), overall


def by_size(product: GradedProduct) -> GradedProduct:
    """Return the same product with its directions in descending order of scale."""
    order, leaks = descending(product.exponents), product.leaks
    return product._replace(
        left=product.left[:, order],
        exponents=product.exponents[order],
        right=product.right[order],
        leaks=None if leaks is None else reordered(leaks, order),
    )


def lower_factor(product: GradedProduct, R: Array, alive: Array | None) -> Array:
    """L of ``diag(2^e) right = L diag(2^e) Q.T``, from ``right.T = Q R``.

    For a product sorted by size, L is lower triangular, and L[i, j] falls off as the
    square of the ratio of the scales of i and j. `alive` None: all directions are.
    """
    gap = product.exponents[:, None] - product.exponents[None, :]
    L = jnp.tril(R.T) * power_of_two(jnp.minimum(gap, 0), R.dtype)
    if alive is None:
        return L
    # An annihilated direction has no part in R; it stays the complement it is.
    return jnp.where(
        alive[:, None] & alive[None, :], L, jnp.eye(*L.shape, dtype=L.dtype)
    )


def is_alive(product: GradedProduct) -> Array:
    """Which directions no factor has annihilated; NaN counts as alive."""
    return jnp.any(product.right != 0, axis=1)


def rotation_of(product: GradedProduct, name: str) -> Array:
    """Return the rotation, or refuse a product that has none."""
    if product.rotation is None:
        msg = f"Argument `{name}` must carry its rotation, but holds values only."
        raise ValueError(msg)
    return product.rotation


def balanced(product: GradedProduct) -> GradedProduct:
    """Move the coupling of `right` to the left, where the next push removes it."""
    product = by_size(product)
    Q, R = qr(product.right.T)
    alive = is_alive(product)
    L = lower_factor(product, R, alive)
    eye = jnp.eye(len(L), dtype=L.dtype)
    rotation = product.rotation
    product = product._replace(
        left=matmul(product.left, L),
        right=jnp.where(alive[:, None], eye, 0),
        rotation=None if rotation is None else matmul(rotation, Q),
        age=jnp.zeros_like(product.age),
        leaks=rebased(of_right(product.leaks, R), L),
    )
    return varying_like(product, L)


def orthogonal(product: GradedProduct) -> tuple[Array, Array, GradedProduct]:
    """Q, orthogonal, R of ``left = Q R``, and P with ``Q @ P`` for the same product.

    The left factor of P is the identity, and P has no leaks. For reading only:
    reflections put eps times the whole into entries that are zero or tiny, which is
    harmless now and may grow with what is pushed later.
    """
    Q, R = qr(product.left)
    exponents, M = _scaled_triangle(R, product.exponents)
    right = matmul(M, product.right)
    eye = varying_like(jnp.eye(len(Q), dtype=Q.dtype), Q)
    product = product._replace(left=eye, exponents=exponents, right=right, leaks=None)
    return Q, R, product


class _Image(NamedTuple):
    """Where a matrix takes the columns of a basis.

    ``raw @ diag(2^old) = even @ diag(2^scale)``.
    """

    raw: Array  # (N, N), matrix @ basis
    even: Array  # (N, N), the same with its columns brought near one
    scale: Array  # (N,) int32
    row_size: Array  # (N,) largest entries of the rows of `even`


def _image(matrix: Array, basis: Array, exponents: Array) -> _Image:
    raw = matmul(matrix, basis)
    even, scale = _columns_near_one(raw, exponents)
    return _Image(raw, even, scale, jnp.max(jnp.abs(even), axis=1))


class _Quick(NamedTuple):
    """Factors by an LU factorisation with partial pivoting, and how good they are."""

    factors: _Factors
    pivots: Array  # (N,) the diagonal of U
    M_row: Array  # (N,) largest entries of the rows of M
    row_size: Array  # (N,) of the image, its rows in the order of the pivots


def _quickly(matrix: Array, image: _Image, product: GradedProduct) -> _Quick:
    columns, even = _sorted_if_needed(image)
    packed, rows = lu(even)
    lower, upper = unpacked(packed)
    left = jnp.zeros_like(lower).at[rows].set(lower)
    pivots = jnp.diagonal(upper)
    scale = image.scale[columns]
    exponents = scale + exponent(pivots)
    M = _ratios(upper, scale, exponents)
    transport = None
    if product.leaks is not None:
        grown = image.scale - product.exponents
        transport = of_factorisation(
            matrix,
            product.left,
            lower,
            upper,
            rows,
            columns,
            grown,
            product.leaks.doubt,
        )
    factors = _Factors(left, exponents, M, columns, transport)
    row_size = image.row_size[rows]
    return _Quick(factors, pivots, jnp.max(jnp.abs(M), axis=1), row_size)


def _sorted_if_needed(image: _Image) -> tuple[Array, Array]:
    """Sort columns by scale, if they are far out of order, and say how.

    In float32 always: there most steps ask for it.
    """
    scale = image.scale
    if image.even.dtype == jnp.float32:
        columns = descending(scale).astype(jnp.int32)
        return columns, image.even[:, columns]
    # All pairs: a running minimum takes ten times as long to compile.
    higher = scale[None, :] > scale[:, None] + _DISORDER
    uneven = jnp.any(higher & is_before(len(scale)))

    def in_order(even):
        columns = jnp.where(uneven, descending(scale).astype(jnp.int32), index)
        return columns, even[:, columns]

    index = varying_like(jnp.arange(len(scale), dtype=jnp.int32), image)
    some = any_in_batch(uneven)
    return jax.lax.cond(some, in_order, lambda even: (index, even), image.even)


def _delicacy(
    matrix: Array,
    basis: Array,
    image: _Image,
    quick: _Quick,
    alive: Array | None = None,
) -> Array:
    """(N,) What makes it necessary to factor again with more care, if anything.

    `alive` None: all columns are.
    """
    N, dtype, row_size = matrix.shape[0], matrix.dtype, quick.row_size
    # Round-off in a pivot is magnified by small ones before it, and counts for more in
    # a column that is small because it cancelled. Taken too large this costs time.
    # A row of zeros has an exact zero for its pivot, which is no round-off.
    share = jnp.abs(quick.pivots) / jnp.where(row_size > 0, row_size, 1)
    share = jnp.where(row_size > 0, share, 1)
    before = jnp.min(jnp.where(is_before(N), share[:, None], 1), axis=0)
    column_size = jnp.max(jnp.abs(matrix), axis=0)
    largest = jnp.max(column_size)
    reach = jnp.where(largest > 0, largest, 1) * jnp.max(jnp.abs(basis), axis=0)
    left_over = jnp.max(jnp.abs(image.raw), axis=0) / reach
    left_over = jnp.minimum(left_over, 1)[quick.factors.columns]
    noise = 2 * roundoff(N, dtype) / before / left_over
    weak = share < jnp.minimum(noise, float(jnp.finfo(dtype).eps) ** 0.5)
    weak = weak if alive is None else weak & alive
    graded = (column_size > 0) & (column_size < _few_digits(dtype) * largest)
    return weak | graded | (quick.M_row > 2**_SLACK)


def _factored(matrix: Array, product: GradedProduct) -> tuple[_Factors, Array]:
    """Factor ``matrix @ left @ diag(2^exponents)``, with as much care as it takes.

    Returns the factors, and whether it took any.
    """
    basis, exponents = product.left, product.exponents
    image = _image(matrix, basis, exponents)
    quick = _quickly(matrix, image, product)
    R, columns = quick.factors.M, quick.factors.columns
    alive = (exponents > -_LARGEST)[columns]
    rows = alive & (quick.pivots != 0)
    M = jnp.where(rows[:, None] & alive[None, :], R, 0)
    quick = quick._replace(
        factors=quick.factors._replace(M=M), M_row=jnp.max(jnp.abs(M), axis=1)
    )
    # A direction that is annihilated here may live on in what had leaked from it.
    dies = alive & (quick.pivots == 0)
    delicate = jnp.any(_delicacy(matrix, basis, image, quick, alive) | dies)

    def with_care(quick):
        slow = _factored_with_care(matrix, product)
        return jax.tree.map(lambda s, q: jnp.where(delicate, s, q), slow, quick)

    some = any_in_batch(delicate)
    return jax.lax.cond(some, with_care, lambda q: q, quick.factors), delicate


def _factored_with_care(matrix: Array, product: GradedProduct) -> _Factors:
    """Factor for a matrix with columns of many sizes, or one that loses rank.

    ``matrix @ basis`` would mix the columns of the matrix and round the small ones
    away. Its own elimination first turns their sizes into sizes of rows, which the
    product with the basis keeps, row by row.
    """
    N, known = len(matrix), product.leaks

    def stage(carry, basis_and_exponents):
        left, factor, dropped, unit, is_there, rounded, lost = carry
        basis, exponents, doubted, leaked = basis_and_exponents
        image = matmul(factor, basis)
        # What the last elimination dropped is zero in `factor`; here it is noise.
        sums = sizes_of_products(jnp.abs(factor) + dropped, basis, matmul)
        at = jnp.where(is_there, unit, ABSENT)
        found = eliminated(image, sums, at, exponents)
        rows = found.rows
        # Scales of rows apart: pivots near one, or below where noise is larger.
        largest = jnp.max(found.sums, axis=1)
        of_sums = jnp.where(largest == 0, 0, exponent(largest))
        size = jnp.where(found.is_pivot, exponent(jnp.diagonal(found.upper)), of_sums)
        if known is not None:
            size = unit_of_rows(found, size, of_sums, rounded.sample)
        upper = scaled(found.upper, -size[:, None])
        lower = found.lower * gaps(at[rows], upper.dtype)
        lower = jnp.zeros_like(lower).at[rows].set(lower)
        left = matmul(left, lower)
        seen = None
        if known is not None:
            unseen = sizes_of_products(rounded.unseen, basis, matmul)
            rounded = rounded._replace(unseen=unseen)
            turn, inverse, rounded = of_elimination(found, upper, size, rounded)
            lost = doubt_of(found, at, doubted, lost, leaked)
            seen = turn, inverse, lower, rows
        factor = found.put_back(upper)
        dropped = found.put_back(scaled(dropped_by(found), -size[:, None]))
        unit = unit[rows] + size
        carry = (left, factor, dropped, unit, found.is_pivot, rounded, lost)
        return carry, (found.columns, seen)

    eye, nothing = jnp.eye(N, dtype=matrix.dtype), jnp.zeros_like(matrix)
    level, exponents = jnp.zeros(N, jnp.int32), _present(product.exponents)
    rounded, lost, doubted, leaked = (), None, exponents, nothing
    if known is not None:
        leaked = jnp.maximum(jnp.abs(known.sample), known.floor)
        none = no_leaks(N, matrix.dtype)
        rounded, lost = Roundings(none.sample, none.variance, nothing), none.doubt
        doubted = jnp.maximum(exponents, known.doubt)
    start = (eye, matrix, nothing, level, jnp.ones(N, bool), rounded, lost)
    # The matrix itself, then its product with the basis: one loop, compiled once.
    stages = (
        (eye, level, level, nothing),
        (product.left, exponents, doubted, leaked),
    )
    stages = jax.tree.map(lambda *both: jnp.stack(both), *stages)
    start, stages = varying_like((start, stages), matrix, product)
    carry, (columns, seen) = jax.lax.scan(stage, start, stages)
    left, upper, _, unit, is_there, rounded, lost = carry
    columns = columns[1]
    upper, scale = upper[:, columns], exponents[columns]
    there = is_there[:, None] & (scale > ABSENT)[None, :]
    M = jnp.where(there, _ratios(upper, scale, scale), 0)
    transport = None
    if seen is not None:
        (_, turn), (_, inverse), factors, rows = seen
        sample, own = of_multiplied(factors, rows, unit)
        sample, own = rounded.sample + sample, rounded.variance + own
        transport = Transport(turn, inverse, sample, own, unit, level, lost)
    exponents = jnp.where(is_there, unit + scale, _ANNIHILATED)
    return _Factors(left, exponents, M, columns, transport)


def _present(exponents: Array) -> Array:
    """The same, of what was annihilated exactly `ABSENT`."""
    return jnp.where(exponents > -_LARGEST, exponents, ABSENT)


def gaps(exponents: Array, dtype: jnp.dtype) -> Array:
    """(N, N), 2 to what each of some exponents is above every other, cut off."""
    return power_of_two(exponents[:, None] - exponents[None, :], dtype)


def _scaled_triangle(R: Array, exponents: Array) -> tuple[Array, Array]:
    """Exponents d and M with ``R diag(2^exponents) = diag(2^d) M``, M near one."""
    new = exponents + exponent(jnp.diagonal(R))
    present = exponents > -_LARGEST
    rows = present & (jnp.diagonal(R) != 0)
    M = _ratios(R, exponents, new)
    return new, jnp.where(rows[:, None] & present[None, :], M, 0)


def _ratios(R: Array, columns: Array, rows: Array) -> Array:
    """Upper triangle ``diag(2^-rows) R diag(2^columns)``."""
    return jnp.triu(R) * power_of_two(columns[None, :] - rows[:, None], R.dtype)


def _is_out_of_range(exponents: Array) -> Array:
    return jnp.abs(exponents) >= _LARGEST


def _columns_near_one(matrix: Array, exponents: Array) -> tuple[Array, Array]:
    size = jnp.max(jnp.abs(matrix), axis=0)
    # A column of zeros has a derivative: it keeps its scale.
    e = jnp.where(size == 0, 0, exponent(size))
    return scaled(matrix, -e[None, :]), exponents + e


def _highest(dtype: jnp.dtype) -> int:
    """Exponent that the largest entry of a matrix is brought to.

    Above one, to keep small entries; not at the upper end, where cotangents, which are
    scaled the other way, would underflow.
    """
    return int(jnp.finfo(dtype).maxexp) // 2


def _few_digits(dtype: jnp.dtype) -> float:
    """Unevenness, 7e-4 in float64 and 4e-2 in float32, that costs no care yet.

    A heuristic: it costs at most one fifth of the digits, in a single factor.
    """
    return float(jnp.finfo(dtype).eps) ** 0.2
