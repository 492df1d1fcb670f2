"""Products of products: the same in any tree."""

import balls
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import systems

from vgjax.products import identity, log_singular_values, log_svd, multiply, push

pushed = jax.jit(
    lambda chain: jax.lax.scan(
        lambda p, A: (push(p, A), None), identity(chain.shape[-1], chain.dtype), chain
    )[0]
)
merged = jax.jit(multiply)
values_of = jax.jit(log_singular_values)


def tree(chain):
    """Product of a power of two of matrices, merged pair by pair."""
    products = jax.vmap(lambda A: pushed(A[None]))(chain)
    while len(products.exponents) > 1:
        older = jax.tree.map(lambda a: a[::2], products)
        newer = jax.tree.map(lambda a: a[1::2], products)
        products = jax.vmap(merged)(newer, older)
    return jax.tree.map(lambda a: a[0], products)


def test_a_product_of_two_is_left_times_right(dtype, tolerance):
    chain = jnp.asarray(systems.gaussian_chain(1, 5, 12), dtype)
    product = merged(pushed(chain[7:]), pushed(chain[:7]))
    left, values, right = (np.asarray(a) for a in jax.jit(log_svd)(product))
    whole = np.eye(5)
    for A in np.asarray(chain, float):
        whole = A @ whole
    tol = tolerance(1e-13, 1e-4) * np.abs(whole).max()
    np.testing.assert_allclose(left * np.exp(values) @ right.T, whole, atol=tol)
    scales = jnp.diag(2.0 ** product.exponents.astype(dtype))
    factors = product.left @ scales @ product.right
    np.testing.assert_allclose(factors @ product.rotation.T, whole, atol=tol)
    assert np.linalg.cond(product.left) < 100
    assert np.linalg.cond(product.right) < 100


@pytest.mark.float64
@pytest.mark.parametrize(
    "family", ["tanh", "gru", "lstm", "minimal", "mgu", "switching", "residual", "lru"]
)
def test_products_are_associative(family):
    recipe = next(r for r in networks.recipes() if r.family == family and r.N == 4)
    chain = jnp.asarray(networks.network(recipe, T=96).jacobians)
    first, second, third = (pushed(chain[i : i + 32]) for i in (0, 32, 64))
    one = values_of(merged(merged(third, second), first))
    other = values_of(merged(third, merged(second, first)))
    np.testing.assert_allclose(one, other, atol=1e-11, rtol=1e-14)


@pytest.mark.float64
@pytest.mark.parametrize("kind", ["gaussian", "tanh", "ring", "decoupled"])
def test_a_tree_has_the_values_of_the_product(kind):
    chain = {
        "gaussian": lambda: systems.gaussian_chain(2, 6, 64),
        "tanh": lambda: systems.tanh_chain(1, 6, 3.0, 64),
        "ring": lambda: systems.ring(6, 0.5, 64)[0],
        "decoupled": lambda: fading_beside_a_rotation(32),
    }[kind]()
    truth = balls.log_singular_values(chain, [64])[64]
    found = values_of(tree(jnp.asarray(chain)))
    np.testing.assert_allclose(found, truth, atol=1e-11, rtol=1e-14)


def fading_beside_a_rotation(T):
    """A scalar that fades and recovers, beside a rotation that it does not feed."""
    factors = np.zeros((2 * T, 3, 3))
    factors[:, 0, 0] = np.repeat([0.5, 2.0], T)
    factors[:, 1:, 1:] = [[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]
    return factors


def test_rank_lost_between_two_products_is_lost(dtype):
    shift = jnp.asarray(np.diag([1.0, 2.0], 1), dtype)
    once = pushed(shift[None])
    twice, thrice = merged(once, once), merged(merged(once, once), once)
    np.testing.assert_array_equal(np.isneginf(values_of(twice)), [0, 1, 1])
    np.testing.assert_allclose(values_of(twice)[0], np.log(2), rtol=1e-6)
    assert np.isneginf(values_of(thrice)).all()


def test_the_identity_changes_nothing_and_nan_everything(dtype, tolerance):
    product = pushed(jnp.asarray(systems.gaussian_chain(4, 4, 9), dtype))
    expected, tol = values_of(product), tolerance(1e-13, 1e-5)
    one = identity(4, dtype)
    np.testing.assert_allclose(values_of(merged(one, product)), expected, atol=tol)
    np.testing.assert_allclose(values_of(merged(product, one)), expected, atol=tol)
    spoilt = pushed(jnp.full((1, 4, 4), jnp.nan, dtype))
    assert np.isnan(values_of(merged(spoilt, product))).all()
    assert np.isnan(values_of(merged(product, spoilt))).all()


def test_products_that_do_not_fit_are_refused():
    three, two = identity(3, jnp.float32), identity(2, jnp.float32)
    with pytest.raises(ValueError, match="`right.left` must have shape .N=3, N=3."):
        multiply(three, two)
    with pytest.raises(TypeError, match="`right` must be a GradedProduct"):
        multiply(three, np.eye(3))
    with pytest.raises(ValueError, match="`left` must carry its rotation"):
        multiply(three._replace(rotation=None), three)
