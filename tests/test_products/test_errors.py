"""Errors that come with the values, on real networks; `scripts/bench --errors` for all.

A sample of them: small, of few steps, forward and in reverse.
"""

from functools import partial

import balls
import jax
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
    return within(value, truth, np.asarray(found.error, float))


def within(value, truth, error):
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


# Once too small in float32, where entries underflow or are cut off.
IN_FLOAT32 = {
    "an underflow that comes back": ("clockwork", 5, 4, "strong, quiet", True, 403),
    "noise far above its row": ("lstm", 3, 6, "strong, quiet", False, 31),
}


def named(family, gain, N, driver, reverse, t):
    """The first t factors of a network."""
    wanted = family, gain, N, driver
    (recipe,) = (
        r for r in networks.recipes() if (r.family, r.gain, r.N, r.driver) == wanted
    )
    chain = networks.network(recipe).jacobians
    return balls.reverse(chain)[:t] if reverse else chain[:t]


@pytest.mark.float64
@pytest.mark.parametrize("name", ONCE_TOO_SMALL)
def test_errors_that_were_too_small_hold(name):
    chain = named(*ONCE_TOO_SMALL[name])
    assert held(chain, len(chain)).all()


@pytest.mark.float64
@pytest.mark.slow
def test_stored_products_that_qr_had_wrong_are_within_their_errors():
    paths = sorted(networks.DATA.glob("*.npz"))
    assert len(paths) == 37
    finite = []
    for path in paths:
        with np.load(path) as case:
            steps, truth, chain = (
                case[name] for name in ("steps", "log_singular_values", "jacobians")
            )
        every = len(chain) // 4  # two programs for all
        found = products.product_spectrum(jnp.asarray(chain), every=every)
        rows = steps // every - 1
        np.testing.assert_array_equal(found.steps[rows], steps)
        value, error = (
            np.asarray(found.log_singular_values)[rows],
            np.asarray(found.error)[rows],
        )
        assert within(value, truth, error).all(), path.stem
        finite.append(np.isfinite(error).mean())
    assert np.mean(finite) > 0.85  # of errors that say nothing all would hold


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_errors_that_were_too_small_in_float32_hold(name):
    chain = named(*IN_FLOAT32[name]).astype(np.float32)
    chain[np.abs(chain) < np.finfo(chain.dtype).tiny] = 0
    assert held(chain, len(chain)).all()


def test_errors_are_the_same_under_jit_and_vmap(dtype, tolerance):
    network = SAMPLE[0]
    chain = jnp.asarray(network.jacobians[:40], dtype)
    ask = partial(products.product_spectrum, every=10)
    once = ask(chain).error
    assert np.isfinite(once).any()
    batch = jax.vmap(ask)(jnp.stack([chain, 2 * chain, chain]))
    np.testing.assert_array_equal(ask(chain).error, once)
    # XLA rounds another program otherwise.
    for again in (jax.jit(ask)(chain).error, *batch.error[::2]):
        np.testing.assert_allclose(again, once, rtol=tolerance(1e-12, 1e-4))


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


@pytest.mark.parametrize("last", [[[0, 1], [0, 1]], [[0, 1], [0, 0]]])
def test_what_faded_below_the_range_of_floats_may_outlive_the_rest(last, dtype):
    # In float64 as well: what couples the unit to the first is zero there, too.
    far = 2.0 ** (-30 if dtype == jnp.float32 else -200)
    away, back = np.diag([1, far]), np.diag([1, 1 / far])
    chain = [[[1, 0], [1, 2.0**-20]], *[away] * 6, *[back] * 6, last]
    assert held(np.array(chain, dtype), 14).all()


def test_what_leaked_into_annihilated_directions_may_come_back(dtype):
    # 1 + x rounds to 1, and all that the last factor keeps is x.
    x = 2.0 ** (-25 if dtype == jnp.float32 else -54)
    first = [[1, 0, 0], [x, 0, 0], [0, 0, 0]]
    second = [[2.0**-22, 2.0**-22, 0], [0, 0, 1], [0, 2.0**-23, 0]]
    chain = np.array([first, second, np.diag([0, 0, 1])], dtype)
    found = products.product_spectrum(jnp.asarray(chain), every=3)
    assert found.log_singular_values[0, 0] == -np.inf
    np.testing.assert_array_equal(found.error[0], [np.inf, 0, 0])


@pytest.mark.once
def test_rounding_of_a_left_factor_made_of_two_is_counted():
    # 2.4e-7 is left of two ones, rounded, in the left factor after the second push.
    a, b, c = 8.926674865961104e-8, 1.6857932827463173e-9, -1.4603652731537409e-9
    d, e, f = 5.348944614524953e-5, 6.797038076911122e-5, 1.1575300595723093e-4
    first, second = [[1, 0, 0], [a, b, 0], [0, 0, c]], [[d, e, 0], [0, 0, 1], [0, f, 0]]
    last = np.diag([1.7481885938863684e-9, 1.7481885938863684e-9, 1])
    chain = np.array([first, second, last])
    assert held(chain.astype(np.float32), 3).all()


def test_what_a_mask_annihilates_is_certain(dtype):
    rng = np.random.default_rng(0)
    masks = rng.random((20, 6, 1)) < 0.8
    chain = np.where(masks, rng.standard_normal((20, 6, 6)), 0).astype(dtype)
    for reverse in (False, True):
        found = products.product_spectrum(jnp.asarray(chain), every=20, reverse=reverse)
        is_lost = np.isneginf(found.log_singular_values)
        assert is_lost.any()
        np.testing.assert_array_equal(found.error[is_lost], 0)
