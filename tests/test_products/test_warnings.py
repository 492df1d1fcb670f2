"""What is said, once, of values that rounding has decided."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vgjax
from vgjax import products

pytestmark = pytest.mark.once

# One direction fades by 2^-100, then the other by 2^-300: where they cross rounding has
# taken over, for they are not aligned with the axes.
ANGLE = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
OVERTAKEN = np.stack(
    [ANGLE @ np.diag(d) @ ANGLE.T for d in [(1, 0.5)] * 100 + [(0.5, 1)] * 300]
)
SINGULAR = np.full((3, 2, 2), 0.1)
SURE = np.stack([np.array([[0.0, 1.0], [0.0, 0.0]])] * 3)


def linear(h, x):
    return x @ h, None


CALLS = {
    "matrices": products.product_spectrum,
    "a step": lambda A, **how: vgjax.jacobian_spectrum(
        linear, jnp.ones(2, A.dtype), A, **how
    ),
}


def caught(call, *given, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call(*given, **options)
    return found


@pytest.mark.parametrize("call", CALLS)
def test_undecided_values_are_warned_of_once_with_what_to_do(call, dtype):
    spectra = []
    A = jnp.asarray(OVERTAKEN, dtype)
    found = caught(lambda: spectra.append(CALLS[call](A, every=50)))
    assert len(found) == 1
    assert found[0].category is RuntimeWarning
    said = str(found[0].message)
    first = 50 * (1 + int(np.argmax(np.isinf(spectra[0].error).any(axis=1))))
    assert 50 < first < 400
    assert said.startswith(
        f"2 of 2 log singular values are undecided from step {first} on"
    )
    assert "certified_spectrum(state_jacobians(...))" in said
    assert "vgjax.products.sensitivity" in said
    assert "-inf" not in said


def test_a_rank_that_rounding_decides_is_said_to_be_that(dtype):
    (found,) = caught(products.product_spectrum, jnp.asarray(SINGULAR, dtype))
    said = str(found.message)
    assert said.startswith("1 of 2 log singular values is undecided from step 1 on")
    assert "whether they are annihilated, which they read (-inf)" in said


def test_the_warning_names_the_line_of_the_caller(dtype):
    A = jnp.asarray(SINGULAR, dtype)
    (found,) = caught(lambda: products.product_spectrum(A))
    assert found.filename == __file__
    (found,) = caught(lambda: vgjax.jacobian_spectrum(linear, jnp.ones(2, dtype), A))
    assert found.filename == __file__


def test_what_is_decided_or_not_asked_for_is_not_warned_of(dtype):
    regular = np.stack([np.diag([1.0, 0.5])] * 5)
    lost = np.where(np.arange(3)[:, None, None] == 1, np.nan, np.eye(2))
    for chain in (regular, SURE, lost):
        assert not caught(products.product_spectrum, jnp.asarray(chain, dtype))
    A = jnp.asarray(SINGULAR, dtype)
    assert not caught(products.product_spectrum, A, errors=False)


def test_no_trace_is_warned_of(dtype):
    A = jnp.asarray(SINGULAR, dtype)
    assert not caught(jax.jit(products.product_spectrum), A)
    assert not caught(jax.vmap(products.product_spectrum), A[None])
    assert not caught(lambda: jax.jit(lambda: products.product_spectrum(A))())


def test_filters_of_warnings_apply(dtype):
    A = jnp.asarray(SINGULAR, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        products.product_spectrum(A)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="undecided from step 1 on"):
            products.product_spectrum(A)
