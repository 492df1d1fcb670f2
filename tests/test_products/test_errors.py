"""Errors that come with the values, on real networks; `scripts/bench --errors` for all.

A sample of them: small, of few steps, forward and in reverse.
"""

import balls
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from vgjax import products

SAMPLE = list(networks.networks(sample=12, T=160))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_no_value_is_off_by_more_than_its_error(reverse, dtype):
    for network in SAMPLE:
        chain = np.asarray(network.jacobians, dtype)
        chain[np.abs(chain) < np.finfo(chain.dtype).tiny] = 0
        every = network.T // 4
        found = products.product_spectrum(
            jnp.asarray(chain), every=every, reverse=reverse
        )
        steps = np.asarray(found.steps).tolist()
        factors = balls.reverse(chain) if reverse else chain
        truth = balls.log_singular_values(factors, steps)
        for r, t in enumerate(steps):
            value = np.asarray(found.log_singular_values[r], float)
            error = np.asarray(found.error[r], float)
            with np.errstate(invalid="ignore"):  # both -inf is right
                off = np.where(value == truth[t], 0, np.abs(value - truth[t]))
            held = (off <= error) | np.isposinf(error)
            case = f"{network.family}, gain {network.gain}, {network.driver}, t = {t}"
            assert held.all(), f"{case}: {value} for {truth[t]}, error {error}"


def held(chain, every, *, reverse=False):
    """Whether all values of all records are within their errors, by balls."""
    found = products.product_spectrum(jnp.asarray(chain), every=every, reverse=reverse)
    steps = np.asarray(found.steps).tolist()
    truth = balls.log_singular_values(
        balls.reverse(np.asarray(chain)) if reverse else np.asarray(chain), steps
    )
    truth = np.array([truth[t] for t in steps])
    value = np.asarray(found.log_singular_values, float)
    with np.errstate(invalid="ignore"):
        off = np.where(value == truth, 0, np.abs(value - truth))
    return (off <= found.error) | np.isposinf(found.error)


def test_errors_count_the_condition_of_the_right_factor(dtype):
    # Until it is balanced after 8 pushes, its condition grows to 1e7.
    jordan = 0.57 * np.eye(6) + 3.0 * np.eye(6, k=1)
    assert held(np.array([jordan] * 25, dtype), 1).all()


def test_values_that_come_back_together_share_their_errors(dtype):
    rng = np.random.default_rng(4)
    for _ in range(4):
        frame, scales = rng.standard_normal((4, 4)), np.array([2.0, 1.0, 0.5, 0.25])
        away = frame * scales @ np.linalg.inv(frame)
        back = frame / scales @ np.linalg.inv(frame)
        assert held(np.array([away] * 12 + [back] * 12, dtype), 4).all()


def test_what_a_mask_annihilates_is_certain(dtype):
    rng = np.random.default_rng(0)
    masks = rng.random((20, 6, 1)) < 0.8
    chain = np.where(masks, rng.standard_normal((20, 6, 6)), 0).astype(dtype)
    for reverse in (False, True):
        found = products.product_spectrum(jnp.asarray(chain), every=20, reverse=reverse)
        is_lost = np.isneginf(found.log_singular_values)
        assert is_lost.any()
        np.testing.assert_array_equal(found.error[is_lost], 0)
