"""Derivatives of spectra of products, against those of the product itself."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

from vgjax import products


def test_derivative_of_a_singular_value_is_that_of_the_product(dtype, tolerance):
    chain = jnp.asarray(systems.gaussian_chain(1, 4, 5), dtype)

    def smallest(chain):
        return products.product_spectrum(chain).log_singular_values[-1, -1]

    def plainly(chain):
        product = chain[4] @ chain[3] @ chain[2] @ chain[1] @ chain[0]
        return jnp.log(jnp.linalg.svd(product, compute_uv=False)[-1])

    chex.assert_trees_all_close(
        jax.grad(smallest)(chain),
        jax.grad(plainly)(chain),
        rtol=tolerance(1e-8, 1e-2),
        atol=tolerance(1e-8, 1e-2),
    )


@pytest.mark.slow
@pytest.mark.parametrize("row_of_zeros", [0, 2])
def test_gradient_beside_minus_infinity_is_that_of_the_product(
    row_of_zeros, dtype, tolerance
):
    chain = systems.gaussian_chain(2, 3, 4)
    chain[3, row_of_zeros] = 0

    def largest(chain):
        return products.product_spectrum(chain).log_singular_values[-1, 0]

    def differences(chain, h=1e-6):
        slope = np.zeros_like(chain)
        for at in np.ndindex(chain.shape):
            ends = []
            for sign in (1, -1):
                moved = chain.copy()
                moved[at] += sign * h
                ends.append(np.log(np.linalg.norm(np.linalg.multi_dot(moved[::-1]), 2)))
            slope[at] = (ends[0] - ends[1]) / (2 * h)
        return slope

    found = jax.grad(largest)(jnp.asarray(chain, dtype))
    np.testing.assert_allclose(found, differences(chain), atol=tolerance(1e-8, 1e-4))


def test_gradient_of_one_singular_factor_is_known_on_paper(dtype):
    def measure(W, read):
        return read(products.product_spectrum(W[None]))

    W, grad = jnp.asarray([[2.0, 0], [1, 0]], dtype), jax.grad(measure)
    found = grad(W, lambda s: s.log_singular_values[0, 0])
    np.testing.assert_allclose(found, [[0.4, 0], [0.2, 0]], atol=1e-6)
    np.testing.assert_array_equal(grad(W, lambda s: s.log_singular_values[0, 1]), 0)
    np.testing.assert_array_equal(grad(W, lambda s: s.log_abs_det[0]), 0)


@pytest.mark.slow
def test_gradient_of_pushes_is_nan_and_not_wrong_after_an_annihilation(dtype):
    chain = systems.gaussian_chain(2, 3, 4)
    chain[1, 1] = 0

    def largest(chain):
        def push(product, matrix):
            return products.push(product, matrix), None

        product, _ = jax.lax.scan(push, products.identity(3, dtype), chain)
        return products.log_singular_values(product)[0]

    grad = jax.jit(jax.grad(largest))
    assert np.isnan(grad(jnp.asarray(chain, dtype))[:2]).all()
    assert np.isfinite(grad(jnp.asarray(chain[:2], dtype))).all()


@pytest.mark.slow
def test_gradient_of_log_abs_det_is_zero_in_every_singular_factor(dtype):
    chain = systems.gaussian_chain(3, 4, 3)
    chain[0] = np.outer(chain[0, 0], chain[0, 1]) + np.outer(chain[0, 2], chain[0, 3])
    chain[2, 3] = chain[2, :3].sum(0)  # of rank 3, and known by round-off only

    def log_det(chain):
        return products.product_spectrum(chain).log_abs_det[-1]

    found = np.asarray(jax.grad(log_det)(jnp.asarray(chain, dtype)))
    assert np.abs(found[[0, 2]]).max() == 0
    assert np.isfinite(found).all()
