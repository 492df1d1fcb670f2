"""One graded product: pushes, values and vectors; and the laws of all products."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import systems

from vgjax import products
from vgjax.products import identity, log_singular_values, log_svd, push

DTYPE = np.dtype(jnp.result_type(float))
WIDE = jax.config.jax_enable_x64  # tolerances of the laws go by this


@jax.jit
def pushed(chain, start=None):
    """Product of a stack; one program for every chain of a shape."""
    start = identity(chain.shape[-1], chain.dtype) if start is None else start
    return jax.lax.scan(lambda p, A: (push(p, A), None), start, chain)[0]


read = jax.jit(log_svd)
values_of = jax.jit(log_singular_values)


def plainly(chain):
    product = np.eye(chain.shape[-1])
    for A in chain:
        product = A @ product
    return product


def test_identity_has_values_of_zero_and_is_orthogonal(dtype):
    product = identity(6, dtype)
    np.testing.assert_array_equal(values_of(product), np.zeros(6))
    left, values, right = read(product)
    np.testing.assert_allclose(left @ right.T, np.eye(6), atol=1e-6)
    np.testing.assert_array_equal(values, np.zeros(6))
    assert left.dtype == values.dtype == dtype


def test_factors_put_together_are_the_product(dtype, tolerance):
    chain = systems.gaussian_chain(1, 6, 10)
    left, values, right = read(pushed(jnp.asarray(chain, dtype)))
    whole = np.asarray(left) @ np.diag(np.exp(values)) @ np.asarray(right).T
    np.testing.assert_allclose(whole, plainly(chain), atol=tolerance(1e-14, 1e-5))
    backwards = plainly(chain[::-1])
    assert np.abs(whole - backwards).max() > 0.01


def test_factors_of_the_product_itself_are_those_it_is_said_to_have(dtype, tolerance):
    chain = systems.gaussian_chain(2, 6, 10)
    p = pushed(jnp.asarray(chain, dtype))
    tol = tolerance(1e-13, 1e-4)
    whole = p.left @ jnp.diag(2.0 ** p.exponents.astype(dtype)) @ p.right @ p.rotation.T
    size = np.abs(plainly(chain)).max()
    np.testing.assert_allclose(whole, plainly(chain), atol=tol * size)
    np.testing.assert_allclose(p.rotation.T @ p.rotation, np.eye(6), atol=tol)
    assert np.linalg.cond(p.left) < 100
    assert p.exponents.dtype == jnp.int32


@pytest.mark.float64
@pytest.mark.parametrize(
    ("seed", "gain", "T", "span"), [(1, 1.2, 40, 60), (2, 3.0, 120, 300)]
)
def test_singular_vectors_agree_with_high_precision_over_hundreds_of_nats(
    seed, gain, T, span
):
    chain = systems.tanh_chain(seed, 6, gain, T)
    U, answer, V = oracles.log_svd(chain, digits=1000)
    assert answer[0] - answer[-1] > span
    left, values, right = (np.asarray(a) for a in read(pushed(jnp.asarray(chain))))
    np.testing.assert_allclose(values, answer, atol=1e-10, rtol=0)
    sign = np.sign((left * U).sum(0))
    np.testing.assert_allclose(left * sign, U, atol=1e-9)
    np.testing.assert_allclose(right * sign, V, atol=1e-9)  # one sign for both
    for basis in (left, right):
        np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-13)


@pytest.mark.float64
def test_singular_vectors_of_equal_values_span_what_they_should():
    chain, answer = systems.ring(6, 0.1, 1000)
    left, values, right = (np.asarray(a) for a in read(pushed(jnp.asarray(chain))))
    np.testing.assert_allclose(values, answer[-1], atol=1e-10, rtol=0)
    # The product is symmetric and positive: left and right vectors are the same, and
    # each group of equal values spans an eigenspace of one factor.
    levels, vectors = np.linalg.eigh(chain[0])
    np.testing.assert_allclose(left, right, atol=1e-9)
    for group in ([0], [1, 2], [3, 4], [5]):
        eigenspace = vectors[:, ::-1][:, group]
        P, expected = left[:, group] @ left[:, group].T, eigenspace @ eigenspace.T
        np.testing.assert_allclose(P, expected, atol=1e-9)
    assert np.ptp(np.log(levels)) * 1000 > 300


def test_what_is_annihilated_reads_minus_infinity_and_completes_the_bases(
    dtype, tolerance
):
    chain = systems.gaussian_chain(3, 6, 10)
    chain[4, :, 2], chain[4, :, 0] = chain[4, :, 5], chain[4, :, 1]
    chain[9, 1] = 0
    left, values, right = (
        np.asarray(a) for a in read(pushed(jnp.asarray(chain, dtype)))
    )
    np.testing.assert_array_equal(np.isneginf(values), [0, 0, 0, 0, 1, 1])
    tol = tolerance(1e-13, 1e-5)
    for basis in (left, right):
        np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=tol)
    whole = left @ np.diag(np.exp(values)) @ right.T
    np.testing.assert_allclose(whole, plainly(chain), atol=tol)
    np.testing.assert_allclose(left[1, :4], 0, atol=tol)


@pytest.mark.slow
def test_chain_of_pushes_agrees_with_the_product_spectrum(dtype, tolerance):
    chain = jnp.asarray(systems.tanh_chain(4, 6, 1.5, 35), dtype)
    spectrum = products.product_spectrum(chain)
    product, tol = identity(6, dtype), tolerance(1e-11, 1e-3)
    step = jax.jit(push)
    for A, expected in zip(chain, spectrum.log_singular_values, strict=True):
        product = step(product, A)
        np.testing.assert_allclose(values_of(product), expected, atol=tol)
    np.testing.assert_allclose(read(product).log_values, expected, atol=tol)


@pytest.mark.float64
def test_long_chain_of_pushes_keeps_its_degenerate_pairs():
    chain, answer = systems.ring(6, 0.5, 3000)
    product = identity(6, float)
    for t in (0, 1000, 2000):
        product = pushed(jnp.asarray(chain[t : t + 1000]), product)
        found, expected = values_of(product), answer[t + 999]
        np.testing.assert_allclose(found, expected, atol=1e-10, rtol=0)
    assert answer[-1, 0] - answer[-1, -1] > 3000


def test_ten_thousand_pushes_neither_overflow_nor_forget(dtype, tolerance):
    A = jnp.asarray(np.diag([1e6, 2.0, 1e-6]), dtype)
    push_many = jax.jit(
        lambda p: jax.lax.fori_loop(0, 10_000, lambda _, p: push(p, A), p)
    )
    values = log_singular_values(push_many(identity(3, dtype)))
    answer = 1e4 * np.log([1e6, 2.0, 1e-6])
    np.testing.assert_allclose(values, answer, rtol=tolerance(1e-13, 1e-6))


@pytest.mark.parametrize("sign", [1, -1])
def test_exponents_end_in_nan_at_the_limit_and_are_right_before_it(sign, dtype):
    limit, step = 2**29, 100
    factor = jnp.asarray(np.diag([2.0 ** (sign * step), 1.0]), dtype)
    start = identity(2, dtype)
    near = start._replace(exponents=jnp.asarray([sign * (limit - 150), 0], jnp.int32))
    inside = push(near, factor)
    expected = np.sort([sign * (limit - 50) * np.log(2), 0])[::-1]
    np.testing.assert_allclose(values_of(inside), expected, rtol=1e-6)
    beyond = push(inside, factor)
    assert np.isnan(values_of(beyond)).all()
    assert np.isnan(values_of(push(beyond, factor))).all()


def test_what_is_annihilated_stays_so_far_out_in_the_range(dtype):
    start = identity(2, dtype)
    far = start._replace(exponents=jnp.asarray([2**28, -(2**28)], jnp.int32))
    dead = push(push(far, jnp.diag(jnp.asarray([1.0, 0], dtype))), start.left)
    found = values_of(dead)
    np.testing.assert_allclose(found[0], 2**28 * np.log(2), rtol=1e-6)
    assert found[1] == -np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_matrix_with_nan_or_infinity_makes_every_later_value_nan(bad, dtype):
    chain = systems.gaussian_chain(5, 6, 10)
    chain[2, 3, 1] = bad
    product = pushed(jnp.asarray(chain, dtype))
    assert np.isnan(values_of(product)).all()
    assert np.isnan(read(product).log_values).all()


def test_same_answer_with_and_without_vmap_and_only_one_trace(dtype, tolerance):
    chains = np.stack([systems.gaussian_chain(seed, 6, 10) for seed in (1, 2, 3)])
    chains[1, 2, :, 0] = chains[1, 2, :, 1]
    chains = jnp.asarray(chains, dtype)

    def measure(chain):
        return log_svd(pushed(chain)).log_values

    together = jax.jit(jax.vmap(measure))(chains)
    compiled = jax.jit(chex.assert_max_traces(measure, 1))
    tol = tolerance(1e-12, 1e-4)
    for chain, values in zip(chains, together, strict=True):
        np.testing.assert_allclose(compiled(chain), values, atol=tol)
    assert np.isneginf(together).sum() == 1


def test_products_are_of_one_dtype():
    product = identity(3, jnp.float32)
    with pytest.raises(TypeError, match="`matrix` must have dtype float32, .* int32"):
        push(product, jnp.ones((3, 3), jnp.int32))
    with pytest.raises(TypeError, match="`matrix` must have dtype float32, .* float16"):
        push(product, jnp.ones((3, 3), jnp.float16))


@pytest.mark.float64
def test_float64_matrices_do_not_go_into_a_float32_product():
    with pytest.raises(TypeError, match="`matrix` must have dtype float32, .* float64"):
        push(identity(3, jnp.float32), jnp.ones((3, 3)))


@pytest.mark.parametrize("shape", [(3,), (2, 2), (3, 2), (1, 3, 3), ()])
def test_matrices_of_another_shape_are_refused(shape, dtype):
    sentence = r"`matrix` must have shape \(N=3, N=3\).* but has shape \("
    with pytest.raises(ValueError, match=sentence):
        push(identity(3, dtype), jnp.ones(shape, dtype))


def test_identities_of_no_size_or_type_are_refused():
    with pytest.raises(ValueError, match="`n` must be at least 1, but is 0"):
        identity(0, jnp.float32)
    with pytest.raises(TypeError, match=r"`n` must be a whole number, but is 2\.0"):
        identity(2.0, jnp.float32)
    with pytest.raises(TypeError, match="`dtype` must be float32 .* is complex64"):
        identity(2, jnp.complex64)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="`dtype` .*is float64.*jax_enable_x64"),
    ):
        identity(2, "float64")


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_log_determinant_of_tiny_and_huge_pairs_is_finite(size, dtype, tolerance):
    # The closed form of a 2 x 2 determinant squares what it is given.
    size = size if dtype == jnp.float32 else size**6
    chain = jnp.asarray(size * np.array([[[2.0, 1], [1, 1]]] * 3), dtype)
    found = products.product_spectrum(chain)
    steps = np.arange(1, 4)
    answer = steps * 2 * np.log(size)
    rtol = tolerance(1e-13, 1e-6)
    np.testing.assert_allclose(found.log_singular_values.sum(1), answer, rtol=rtol)
    np.testing.assert_allclose(found.log_abs_det, answer, rtol=rtol)


# Laws that hold for every product, on chains of one shape that a seed, a spread of the
# rows and a spread of the columns make.
T, N = 25, 5
laws = hypothesis.settings(
    derandomize=True, deadline=None, max_examples=12, database=None
)
chains = st.tuples(st.integers(0, 10**6), st.floats(0, 4), st.floats(0, 4))


def made(seed, rows, columns):
    rng = np.random.default_rng(seed)
    chain = rng.standard_normal((T, N, N))
    chain *= np.exp(rows * rng.standard_normal((T, N, 1)))
    chain *= np.exp(columns * rng.standard_normal((T, 1, N)))
    return chain.astype(DTYPE)


def spectrum(chain, **options):
    found = products.product_spectrum(jnp.asarray(chain), **options)
    return np.asarray(found.log_singular_values, float), np.asarray(found.log_abs_det)


# In float32 a chain of random factors has, over all its examples, one that is so
# ill-conditioned that its rounding moves the smallest value by a few hundredths.
CLOSE = 1e-9 if WIDE else 0.1


@hypothesis.given(chains)
@laws
def test_values_sum_to_the_log_determinants(drawn):
    chain = made(*drawn)
    values, log_det = spectrum(chain)
    expected = oracles.log_abs_det(chain.astype(float))
    np.testing.assert_allclose(values.sum(1), expected, atol=CLOSE)
    np.testing.assert_allclose(log_det, expected, atol=CLOSE)


@hypothesis.given(chains, st.integers(0, T - 1), st.floats(-40, 40))
@laws
def test_scaling_one_factor_shifts_every_value_by_as_much(drawn, t, c):
    chain = made(*drawn)
    scaled = chain.copy()
    scaled[t] *= np.exp2(np.round(c)).astype(DTYPE)  # exact, so that only we can err
    shift = np.where(np.arange(T) >= t, np.round(c) * np.log(2), 0)
    expected = spectrum(chain)[0] + shift[:, None]
    np.testing.assert_allclose(spectrum(scaled)[0], expected, atol=CLOSE)


@hypothesis.given(chains)
@laws
def test_values_of_the_transpose_are_those_of_the_product(drawn):
    chain = made(*drawn)
    transposed = np.swapaxes(chain[::-1], 1, 2)
    found, _ = spectrum(transposed, reverse=True)
    np.testing.assert_allclose(found, spectrum(chain)[0], atol=CLOSE)
    whole, _ = spectrum(transposed)
    np.testing.assert_allclose(whole[-1], spectrum(chain)[0][-1], atol=CLOSE)


@hypothesis.given(chains)
@laws
def test_partial_sums_never_exceed_those_of_the_factors(drawn):
    seed, rows, columns = drawn
    # NumPy's SVD of one factor is no oracle for rows or columns of very many sizes.
    chain = made(seed, rows / 4, columns / 4)
    values, _ = spectrum(chain)
    each = np.log(np.linalg.svd(chain.astype(float), compute_uv=False))
    bound = np.cumsum(np.cumsum(each, axis=1), axis=0)
    assert (np.cumsum(values, axis=1) <= bound + CLOSE).all()
    np.testing.assert_allclose(values.sum(1), bound[:, -1], atol=CLOSE)
    np.testing.assert_allclose(values[0], each[0], atol=CLOSE)
    assert (np.diff(values, axis=1) <= 0).all()


@hypothesis.given(chains, st.permutations(range(N)))
@laws
def test_values_do_not_depend_on_the_order_of_the_units(drawn, order):
    chain = made(*drawn)
    permuted = chain[:, order][:, :, order]
    np.testing.assert_allclose(spectrum(permuted)[0], spectrum(chain)[0], atol=CLOSE)
