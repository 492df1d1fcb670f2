"""Programs: equal where they compute the same, different where they do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.sparse.linalg import gmres

from vgjax._programs import traced
from vgjax.activations import gelu, tanh

pytestmark = pytest.mark.once

ONES = np.ones(3, np.float32)


def surrogate(slope):
    @jax.custom_vjp
    def spike(x):
        return (x > 0).astype(x.dtype)

    def back(x, ct):
        return (ct / (1 + slope * jnp.abs(x)) ** 2,)

    spike.defvjp(lambda x: (spike(x), x), back)
    return spike


def with_rule(slope):
    @jax.custom_jvp
    def same(x):
        return x

    same.defjvp(lambda x, t: (same(*x), slope * t[0]))
    return same


class Holder:
    def __init__(self, slope):
        self.slope = slope
        self.spike = jax.custom_vjp(lambda x: x)
        self.spike.defvjp(lambda x: (x, x), self.back)

    def back(self, x, ct):
        del x
        return (self.slope * ct,)


def over_weights(w):
    W = jnp.full((3, 3), w, jnp.float32)
    return lambda h: jnp.tanh(W @ h)


def over_a_scalar_array(w):
    w = jnp.float32(w)
    return lambda h: w * h


def newton(w):
    w = jnp.float32(1.2 * w)
    return lambda h: jax.lax.while_loop(lambda z: z[0] > 0.1, lambda z: w * z, h)


def root(w):
    w = jnp.float32(w)

    def step(h):
        return jax.lax.custom_root(
            lambda z: z - w * jnp.tanh(z) - h,
            h,
            lambda f, z: jax.lax.fori_loop(0, 3, lambda _, z: z - f(z), z),
            lambda g, y: gmres(g, y)[0],
        )

    return step


@pytest.mark.parametrize(
    "make", [over_weights, over_a_scalar_array, newton, root], ids=lambda f: f.__name__
)
def test_closures_over_other_arrays_are_one_program(make):
    (one, with_one), (two, with_two) = (traced(make(w), ONES) for w in (0.5, 0.25))
    assert one is two
    np.testing.assert_array_equal(one(with_one, ONES)[0], make(0.5)(ONES))
    np.testing.assert_array_equal(two(with_two, ONES)[0], make(0.25)(ONES))
    assert not np.array_equal(make(0.5)(ONES), make(0.25)(ONES))


@pytest.mark.parametrize(
    "make",
    [
        surrogate,
        with_rule,
        lambda slope: Holder(slope).spike,
        lambda slope: lambda x: slope * x,
        lambda slope: functools.partial(jnp.multiply, slope),
        lambda slope: jax.jit(lambda x: jax.lax.cond(x[0] > slope, tanh, gelu, x)),
    ],
)
def test_numbers_and_rules_written_into_a_function_belong_to_it(make):
    assert traced(make(2.0), ONES)[0] is traced(make(2.0), ONES)[0]
    assert traced(make(2.0), ONES)[0] != traced(make(3.0), ONES)[0]


def test_rules_that_see_other_arrays_are_not_taken_for_one_another():
    one, two = (traced(with_rule(jnp.float32(w)), ONES)[0] for w in (2, 3))
    assert one != two


def test_zeros_of_two_signs_are_two_numbers():
    assert traced(lambda x: x * 0.0, ONES)[0] != traced(lambda x: x * -0.0, ONES)[0]


@pytest.mark.parametrize(
    "other",
    [
        lambda x, y: x + y,
        lambda x, y: y - x,
        lambda x, y: (x - y).reshape(1, 3),
        lambda x, y: ({"a": x - y},),
    ],
)
def test_other_functions_are_other_programs(other):
    program, _ = traced(lambda x, y: x - y, ONES, 2 * ONES)
    assert program == traced(lambda a, b: a - b, ONES, 2 * ONES)[0]
    assert program != traced(other, ONES, 2 * ONES)[0]
    assert program != traced(lambda x, y: x - y, ONES[:2], ONES[:2])[0]


def test_what_changed_since_the_last_trace_is_seen():
    params = {"w": jnp.ones(3, jnp.float32)}

    def scale(x):
        return params["w"] * x

    program, before = traced(scale, ONES)
    params["w"] = 2 * params["w"]
    again, after = traced(scale, ONES)
    assert program is again
    assert (before[0][0], after[0][0]) == (1, 2)
    params["w"] = jnp.ones((), jnp.float32)
    assert traced(scale, ONES)[0] != program


def test_derivatives_run_the_rules():
    program, constants = traced(surrogate(2.0), ONES)
    slope = jax.grad(lambda x: program(constants, x)[0].sum())(ONES)
    np.testing.assert_allclose(slope, 1 / 9, rtol=1e-6)


def test_which_results_depend_on_an_argument():
    program, _ = traced(lambda x, y: (2 * x, x + y, jnp.tanh(y)), ONES, ONES)
    found = [[program.depends([out], place) for out in range(3)] for place in range(2)]
    assert found == [[True, True, False], [False, True, True]]


def test_primitives_are_named_at_any_depth():
    def deep(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=2)[0]

    assert {"scan", "sin"} <= traced(jax.jit(deep), ONES)[0].primitives
