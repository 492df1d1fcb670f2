"""The plain program first, and the careful one where that asks for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import systems

from vgjax import products
from vgjax.products import spectrum as tracked


def with_uneven_rows(most):
    orders = np.random.default_rng(4).uniform(most, 0, (60, 8, 1))
    return systems.gaussian_chain(3, 8, 60) * 10.0**orders


CHAINS = {
    "gaussian": lambda: systems.gaussian_chain(1, 24, 60) / 5,
    "tanh": lambda: systems.tanh_chain(1, 16, 1.2, 60),
    "forgetting": lambda: (
        np.eye(16) * 0.5
        + 0.05 * systems.gaussian_chain(2, 16, 60) * np.linspace(0.2, 1, 16)[:, None]
    ),
    "rows uneven in float32": lambda: with_uneven_rows(-1.7),
    "rows uneven in float64": lambda: with_uneven_rows(-4),
    "several windows": lambda: systems.telescoping(
        5,
        -0.05 * np.arange(40)[None] + np.zeros((60, 1)),
    )[0],
}


# Without a product kept between records; with one, and balanced on the way.
@pytest.mark.optimised
@pytest.mark.parametrize("every", [1, 20])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.float64] * name.endswith("float64"))
        for name in CHAINS
    ],
)
def test_what_needs_no_care_reads_the_same_to_the_last_bit(
    name, every, dtype, tolerance
):
    chain = jnp.asarray(CHAINS[name](), dtype)
    options = {"every": every, "dtype": chain.dtype, "errors": True}
    whole, _ = tracked._spectrum_of_stack(chain, careful=True, **options)
    plain, needs_care = tracked._spectrum_of_stack(chain, careful=False, **options)
    assert not needs_care
    for field in ("steps", "log_singular_values", "log_abs_det"):
        found, expected = getattr(plain, field), getattr(whole, field)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(plain.error, whole.error, rtol=tolerance(1e-12, 1e-4))


@pytest.mark.parametrize("most", [-1.7, -4, -11])
def test_uneven_rows_agree_with_high_precision(most, dtype, tolerance):
    chain = with_uneven_rows(most).astype(dtype)
    answer = oracles.log_singular_values(chain.astype(np.float64), (1, 7, 30, 60), 1500)
    found = products.product_spectrum(jnp.asarray(chain)).log_singular_values
    for t, values in answer.items():
        atol = tolerance(1e-10, 1e-2)
        np.testing.assert_allclose(found[t - 1], values, atol=atol, rtol=0)


def needy(kind):
    chain = systems.gaussian_chain(1, 4, 8)
    chain[3] = {
        "zero": 0,
        "row": chain[3] * np.array([1, 0, 1, 1])[:, None],
        "column": chain[3] * np.array([1, 0, 1, 1]),
        "columns": chain[3] * 1e-4 ** np.arange(4),
        "rank": np.outer(chain[3, 0], chain[3, 1]),
        "nan": chain[3] * np.nan,
        "one nan": chain[3] * np.where(np.arange(4) == 2, np.nan, 1),
        "inf": chain[3] * np.inf,
        "last nan": np.where(np.arange(16).reshape(4, 4) == 15, np.nan, chain[3]),
        "first inf": np.where(np.arange(16).reshape(4, 4) == 0, np.inf, chain[3]),
    }[kind]
    return chain


@pytest.mark.parametrize(
    "kind",
    [
        *("zero", "row", "column", "columns", "rank"),
        *("nan", "one nan", "inf", "last nan", "first inf"),
    ],
)
def test_what_needs_care_is_told_and_gets_it(kind, dtype):
    chain = jnp.asarray(needy(kind), dtype)
    _, needs_care = tracked._spectrum_of_stack(
        chain, every=1, dtype=chain.dtype, errors=True, careful=False
    )
    assert needs_care
    whole, _ = tracked._spectrum_of_stack(
        chain, every=1, dtype=chain.dtype, errors=True, careful=True
    )
    found = products.product_spectrum(chain)
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_care_is_tried_for_once_and_then_remembered_for_these_sizes():
    calls = []

    def program(*, careful, needs_care=True):
        calls.append(careful)
        return ("answer", careful), needs_care

    for _ in range(3):
        answer = tracked._in_two_stages(program, jnp.ones(3), "needy")
        assert answer == ("answer", True)
    assert calls == [False, True, True, True]
    calls.clear()
    tracked._in_two_stages(program, jnp.ones(4), "needy")
    assert calls == [False, True]
    calls.clear()
    easy = functools.partial(program, needs_care=False)
    for _ in range(2):
        answer = tracked._in_two_stages(easy, jnp.ones(3), "easy")
        assert answer == ("answer", False)
    assert calls == [False, False]
    calls.clear()
    jax.eval_shape(
        lambda x: tracked._in_two_stages(easy, x, "traced") and x, jnp.ones(3)
    )
    assert calls == [True]
