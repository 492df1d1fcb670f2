"""The oracle of the hard cases beside the slow one, and beside answers on paper."""

import balls
import numpy as np
import oracles
import pytest
import systems


@pytest.mark.parametrize(
    ("chain", "digits"),
    [
        (systems.gaussian_chain(1, 4, 40), 300),
        (systems.tanh_chain(2, 4, 3.0, 30), 500),
        (systems.telescoping(3, systems.cosines(60, 4))[0], 400),
    ],
    ids=["gaussian", "tanh", "telescoping"],
)
def test_agrees_with_a_dense_svd_of_many_digits(chain, digits):
    times = [1, 7, len(chain)]
    answer = oracles.log_singular_values(chain, times, digits)
    for t, row in balls.log_singular_values(chain, times).items():
        np.testing.assert_allclose(row, answer[t], rtol=1e-15)


def test_what_overtakes_is_known_whatever_it_fell_by():
    fall = np.repeat([np.diag([2.0**-60, 1])], 300, axis=0)
    rise = np.repeat([np.diag([2.0**60, 1])], 301, axis=0)
    found = balls.log_singular_values(np.concatenate([fall, rise]), [300, 601])
    np.testing.assert_array_equal(found[300], [0, -300 * 60 * np.log(2)])
    np.testing.assert_array_equal(found[601], [60 * np.log(2), 0])


def test_rank_is_that_of_the_floats_themselves():
    nilpotent = np.repeat([np.eye(3, k=1)], 3, axis=0)
    found = balls.log_singular_values(nilpotent, [1, 2, 3])
    np.testing.assert_array_equal(np.isneginf(found[1]), [False, False, True])
    np.testing.assert_array_equal(np.isneginf(found[2]), [False, True, True])
    np.testing.assert_array_equal(np.isneginf(found[3]), [True, True, True])
    # 1/10 is no tenth: the product of the floats is regular, their reals' is not.
    almost = np.array([[[0.1, 0.3], [0.1, np.nextafter(0.3, 1)]]])
    assert np.isfinite(balls.log_singular_values(almost, [1])[1]).all()


def test_reversed_factors_have_the_values_of_suffixes():
    chain = systems.gaussian_chain(1, 3, 6)
    found = balls.log_singular_values(balls.reverse(chain), [2])[2]
    answer = np.log(np.linalg.svd(chain[5] @ chain[4], compute_uv=False))
    np.testing.assert_allclose(found, answer, atol=1e-13)
