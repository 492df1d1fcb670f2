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
    matmul,
    power_of_two,
    qr,
    scaled,
    varying_like,
    without_derivative_if,
)
from vgjax._tolerances import PUSHES_PER_BALANCE
from vgjax.products._elimination import ABSENT, eliminated, sizes_of_products
from vgjax.products._factor import (
    LARGEST,
    delicacy,
    factored,
    factored_plainly,
    gaps,
    image_of,
    present,
    scaled_triangle,
)
from vgjax.products._leaks import Leaks, carried, of_right, rebased, reordered

__all__ = ["GradedProduct", "identity", "multiply", "push"]


def __dir__() -> list[str]:
    return __all__


class GradedProduct(NamedTuple):
    """A product of square matrices, ``left diag(2^exponents) right rotation^T``.

    Made by `identity`, extended by `push` and `multiply`, read by
    `log_singular_values` and `log_svd`. A row of zeros in `right` is a direction that
    was annihilated.

    Attributes:
      left: (N, N) well-conditioned.
      exponents: (N,) int32, binary orders of magnitude.
      right: (N, N) well-conditioned.
      rotation: (N, N) orthogonal; None where only values are wanted.
      age: () int32, pushes since `right` was last made triangular.
      leaks: What rounding may have done; None where no errors are wanted.
    """

    left: Array
    exponents: Array
    right: Array
    rotation: Array | None
    age: Array
    leaks: Leaks | None = None


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
    n = _checks.integer(n, "n", 1)
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
    above, below = present(left.exponents), present(right.exponents)
    found = eliminated(between, sums, above, below)
    above, below = above[found.rows], below[found.columns]
    lower = found.lower * gaps(above, middle.dtype)
    lower = jnp.zeros_like(lower).at[found.rows].set(lower)
    exponents, M = scaled_triangle(found.upper, below)
    product = right._replace(
        left=matmul(left.left, lower), age=jnp.zeros_like(right.age), leaks=None
    )
    exponents = jnp.where(found.is_pivot, exponents + above, ABSENT)
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
    return jnp.any(product.exponents <= -LARGEST)


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
    factors, delicate = factored(matrix, product)
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
    image = image_of(matrix, product.left, product.exponents)
    quick = factored_plainly(matrix, image, product)
    factors = quick.factors
    right = matmul(factors.M, product.right[factors.columns])
    size = exponent(jnp.max(jnp.abs(right), axis=1))
    right = scaled(right, -size[:, None])
    exponents = factors.exponents + size + overall
    # Left per column: a reduction of flags is two kernels to compile. A NaN or an
    # infinity is in every column of the image, for 0 * inf is NaN, and so in a pivot.
    reasons = delicacy(matrix, product.left, image, quick)
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
    exponents = jnp.where(size == 0, ABSENT, exponents + exponent(size))
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
    exponents, M = scaled_triangle(R, product.exponents)
    right = matmul(M, product.right)
    eye = varying_like(jnp.eye(len(Q), dtype=Q.dtype), Q)
    product = product._replace(left=eye, exponents=exponents, right=right, leaks=None)
    return Q, R, product


def _is_out_of_range(exponents: Array) -> Array:
    return jnp.abs(exponents) >= LARGEST


def _highest(dtype: jnp.dtype) -> int:
    """Exponent that the largest entry of a matrix is brought to.

    Above one, to keep small entries; not at the upper end, where cotangents, which are
    scaled the other way, would underflow.
    """
    return int(jnp.finfo(dtype).maxexp) // 2
