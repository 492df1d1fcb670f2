"""What the data do not determine, told apart from what an algorithm loses."""

import json

import numpy as np
import oracles
import pytest
import systems
from test_certified import DATA, decoupled

from vgjax import products

pytest.importorskip("flint")


def test_well_posed_parts_hardly_move():
    moved = products.sensitivity(decoupled(), every=200)
    assert moved.shape == (1, 3)
    assert 1e-17 < moved.max() < 1e-13


def test_what_is_determined_and_off_was_lost_by_the_algorithm():
    chain, _ = systems.telescoping(1, systems.cosines(60))
    moved = products.sensitivity(chain, every=60)
    truth = products.certified_spectrum(chain, every=60).log_singular_values
    naive = oracles.multiply_then_svd(chain)[-1]
    assert moved.max() < 1e-12
    assert np.abs(naive - truth).max() > 1


def test_a_nearly_singular_matrix_does_not_determine_its_small_value():
    moved = products.sensitivity(np.array([[[1.0, 1.0], [1.0, 1.0 + 2**-50]]]))
    assert moved[0, 0] < 1e-15
    assert 0.05 < moved[0, 1] < 1


def test_rows_of_small_numbers_are_determined_all_the_same():
    A = np.array([[[1.0, 2.0], [3e-200, -1e-200]]])
    assert products.sensitivity(A).max() < 1e-15


def test_a_rank_that_rounding_decides_reads_inf_and_an_exact_zero_does_not_move():
    decided = products.sensitivity(np.ones((3, 2, 2)))
    assert np.isinf(decided[:, 1]).all()
    assert (decided[:, 0] < 1e-14).all()
    dead = products.sensitivity(np.array([[[1.0, 2.0], [0.0, 0.0]]]))
    assert dead[0, 1] == 0
    assert 0 < dead[0, 0] < 1e-15


def test_one_number_moves_by_half_an_ulp_of_its_dtype_a_factor():
    chain = np.full((4, 1, 1), 1.5)
    for dtype, ulp in ((np.float64, 2.0**-53), (np.float32, 2.0**-24)):
        moved = products.sensitivity(chain.astype(dtype), copies=1)
        # Signs add up: 1, 0 or 2, ... of them.
        counts = moved[:, 0] / ulp
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
        assert counts[0] == pytest.approx(1, abs=1e-6)


def test_suffixes_move_as_prefixes_of_the_transposed_chain():
    chain = np.random.default_rng(1).standard_normal((6, 3, 3))
    backwards = np.swapaxes(chain[::-1], 1, 2)
    np.testing.assert_array_equal(
        products.sensitivity(chain, every=2, reverse=True, copies=2),
        products.sensitivity(backwards, every=2, copies=2),
    )


def test_more_copies_find_no_less():
    chain = np.random.default_rng(1).standard_normal((6, 3, 3))
    few, many = (products.sensitivity(chain, copies=n) for n in (1, 5))
    assert (many >= few).all()
    assert (many > few).any()
    with pytest.raises(ValueError, match="Argument `copies` must be at least 1"):
        products.sensitivity(chain, copies=0)


def measured_of(path):
    """Nats, or None where nobody has measured it."""
    return json.loads(str(np.load(path)["info"]))["moves_by_half_ulp"]


@pytest.mark.parametrize(
    "path",
    [path for path in DATA if measured_of(path) is not None],
    ids=lambda path: path.stem,
)
def test_kept_products_move_as_much_as_was_measured(path):
    case, measured = np.load(path), measured_of(path)
    every = int(np.gcd.reduce(case["steps"]))
    moved = products.sensitivity(case["jacobians"], every=every, copies=3).max()
    # Measured with other signs, and in float64, of values of a thousand nats.
    assert moved < 100 * measured
    assert moved > measured / 100 or measured < 1e-12
