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


# Once off by more than their error. A name, what it takes, and where it was.
ONCE_TOO_SMALL = {
    "leaks in a frame that is not orthogonal": ("lstm", 6, 8, "telegraph", False, 50),
    "a row that an elimination drops": ("lstm", 3, 6, "strong, quiet", True, 434),
    "a row dropped for all that is known": ("lstm", 6, 4, "strong, quiet", True, 341),
    "a right factor that is not orthogonal": (
        "clockwork",
        5,
        16,
        "telegraph",
        True,
        13,
    ),
    "below a direction of noise": ("clockwork", 5, 8, "white", True, 100),
}


def held(chain, every, *, reverse=False):
    """(R, N), which values are within their errors, by ball arithmetic."""
    found = products.product_spectrum(jnp.asarray(chain), every=every, reverse=reverse)
    steps = np.asarray(found.steps).tolist()
    factors = balls.reverse(chain) if reverse else chain
    truth = balls.log_singular_values(factors, steps)
    truth = np.array([truth[t] for t in steps])
    value = np.asarray(found.log_singular_values, float)
    error = np.asarray(found.error, float)
    with np.errstate(invalid="ignore"):  # both -inf is right
        off = np.where(value == truth, 0, np.abs(value - truth))
    return (off <= error) | np.isposinf(error)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_no_value_is_off_by_more_than_its_error(reverse, dtype):
    for network in SAMPLE:
        chain = np.asarray(network.jacobians, dtype)
        chain[np.abs(chain) < np.finfo(chain.dtype).tiny] = 0
        is_held = held(chain, network.T // 4, reverse=reverse)
        case = f"{network.family}, gain {network.gain}, {network.driver}"
        assert is_held.all(), f"{case}: {is_held}"


@pytest.mark.float64
@pytest.mark.parametrize("name", ONCE_TOO_SMALL)
def test_errors_that_were_too_small_hold(name):
    *wanted, reverse, t = ONCE_TOO_SMALL[name]
    (recipe,) = (
        r for r in networks.recipes() if [r.family, r.gain, r.N, r.driver] == wanted
    )
    chain = networks.network(recipe).jacobians
    chain = balls.reverse(chain)[:t] if reverse else chain[:t]
    assert held(chain, t).all()


def test_errors_count_the_condition_of_the_right_factor(dtype):
    # Until it is balanced after 8 pushes, its condition grows to 1e7.
    jordan = 0.57 * np.eye(6) + 3.0 * np.eye(6, k=1)
    assert held(np.array([jordan] * 25, dtype), 1).all()


def test_values_that_come_back_together_share_their_errors(dtype):
    # All are zero at the end, from directions that were up to 60 bits apart.
    for seed in (6, 23):
        rng = np.random.default_rng(seed)
        frame = 1e-3 * np.tril(rng.standard_normal((4, 4)), -1) + np.eye(4)
        scales, inverse = 2.0 ** rng.integers(0, 3, 4), np.linalg.inv(frame)
        away, back = frame * scales @ inverse, frame / scales @ inverse
        assert held(np.array([away] * 30 + [back] * 30, dtype), 20).all()


def test_what_a_mask_annihilates_is_certain(dtype):
    rng = np.random.default_rng(0)
    masks = rng.random((20, 6, 1)) < 0.8
    chain = np.where(masks, rng.standard_normal((20, 6, 6)), 0).astype(dtype)
    for reverse in (False, True):
        found = products.product_spectrum(jnp.asarray(chain), every=20, reverse=reverse)
        is_lost = np.isneginf(found.log_singular_values)
        assert is_lost.any()
        np.testing.assert_array_equal(found.error[is_lost], 0)
