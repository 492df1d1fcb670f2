import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgjax import matrices

PAIRED = np.array([0.9, -0.5, 0.3 + 0.6j, 0.2 - 0.1j, 0.3 - 0.6j, 0.2 + 0.1j])


def key(seed):
    return jax.random.key(seed)


def assert_same_eigenvalues(W, expected, atol):
    """Each expected value has its own within atol, whatever the order."""
    found = list(np.linalg.eigvals(np.asarray(W, np.float64)))
    assert len(found) == len(expected)
    for value in expected:
        nearest = np.argmin(np.abs(np.array(found) - value))
        assert abs(found.pop(nearest) - value) < atol


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_normal_matrix_has_the_eigenvalues_given_and_commutes(seed, dtype, tolerance):
    atol = tolerance(1e-14, 1e-5)
    values = PAIRED.astype(jnp.zeros(0, dtype).astype(complex).dtype)
    W = matrices.normal(key(seed), values)
    assert W.dtype == dtype
    W = np.asarray(W)
    assert_same_eigenvalues(W, PAIRED, atol)
    np.testing.assert_allclose(W @ W.T, W.T @ W, atol=atol)
    assert np.abs(W - W.T).max() > 0.1  # it could not pass by being symmetric


def test_a_normal_matrix_may_have_real_eigenvalues_only_or_pairs_only(tolerance):
    real, pair = [0.5, -2.0, 0.0], [0.1 + 1j, 0.1 - 1j]
    for values in (real, pair):
        W = matrices.normal(key(1), values)
        assert_same_eigenvalues(W, values, tolerance(1e-14, 1e-5))


def test_a_symmetric_matrix_has_the_eigenvalues_given(dtype, tolerance):
    values = [1.5, -0.3, 0.2, -2.0]
    W = matrices.symmetric(key(2), jnp.array(values, dtype))
    assert W.dtype == dtype
    np.testing.assert_array_equal(W, W.T)
    assert_same_eigenvalues(W, values, tolerance(1e-14, 1e-5))
    assert np.abs(W - np.diag(np.diag(W))).max() > 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_orthogonal_matrix_is_its_own_inverse_transposed(seed, dtype, tolerance):
    Q = matrices.orthogonal(key(seed), 7, dtype=dtype)
    assert Q.dtype == dtype
    np.testing.assert_allclose(Q @ Q.T, np.eye(7), atol=tolerance(1e-14, 1e-5))


def test_orthogonal_matrices_are_drawn_evenly():
    # Under Haar measure the trace has mean 0 and variance 1; QR without its signs put
    # right has a negative mean.
    keys = jax.random.split(key(1), 2000)
    draw = jax.vmap(lambda k: jnp.trace(matrices.orthogonal(k, 4)))
    traces = np.asarray(draw(keys))
    assert abs(traces.mean()) < 6 / np.sqrt(2000)
    # E tr^4 = 3, so the variance of tr^2 is 2.
    assert abs((traces**2).mean() - 1) < 6 * np.sqrt(2 / 2000)


def test_gaussian_entries_have_the_variance_of_the_gain(dtype):
    N, gain = 200, 1.5
    W = matrices.gaussian(key(3), N, gain=gain, dtype=dtype)
    assert W.dtype == dtype
    W = np.asarray(W, np.float64)
    assert abs(W.mean()) < 6 * gain / N**1.5
    assert abs(N * W.var() / gain**2 - 1) < 6 * np.sqrt(2) / N
    # |lambda|^2 averages to g^2/2 over the disc; the law of tr W W^T bounds it above.
    inside = np.abs(np.linalg.eigvals(W)) < gain / np.sqrt(2)
    # Eigenvalues repel: their number in a disc varies less than independent points do.
    assert abs(inside.mean() - 0.5) < 6 * np.sqrt(0.25 / N)


def test_a_shear_is_what_it_says():
    np.testing.assert_array_equal(matrices.shear(0.5, 4.0), [[0.5, 4.0], [0.0, 0.5]])


def test_rotation_blocks_scale_and_turn_counter_clockwise(tolerance):
    W = matrices.rotation_blocks(jnp.array([0.5, 2.0]), jnp.array([np.pi / 2, 0.3]))
    atol = tolerance(1e-14, 1e-6)
    np.testing.assert_allclose(W[:, 0], [0, 0.5, 0, 0], atol=atol)
    expected = [0.5j, -0.5j, 2 * np.exp(0.3j), 2 * np.exp(-0.3j)]
    assert_same_eigenvalues(W, expected, atol)
    np.testing.assert_array_equal(W[:2, 2:], np.zeros((2, 2)))


def test_each_follows_the_dtype_it_is_given():
    one = jnp.float32(1.0)
    assert matrices.shear(one, 2.0).dtype == jnp.float32
    assert matrices.rotation_blocks(one[None], one[None]).dtype == jnp.float32
    assert matrices.symmetric(key(1), one[None]).dtype == jnp.float32
    assert matrices.normal(key(1), np.complex64([1, 1j, -1j])).dtype == jnp.float32
    assert matrices.gaussian(key(1), 2, dtype=jnp.float32).dtype == jnp.float32
    default = jnp.zeros(()).dtype
    assert matrices.shear(0.9, 5.0).dtype == default
    assert matrices.normal(key(1), [1j, -1j]).dtype == default
    assert matrices.orthogonal(key(1), 2).dtype == default


def test_the_same_key_gives_the_same_matrix_under_jit(tolerance):
    for draw in (
        lambda k: matrices.gaussian(k, 3, gain=2.0),
        lambda k: matrices.orthogonal(k, 3),
        lambda k: matrices.normal(k, PAIRED),
        lambda k: matrices.symmetric(k, jnp.array([1.0, 2.0])),
    ):
        with_jit, without = jax.jit(draw)(key(1)), draw(key(1))
        np.testing.assert_allclose(
            with_jit, without, rtol=0, atol=tolerance(1e-14, 1e-5)
        )


@pytest.mark.parametrize(
    ("build", "arguments", "error", "match"),
    [
        ("gaussian", (key(1), 0), ValueError, "`N` must be at least 1, but is 0"),
        ("orthogonal", (key(1), 1.5), TypeError, "`N` must be a whole number"),
        ("normal", (key(1), [0.5 + 1j, 0.5]), ValueError, "exact conjugate, but has"),
        ("normal", (key(1), [1j, -1j, 1j]), ValueError, "exact conjugate, but has"),
        (
            "normal",
            (key(1), [[0.5]]),
            ValueError,
            r"`eigenvalues` must have shape \(N,\)",
        ),
        ("normal", (key(1), [1, 2]), TypeError, "`eigenvalues` must be .* dtype int"),
        ("symmetric", (key(1), [1j, -1j]), TypeError, "`eigenvalues` must be real"),
        ("shear", (1.0, [1.0]), ValueError, r"`b` must have shape \(\)"),
        (
            "shear",
            (1, 1.0),
            TypeError,
            "`a` must be real with dtype float32 or float64",
        ),
        ("rotation_blocks", ([1.0], [1.0, 2.0]), ValueError, r"`angles` .* \(n=1,\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(build, arguments, error, match):
    # Unwrapped, for where a type checker is hooked in and would speak first.
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(matrices, build))(*arguments)


def test_a_wrong_gain_or_dtype_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`gain` must have shape \(\)"):
        inspect.unwrap(matrices.gaussian)(key(1), 3, gain=jnp.ones(3))
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64"):
        inspect.unwrap(matrices.orthogonal)(key(1), 3, dtype=jnp.float16)


def test_a_sparse_matrix_has_so_many_nonzeros_in_each_row(dtype):
    N, nonzeros, gain = 200, 15, 1.5
    W = matrices.sparse(key(1), N, nonzeros=nonzeros, gain=gain, dtype=dtype)
    assert W.dtype == dtype
    W = np.asarray(W, np.float64)
    assert ((W != 0).sum(1) == nonzeros).all()
    assert len({tuple(np.flatnonzero(row)) for row in W}) == N
    # Each place is taken in a row with probability 15/200.
    p = nonzeros / N
    taken = (W != 0).sum(0)
    assert np.abs(taken - N * p).max() < 6 * np.sqrt(N * p * (1 - p))
    entries = W[W != 0]
    n = N * nonzeros
    assert abs(entries.mean()) < 6 * gain / np.sqrt(nonzeros * n)
    variance = (entries**2).mean() * nonzeros / gain**2
    assert abs(variance - 1) < 6 * np.sqrt(2 / n)
    # "The spectral radius is near g."
    assert abs(np.abs(np.linalg.eigvals(W)).max() / gain - 1) < 0.2


def test_a_sparse_matrix_may_be_full_and_is_drawn_anew_from_a_new_key():
    assert (matrices.sparse(key(1), 4, nonzeros=4) != 0).all()
    first, second = (matrices.sparse(key(k), 9, nonzeros=2) for k in (1, 2))
    assert ((first != 0) != (second != 0)).any()


@pytest.mark.parametrize(
    "W",
    [
        [[-3.0, 1.0], [0.0, 2.0]],
        [[0.0, -2.0], [2.0, 0.0]],
        np.random.default_rng(1).standard_normal((6, 6)),
        np.random.default_rng(2).standard_normal((1, 1)),
    ],
    ids=["negative", "complex", "random", "single"],
)
@pytest.mark.parametrize("radius", [0.95, 3.0])
def test_the_largest_eigenvalue_becomes_the_radius_given(W, radius, dtype, tolerance):
    W = jnp.asarray(W, dtype)
    found = matrices.with_spectral_radius(W, radius)
    assert found.dtype == dtype
    largest = np.abs(np.linalg.eigvals(np.asarray(found, np.float64))).max()
    assert abs(largest - radius) < tolerance(1e-14, 1e-6) * 10
    scale = np.asarray(found)[0, -1] / np.asarray(W)[0, -1]
    assert scale > 0
    np.testing.assert_allclose(found, scale * np.asarray(W), rtol=1e-6)


def test_the_radius_comes_out_whatever_the_size_of_the_matrix(dtype, tolerance):
    W = np.random.default_rng(0).standard_normal((3, 3))
    largest = np.abs(np.linalg.eigvals(W)).max()
    sizes = (1e200, 1e-200, 1e300) if dtype == np.float64 else (1e30, 1e-30, 1e36)
    for size in sizes:
        for radius in (1.0, -0.5, 1 / size):
            found = matrices.with_spectral_radius(jnp.asarray(W * size, dtype), radius)
            np.testing.assert_allclose(
                np.asarray(found, float) / radius,
                W / largest,
                rtol=tolerance(1e-13, 1e-5),
            )


def test_a_matrix_without_an_eigenvalue_but_zero_reads_nan():
    shift = jnp.eye(3, k=1)
    assert np.isnan(matrices.with_spectral_radius(shift, 0.9)).all()
    assert np.isnan(matrices.with_spectral_radius(jnp.zeros((2, 2)), 0.9)).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: unwrapped("sparse")(key(1), 3, nonzeros=4),
            ValueError,
            "`nonzeros` must be at least 1 and at most 3, but is 4",
        ),
        (
            lambda: unwrapped("sparse")(key(1), 3, nonzeros=0),
            ValueError,
            "`nonzeros` must be at least 1 and at most 3, but is 0",
        ),
        (
            lambda: unwrapped("sparse")(key(1), 3, nonzeros=1.5),
            TypeError,
            "`nonzeros` must be a whole number",
        ),
        (
            lambda: unwrapped("sparse")(key(1), 3, nonzeros=1, gain=jnp.ones(3)),
            ValueError,
            r"`gain` must have shape \(\)",
        ),
        (
            lambda: unwrapped("sparse")(key(1), 0, nonzeros=1),
            ValueError,
            "`N` must be at least 1",
        ),
        (
            lambda: unwrapped("with_spectral_radius")(jnp.ones((2, 3)), 1.0),
            ValueError,
            r"`W` must have shape \(N, N\)",
        ),
        (
            lambda: unwrapped("with_spectral_radius")(jnp.eye(2), jnp.ones(2)),
            ValueError,
            r"`radius` must have shape \(\)",
        ),
        (
            lambda: unwrapped("with_spectral_radius")([[1, 2], [3, 4]], 1.0),
            TypeError,
            "`W` must be real with dtype float32 or float64",
        ),
    ],
)
def test_wrong_arguments_of_sparse_radius_and_walk_gain_are_refused_by_name(
    call, error, match
):
    with pytest.raises(error, match=match):
        call()


def unwrapped(name):
    return inspect.unwrap(getattr(matrices, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda x: unwrapped("gaussian")(key(1), 3, gain=x), "gain"),
        (lambda x: unwrapped("sparse")(key(1), 3, nonzeros=2, gain=x), "gain"),
        (lambda x: unwrapped("with_spectral_radius")(jnp.eye(2), x), "radius"),
        (lambda x: unwrapped("shear")(x, 1.0), "a"),
        (lambda x: unwrapped("shear")(1.0, x), "b"),
        (lambda x: unwrapped("rotation_blocks")([1.0, x], [0.0, 0.0]), "radii"),
        (lambda x: unwrapped("rotation_blocks")([1.0], [x]), "angles"),
        (lambda x: unwrapped("symmetric")(key(1), jnp.array([1.0, x])), "eigenvalues"),
        (lambda x: unwrapped("normal")(key(1), [1.0, x]), "eigenvalues"),
    ],
)
def test_gains_and_scales_that_are_not_finite_are_refused(build, name, bad):
    with pytest.raises(ValueError, match=f"`{name}` must be finite, but is "):
        build(bad)


def test_a_gain_beyond_the_dtype_is_refused_and_a_traced_one_is_taken():
    with pytest.raises(ValueError, match="`gain` must be finite in float32, but is 1e"):
        unwrapped("gaussian")(key(1), 3, gain=1e39, dtype=jnp.float32)
    with pytest.raises(ValueError, match="`gain` must be a number, but is 'large'"):
        unwrapped("gaussian")(key(1), 3, gain="large")
    with pytest.raises(ValueError, match="`gain` must be a number, but is 1j"):
        unwrapped("sparse")(key(1), 3, nonzeros=2, gain=1j)
    found = jax.jit(lambda g: matrices.gaussian(key(1), 3, gain=g))(jnp.nan)
    assert np.isnan(found).all()
