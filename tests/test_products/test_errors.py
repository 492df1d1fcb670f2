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
