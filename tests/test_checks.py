"""The one error sentence: the argument, what it must be, what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgjax import _checks


def test_sizes_are_read_off_the_shape():
    assert _checks.shape(np.ones((5, 3, 3)), "a", "T N N") == {"T": 5, "N": 3}
    assert _checks.shape(np.ones((3, 2)), "a", "N k", N=3) == {"N": 3, "k": 2}
    assert _checks.shape(jnp.ones(2), "a", "N") == {"N": 2}


@pytest.mark.parametrize(
    ("found", "spec", "sizes", "sentence"),
    [
        ((2, 3), "T N N", {}, r"`a` must have shape \(T, N, N\).*has shape \(2, 3\)"),
        ((2, 3, 4), "T N N", {}, r"\(T, N, N\) with no size zero.*\(2, 3, 4\)"),
        ((0, 3, 3), "T N N", {}, r"no size zero, but has shape \(0, 3, 3\)"),
        ((4, 4), "N N", {"N": 3}, r"\(N=3, N=3\).*\(4, 4\)"),
        ((), "N", {}, r"shape \(N,\) with no size zero, but has shape \(\)"),
        ((2, 2), "N", {}, r"shape \(N,\) with no size zero, but has shape \(2, 2\)"),
    ],
)
def test_shape_is_refused_with_what_it_must_be_and_what_it_is(
    found, spec, sizes, sentence
):
    with pytest.raises(ValueError, match=sentence):
        _checks.shape(np.ones(found), "a", spec, **sizes)


def test_shape_does_not_remember_the_sizes_it_was_given():
    sizes = {"N": 3}
    _checks.shape(np.ones((5, 3)), "a", "T N", **sizes)
    assert sizes == {"N": 3}


def test_real_floating_arrays_pass_and_give_their_dtype(dtype):
    assert _checks.real_floating(jnp.ones(2, dtype), "a") == dtype
    assert _checks.real_floating(jnp.ones(2, jnp.float32), "a") == jnp.float32


@pytest.mark.parametrize("name", ["int32", "bool", "complex64", "float16", "bfloat16"])
def test_other_dtypes_are_refused_by_name(name):
    sentence = rf"`a` must be real with dtype float32 or float64, but has dtype {name}"
    with pytest.raises(TypeError, match=sentence):
        _checks.real_floating(jnp.ones(2, name), "a")


def test_a_random_key_is_refused_as_no_number():
    with pytest.raises(TypeError, match="`a` must be real"):
        _checks.real_floating(jax.random.key(0), "a")


def test_dtype_arguments_are_taken_in_every_spelling():
    for spelling in ("float32", np.float32, jnp.float32, np.dtype("float32")):
        assert _checks.floating_dtype(spelling, "dtype") == np.float32


@pytest.mark.parametrize("dtype", ["int32", "complex128", "float16"])
def test_dtype_arguments_other_than_float32_and_float64_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"`dtype` must be .*float64, but is {dtype}"):
        _checks.floating_dtype(dtype, "dtype")


def test_float64_without_x64_is_refused_with_the_two_remedies():
    with jax.enable_x64(True):
        assert _checks.floating_dtype("float64", "dtype") == np.float64
    with jax.enable_x64(False):
        for remedy in (r"jax\.config\.update\('jax_enable_x64'", r"jax\.enable_x64"):
            with pytest.raises(ValueError, match=rf"`dtype` .*is float64.*{remedy}"):
                _checks.floating_dtype("float64", "dtype")
        assert _checks.floating_dtype("float32", "dtype") == np.float32


def test_another_dtype_than_the_wanted_one_is_refused():
    _checks.same_dtype(np.ones(2, np.float32), "a", np.dtype("float32"))
    with pytest.raises(TypeError, match="`a` must have dtype float32, but has .* int"):
        _checks.same_dtype(np.ones(2, int), "a", np.dtype("float32"))


def test_whole_numbers_pass_up_to_their_bounds():
    assert _checks.integer(1, "n", 1, 3) == 1
    assert _checks.integer(np.int64(3), "n", 1, 3) == 3
    assert _checks.integer(10**9, "n", 1) == 10**9


@pytest.mark.parametrize(
    ("n", "bounds", "error", "sentence"),
    [
        (0, (1,), ValueError, "`n` must be at least 1, but is 0"),
        (4, (1, 3), ValueError, "`n` must be at least 1 and at most 3, but is 4"),
        (-1, (0, 3), ValueError, "`n` must be at least 0 and at most 3, but is -1"),
        (1.0, (0,), TypeError, r"`n` must be a whole number, but is 1\.0"),
        ("2", (0,), TypeError, "`n` must be a whole number, but is '2'"),
        (None, (0,), TypeError, "`n` must be a whole number, but is None"),
    ],
)
def test_other_numbers_are_refused_with_their_bounds(n, bounds, error, sentence):
    with pytest.raises(error, match=sentence):
        _checks.integer(n, "n", *bounds)
