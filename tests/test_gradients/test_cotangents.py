"""Cotangents of all states, and what is a loss."""

import itertools

import chex
import gradient_systems as systems
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from flax import nnx
from gradient_cases import T, case
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import vgjax
from vgjax import gradients, steps


@pytest.mark.parametrize("kind", ["last", "outputs", "mixed", "given"])
def test_cotangents_are_those_carried_back_by_hand(kind, dtype, tolerance):
    arguments, hand = case(kind, dtype)
    found = gradients.cotangents(*arguments)
    assert found.shape == (T + 1, systems.N)
    assert found.dtype == dtype
    _, _, total = systems.paths(*hand)
    atol = tolerance(1e-12, 1e-5) * np.abs(total).max()
    np.testing.assert_allclose(found, total, atol=atol, rtol=0)


def test_cotangents_of_a_nonnormal_network_are_transposed_products(dtype, tolerance):
    (step, h, x, loss), _ = case("last", dtype)
    found = np.asarray(gradients.cotangents(step, h, x, loss))
    J = np.asarray(vgjax.state_jacobians(step, h, x))
    delta = found[-1]
    for t in range(T - 1, -1, -1):
        delta = J[t].T @ delta
        size = tolerance(1e-12, 1e-5) * np.abs(delta).max()
        np.testing.assert_allclose(found[t], delta, atol=size, rtol=0)


@pytest.mark.parametrize("kind", ["last", "outputs", "mixed", "given"])
def test_log_norms_by_lag_are_those_of_cotangents_by_hand(kind, dtype, tolerance):
    arguments, hand = case(kind, dtype)
    found = gradients.log_cotangents(*arguments)
    _, _, total = systems.paths(*hand)
    with np.errstate(divide="ignore"):  # outputs do not read the last state
        expected = np.log(np.linalg.norm(total, axis=1))[::-1]
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-12, 1e-5), rtol=0)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_log_norms_are_finite_where_cotangents_are_not(factor, dtype):
    step = steps.from_function(lambda w, h, _: (w * h, None), dtype(factor))
    last = jnp.zeros((5001, 2), dtype).at[-1, 0].set(1)
    given = (step, jnp.zeros(2, dtype), None, last)
    plain = gradients.cotangents(*given, length=5000)
    assert not 0 < float(jnp.linalg.norm(plain[0])) < np.inf
    found = gradients.log_cotangents(*given, length=5000)
    expected = np.arange(5001) * np.log(factor)
    rtol = 4 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=0)


def test_log_norms_of_what_is_not_read_or_annihilated_are_minus_infinity(dtype):
    shift = jnp.asarray(np.eye(3, k=1), dtype)  # nilpotent: nothing after 3 steps
    step = steps.from_function(lambda W, h, _: (W @ h, None), shift)
    d = np.zeros((7, 3))
    d[5, 0] = 2  # of the state before the last
    found = gradients.log_cotangents(
        step, jnp.zeros(3, dtype), None, jnp.asarray(d, dtype), length=6
    )
    two = np.log(2)
    np.testing.assert_allclose(
        found, [-np.inf, two, two, two, -np.inf, -np.inf, -np.inf], rtol=1e-6
    )


def memory(trajectory):
    c, h = trajectory.carry
    return jnp.sum(c**2) + jnp.sum(h**3)


@pytest.fixture(scope="module")
def lstm():
    dtype = jnp.result_type(float)
    cell = nnx.LSTMCell(2, 3, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(1))
    h = jnp.linspace(-1, 1, 3, dtype=dtype)
    return cell, (h[::-1] / 2, h), jax.random.normal(jax.random.key(2), (T, 2), dtype)


def test_cotangents_of_an_lstm_are_of_its_cell_state_too(lstm, tolerance):
    found = np.asarray(gradients.cotangents(*lstm, memory))
    trajectory = vgjax.rollout(*lstm)
    c, h = trajectory.carry
    np.testing.assert_allclose(found[-1], np.concatenate([2 * c, 3 * h**2]))
    carried = np.asarray(vgjax.propagator(*lstm), float).T @ found[-1]
    atol = tolerance(1e-12, 1e-5)
    np.testing.assert_allclose(found[0], carried, atol=atol)

    def value(carry):
        return memory(vgjax.rollout(lstm[0], carry, lstm[2]))

    plain = ravel_pytree(jax.grad(value)(lstm[1]))[0]
    np.testing.assert_allclose(found[0], plain, atol=atol)


def ticks(W, carry, x):
    """A network whose clock scales what it does, and whose outputs hold it too."""
    h, clock = carry["h"], carry["clock"]
    h = jnp.tanh(W @ h * (1 + clock).astype(h.dtype) / 4 + x)
    return {"h": h, "clock": clock + 1}, (clock, 2 * h)


def ticks_by_input(W, h, x):
    time, x = x
    h = jnp.tanh(W @ h * (1 + time) / 4 + x)
    return h, 2 * h


def of_pair(trajectory):
    return jnp.sum(trajectory.outputs[1] ** 2) + jnp.sum(trajectory.carry["h"])


def of_one(trajectory):
    return jnp.sum(trajectory.outputs**2) + jnp.sum(trajectory.carry)


MEASURES = [
    gradients.cotangents,
    gradients.log_cotangents,
    gradients.lag_contributions,
    gradients.gradient_flow,
    gradients.alignment,
]


@pytest.mark.parametrize("measure", MEASURES[:4])
def test_a_clock_in_the_carry_is_no_part_of_any_gradient(measure, dtype, tolerance):
    W = jnp.asarray(systems.parameters()["W"], dtype)
    h = jnp.linspace(-1, 1, 3, dtype=dtype)
    x = jnp.asarray(np.random.default_rng(4).standard_normal((5, 3)), dtype)
    clocked = steps.from_function(ticks, W)
    found = measure(clocked, {"h": h, "clock": jnp.zeros((), int)}, x, of_pair)
    plain = steps.from_function(ticks_by_input, W)
    wanted = measure(plain, h, (jnp.arange(5, dtype=dtype)[:, None], x), of_one)
    tol = tolerance(1e-12, 1e-4)
    chex.assert_trees_all_close(found, wanted, atol=tol, rtol=tol)


def is_batched(x):
    return jnp.stack([x, 0.5 * x, -x])


@pytest.mark.parametrize(
    ("measure", "kind"),
    [
        *itertools.product(MEASURES[1:4], ["last", "mixed"]),
        (gradients.cotangents, "mixed"),
        (gradients.alignment, "last"),
    ],
)
def test_same_answer_under_jit_and_vmap(measure, kind, dtype, tolerance):
    (step, h, x, loss), _ = case(kind, dtype)
    inputs = is_batched(x)
    together = jax.jit(jax.vmap(lambda x: measure(step, h, x, loss)))(inputs)
    tol = tolerance(1e-11, 1e-3)
    for b in range(3):
        one = measure(step, h, inputs[b], loss)
        found = jax.tree.map(lambda a, b=b: a[b], together)
        chex.assert_trees_all_close(found, one, atol=tol, rtol=tol)


@pytest.mark.parametrize("measure", [*MEASURES, gradients.signal_to_noise])
def test_new_weights_and_new_labels_are_not_compiled_anew(measure, dtype):
    def loss(labels, trajectory):
        return systems.labels_loss(labels, trajectory) + jnp.sum(trajectory.carry)

    (step, h, x, _), _ = case("outputs", dtype)
    labels = jnp.zeros((T, systems.M), dtype)
    if measure is gradients.signal_to_noise:
        h, x, labels = is_batched(h), is_batched(x), is_batched(labels)
    given = [
        (steps.from_function(systems.network, params), h, x, Partial(loss, labels + c))
        for c, params in (
            (c, jax.tree.map(lambda a, c=c: a * c, step.params)) for c in (1, 2)
        )
    ]
    measure(*given[0])
    with compilations() as compiled:
        measure(*given[1])
    assert compiled == []


def no_scalar(trajectory):
    return trajectory.states[-1]


def no_number(trajectory):
    del trajectory
    return 3


def whole(trajectory):
    return jnp.sum(trajectory.states).astype(int)


class Readout:
    def loss(self, trajectory):
        return jnp.sum(trajectory.states)


class Unhashable(Readout):
    __hash__ = None
    __call__ = Readout.loss


@pytest.mark.parametrize("loss", [Readout().loss, Unhashable()])
def test_methods_and_what_has_no_hash_are_losses(loss, dtype, tolerance):
    (step, h, x, _), _ = case("last", dtype)
    expected = gradients.cotangents(step, h, x, lambda t: jnp.sum(t.states))
    found = gradients.cotangents(step, h, x, loss)
    np.testing.assert_allclose(found, expected, rtol=tolerance(1e-13, 1e-5))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("loss", "error", "sentence"),
    [
        (None, TypeError, "`loss` must be callable .*array of .*but is NoneType"),
        ("mse", TypeError, "`loss` must be callable .*array of .*but is str"),
        (np.ones((T, 3)), ValueError, r"`loss` .*\(T\+1, N\) = \(10, 3\).*\(9, 3\)"),
        (np.ones((T + 1, 2)), ValueError, r"`loss` must have .*\(10, 2\)"),
        (np.ones((T + 1, 3), int), TypeError, "`loss` must have dtype .*int"),
        (no_scalar, TypeError, r"`loss` must return one real .*float\d\d\[3\]"),
        (no_number, TypeError, "`loss` must return one real number, .*returns int"),
        (whole, TypeError, r"`loss` must return one real .*int\d\d\[\]"),
    ],
)
def test_what_is_no_loss_is_refused_by_name(measure, loss, error, sentence, dtype):
    (step, h, x, _), _ = case("last", dtype)
    with pytest.raises(error, match=sentence):
        measure(step, h, x, loss)


def turns(W, h, x):
    return W @ h + x, jax.lax.complex(h, x)


def test_complex_outputs_are_real_and_imaginary_parts(dtype, tolerance):
    step = steps.from_function(turns, jnp.eye(2, dtype=dtype))
    x = jnp.asarray([[1, 2], [0, 1], [3, -1]], dtype)
    squares = gradients.cotangents(
        step, x[0], x, lambda t: jnp.sum(jnp.abs(t.outputs) ** 2)
    )
    states = vgjax.rollout(step, x[0], x).states[:-1]
    expected = np.cumsum(2 * np.asarray(states)[::-1], axis=0)[::-1]
    np.testing.assert_allclose(squares[:-1], expected, rtol=tolerance(1e-13, 1e-5))
    np.testing.assert_array_equal(squares[-1], 0)


def linear(W, h, x):
    assert x is None
    return W @ h, None


def test_a_step_without_inputs_runs_for_a_given_length(dtype, tolerance):
    W = jnp.asarray([[0.5, 3.0], [0.0, 0.25]], dtype)
    step, h = steps.from_function(linear, W), jnp.ones(2, dtype)
    given = jnp.zeros((5, 2), dtype).at[-1].set(jnp.asarray([2.0, -1.0], dtype))
    found = gradients.cotangents(step, h, None, given, length=4)
    powers = [np.linalg.matrix_power(np.asarray(W, float), k) for k in range(4, -1, -1)]
    wanted = [P.T @ [2.0, -1.0] for P in powers]
    np.testing.assert_allclose(found, wanted, rtol=tolerance(1e-13, 1e-5))
    assert gradients.gradient_flow(step, h, None, given, length=4).shape == (4, 4)
    parts = gradients.lag_contributions(step, h, None, given, length=4)
    assert parts.log_norm.shape == (4,)
