"""A step under scan: states, outputs, carries of any structure, and bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vgjax
from vgjax import steps


def halve(h, x):
    return 0.5 * h + x, 3 * h


def grow(h, x):
    assert x is None
    return 2 * h, None


def tanh_cell(W, h, x):
    h = jnp.tanh(W @ h + x)
    return h, h


def test_first_state_is_the_initial_one_and_the_last_the_carry(dtype):
    found = vgjax.rollout(halve, jnp.asarray([8.0], dtype), jnp.ones((3, 1), dtype))
    np.testing.assert_array_equal(found.states, [[8], [5], [3.5], [2.75]])
    np.testing.assert_array_equal(found.outputs, [[24], [15], [10.5]])
    np.testing.assert_array_equal(found.carry, [2.75])
    assert found.states.dtype == dtype


def test_state_of_an_lstm_is_c_above_h(dtype, tolerance):
    cell = nnx.LSTMCell(2, 3, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(1))
    rng = np.random.default_rng(1)
    c, h = (jnp.asarray(rng.standard_normal(3), dtype) for _ in range(2))
    inputs = jnp.asarray(rng.standard_normal((4, 2)), dtype)
    found = vgjax.rollout(cell, (c, h), inputs)
    for t, x in enumerate(inputs):
        np.testing.assert_allclose(
            found.states[t], np.concatenate([c, h]), rtol=tolerance(1e-13, 1e-5)
        )
        (c, h), y = cell((c, h), x)
        np.testing.assert_allclose(found.outputs[t], y, rtol=tolerance(1e-13, 1e-5))
    assert found.states.shape == (5, 6)
    np.testing.assert_array_equal(found.carry[0], found.states[-1, :3])
    np.testing.assert_array_equal(found.carry[1], found.states[-1, 3:])


def test_a_step_without_inputs_runs_for_a_given_length(dtype):
    found = vgjax.rollout(grow, jnp.asarray([1.0, -3.0], dtype), length=4)
    powers = 2.0 ** np.arange(5)[:, None]
    np.testing.assert_array_equal(found.states, powers * [1, -3])
    assert found.outputs is None


def test_length_may_be_given_beside_inputs_that_agree(dtype):
    carry, inputs = jnp.ones(1, dtype), jnp.ones((3, 1), dtype)
    found = vgjax.rollout(halve, carry, inputs, length=3)
    np.testing.assert_array_equal(
        found.states, vgjax.rollout(halve, carry, inputs).states
    )


def test_carries_inputs_and_outputs_may_be_trees(dtype):
    def step(carry, x):
        a = carry["a"] + x["drive"][0]
        b = carry["b"] * x["gain"]
        return {"a": a, "b": b}, (a.sum(), {"b": b})

    carry = {"b": jnp.ones((2, 2), dtype), "a": jnp.zeros(1, dtype)}
    inputs = {
        "drive": (jnp.arange(3, dtype=dtype)[:, None],),
        "gain": jnp.asarray([2, 3, 5], dtype),
    }
    found = vgjax.rollout(step, carry, inputs)
    # ravel_pytree takes the keys of a dictionary in order.
    np.testing.assert_array_equal(found.states[:, 0], [0, 0, 1, 3])
    np.testing.assert_array_equal(found.states[-1, 1:], [30] * 4)
    np.testing.assert_array_equal(found.outputs[0], [0, 1, 3])
    assert found.outputs[1]["b"].shape == (3, 2, 2)
    assert found.carry["b"].shape == (2, 2)


def test_numpy_arrays_and_plain_numbers_will_do(dtype):
    found = vgjax.rollout(halve, np.ones(2, dtype), np.zeros((2, 2), dtype))
    np.testing.assert_array_equal(found.states[-1], [0.25, 0.25])
    scalar = vgjax.rollout(lambda h, x: (h * x, None), 2.0, np.full(3, 2.0, dtype))
    np.testing.assert_array_equal(scalar.states, [[2], [4], [8], [16]])


def test_batches_are_the_callers_vmap(dtype, tolerance):
    rng = np.random.default_rng(2)
    W = jnp.asarray(rng.standard_normal((3, 2, 2)), dtype)
    inputs = jnp.asarray(rng.standard_normal((3, 5, 2)), dtype)
    carry = jnp.zeros(2, dtype)

    def run(W, inputs):
        return vgjax.rollout(steps.from_function(tanh_cell, W), carry, inputs).states

    together = jax.jit(jax.vmap(run))(W, inputs)
    for b in range(3):
        h = np.zeros(2)
        for t in range(5):
            h = np.tanh(np.asarray(W[b]) @ h + np.asarray(inputs[b, t]))
            np.testing.assert_allclose(
                together[b, t + 1], h, rtol=tolerance(1e-12, 1e-5)
            )


def scaled(w, h, x):
    assert x is None
    return w * h, None


def test_gradients_reach_the_weights(dtype, tolerance):
    def last(w):
        step = steps.from_function(scaled, w)
        return vgjax.rollout(step, jnp.ones((), dtype), length=5).carry

    found = jax.grad(last)(jnp.asarray(1.5, dtype))
    np.testing.assert_allclose(found, 5 * 1.5**4, rtol=tolerance(1e-14, 1e-6))


ONES = np.ones(2, np.float32)
STEPS = np.ones((3, 2), np.float32)


def loses_one(carry, x):
    del x
    return carry[:1], None


def halves_precision(carry, x):
    del x
    return jax.tree.map(lambda a: a.astype(jnp.float16), carry), None


def wraps(carry, x):
    del x
    return (carry, carry), None


def forgets_the_output(carry, x):
    del x
    return carry


@pytest.mark.parametrize(
    ("arguments", "length", "error", "sentence"),
    [
        ((grow, ONES), None, ValueError, "`length` must be given .*both are None"),
        (
            (halve, ONES, STEPS),
            4,
            ValueError,
            r"`inputs` must have 4 steps .*`length` .*shape \(3, 2\)",
        ),
        ((grow, ONES), 0, ValueError, "`length` must be at least 1, but is 0"),
        ((grow, ONES), 2.5, TypeError, r"`length` must be a whole number, but is 2\.5"),
        ((halve, ONES, STEPS[:0]), None, ValueError, r"`inputs` must .*\(0, 2\)"),
        ((halve, ONES, np.float32(1)), None, ValueError, r"`inputs` must .*\(\)"),
        (
            (halve, ONES, {"a": STEPS, "b": STEPS[:2]}),
            None,
            ValueError,
            r"`inputs\['b'\]` must have 3 steps .*shape \(2, 2\)",
        ),
        ((halve, ONES, "text"), None, TypeError, "`inputs` must be an array.* str"),
        ((grow, ONES.astype(int)), 3, TypeError, "`carry` must hold floating .* int"),
        (
            (grow, {"c": ONES, "h": ONES.astype(jnp.float8_e4m3fn)}),
            3,
            TypeError,
            r"`carry\['h'\]` must be bfloat16, .* float8_e4m3fn",
        ),
        ((grow, ()), 3, ValueError, "`carry` must hold at least one number"),
        ((grow, ONES[:0]), 3, ValueError, "`carry` must hold at least one number"),
        (
            (loses_one, ONES),
            3,
            ValueError,
            r"`step` must return .*float32\[2\] and comes out as float32\[1\]\.(\n|$)",
        ),
        (
            (halves_precision, {"h": ONES}),
            3,
            ValueError,
            r"carry\['h'\] goes in as float32.* out as float16.*SimpleCell.*dtype=",
        ),
        (
            (wraps, ONES),
            3,
            ValueError,
            r"`step` must return a carry of the structure .*but returns PyTreeDef",
        ),
        (
            (forgets_the_output, ONES),
            3,
            TypeError,
            r"`step` must return the pair \(carry, y\), but returns",
        ),
        ((ONES, ONES), 3, TypeError, "`step` must be callable .*but is ndarray"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, length, error, sentence):
    with pytest.raises(error, match=sentence):
        vgjax.rollout(*arguments, length=length)


@pytest.mark.float64
def test_leaves_of_two_dtypes_are_refused():
    carry = (jnp.ones(1, jnp.float32), jnp.ones(1, jnp.float64))
    with pytest.raises(TypeError, match="`carry` .*one dtype.* float32 and float64"):
        vgjax.rollout(grow, carry, length=3)


@pytest.mark.float64
@pytest.mark.parametrize("Cell", [nnx.SimpleCell, nnx.GRUCell])
def test_cells_that_compute_in_another_dtype_are_refused_with_what_to_change(Cell):
    cell = Cell(2, 3, rngs=nnx.Rngs(1))
    one = jnp.float64 if Cell is nnx.SimpleCell else jnp.float32
    other = jnp.float32 if Cell is nnx.SimpleCell else jnp.float64
    sentence = (
        rf"`step` must return .*{np.dtype(one)}\[3\] and comes out as "
        rf"{np.dtype(other)}\[3\].* nnx\.SimpleCell computes in float32 unless"
    )
    with (
        jax.numpy_dtype_promotion("standard"),  # what users have
        pytest.raises(ValueError, match=sentence),
    ):
        vgjax.rollout(cell, jnp.zeros(3, one), jnp.ones((4, 2), jnp.float64))


# Whole numbers in the carry


def ticking(carry, x):
    """Halve the state at every other tick; (clock, state), the clock first."""
    t, s = carry
    factor = jnp.where(t % 2 == 0, 0.5, 1.0).astype(s.dtype)
    return (t + 1, factor * s + x), t


def still(carry, _):
    return carry, None


@pytest.fixture
def clock_and_state(dtype):
    return jnp.array([3, 3], jnp.int32), jnp.array([8.0, 4.0], dtype)


def test_whole_numbers_are_carried_along_and_are_no_part_of_the_state(
    clock_and_state, dtype
):
    found = vgjax.rollout(ticking, clock_and_state, jnp.zeros((3, 2), dtype))
    np.testing.assert_array_equal(found.states, [[8, 4], [8, 4], [4, 2], [4, 2]])
    np.testing.assert_array_equal(found.carry[0], [6, 6])
    np.testing.assert_array_equal(found.carry[1], [4, 2])
    assert found.carry[0].dtype == jnp.int32
    np.testing.assert_array_equal(found.outputs, [[3, 3], [4, 4], [5, 5]])


def test_jacobians_follow_a_clock_and_leave_it_out(clock_and_state, dtype):
    inputs = jnp.zeros((3, 2), dtype)
    factors = np.array([1.0, 0.5, 1.0])[:, None, None] * np.eye(2)
    given = (ticking, clock_and_state, inputs)
    np.testing.assert_array_equal(vgjax.state_jacobians(*given), factors)
    np.testing.assert_array_equal(vgjax.propagator(*given), 0.5 * np.eye(2))
    by_input = vgjax.jacobians.input_jacobians(*given)
    np.testing.assert_array_equal(by_input, np.stack([np.eye(2)] * 3))


@pytest.mark.once
def test_spectra_follow_a_clock_both_ways(clock_and_state, dtype):
    given = (ticking, clock_and_state, jnp.zeros((4, 2), dtype))
    forward = vgjax.jacobian_spectrum(*given).log_singular_values[:, 0]
    backward = vgjax.jacobian_spectrum(*given, reverse=True).log_singular_values[:, 0]
    np.testing.assert_allclose(forward / np.log(0.5), [0, 1, 1, 2], atol=1e-6)
    np.testing.assert_allclose(backward / np.log(0.5), [1, 1, 2, 2], atol=1e-6)


def test_a_carry_of_integers_alone_and_a_forgotten_point_are_refused(dtype):
    with pytest.raises(TypeError, match="`carry` must hold floating .* int32"):
        vgjax.rollout(still, (jnp.zeros(2, jnp.int32),), length=2)
    with pytest.raises(
        ValueError, match=r"carry\[0\] goes in as int32\[\] .*\[\]\.(\n|$)"
    ):
        vgjax.rollout(
            lambda carry, _: ((carry[0].astype(dtype), carry[1]), None),
            (jnp.zeros((), jnp.int32), jnp.zeros(2, dtype)),
            length=2,
        )
