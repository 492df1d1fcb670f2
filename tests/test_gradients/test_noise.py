"""The parts of the gradient over a batch: their mean, and its error."""

import functools
import math

import gradient_systems as systems
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_cases import case, fixed_point
from jax.tree_util import Partial

from vgjax import gradients, steps

T = 6


def batch_of(kind, dtype, B=4):
    """Arguments of ours, and the parts (B, T, P) by hand."""
    params = systems.parameters()
    rng = np.random.default_rng(8)
    h, x = rng.standard_normal((B, systems.N)), rng.standard_normal((B, T, systems.D))
    data = [systems.data_of(kind, T, seed) for seed in range(B)]
    flat = []
    for b in range(B):
        states = systems.run(params, h[b], x[b])
        d, e = systems.direct(kind, params, states, data[b])
        flat.append(systems.flat_parts(systems.paths(params, states, x[b], d, e)[0]))
    cast = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, dtype))
    data = cast(jax.tree.map(lambda *a: np.stack(a), *data))
    loss = Partial(systems.LOSSES[kind], data) if kind in systems.LOSSES else data
    step = steps.from_function(systems.network, cast(params))
    return (step, cast(h), cast(x), loss), np.array(flat)


@pytest.mark.parametrize("kind", ["last", "mixed", "given"])
def test_signal_and_noise_are_those_of_the_parts_by_hand(kind, dtype, tolerance):
    arguments, parts = batch_of(kind, dtype)
    found = gradients.signal_to_noise(*arguments)
    signal = np.linalg.norm(parts.mean(0), axis=1)
    noise = np.sqrt(parts.var(0, ddof=1).sum(1) / len(parts))
    tol = tolerance(1e-12, 1e-4)
    np.testing.assert_array_equal(found.lags, np.arange(T))
    np.testing.assert_allclose(found.log_signal, np.log(signal), atol=tol)
    np.testing.assert_allclose(found.log_noise, np.log(noise), atol=tol)
    np.testing.assert_allclose(found.ratio, signal / noise, rtol=tol)


def given_noise(seed, batches, B, dtype, mean=0.0):
    """One network and one input, random direct cotangents of the last state."""
    (step, h, x, _), _ = case("last", dtype)
    rng = np.random.default_rng(seed)
    given = np.zeros((batches, B, len(x) + 1, systems.N))
    given[:, :, -1] = mean + rng.standard_normal((batches, B, systems.N))
    h, x = (jnp.broadcast_to(a, (B, *a.shape)) for a in (h, x))
    return jax.jit(
        jax.vmap(lambda given: gradients.signal_to_noise(step, h, x, given))
    )(jnp.asarray(given, dtype))


def test_pure_noise_has_as_much_signal_as_noise(dtype):
    batches = 400
    found = given_noise(1, batches, 6, dtype)
    signal, noise = np.exp(2 * found.log_signal), np.exp(2 * found.log_noise)
    excess = (signal - noise) / noise.mean(0)
    error = excess.std(0, ddof=1) / np.sqrt(batches)
    assert (np.abs(excess.mean(0)) < 6 * error).all()
    assert (error < 0.15).all()


def test_ratio_of_a_constant_signal_grows_as_the_root_of_the_batch(dtype):
    few, many = (given_noise(2, 1, B, dtype, mean=1.0) for B in (1000, 16_000))
    # Of 1000 members a mean, here above its own error 20 times, and its error are known
    # to some 5 % each at one sigma, or better.
    assert (few.ratio > 20).all()
    gain = np.asarray(many.ratio / few.ratio)
    np.testing.assert_allclose(gain, 4, rtol=6 * 0.05)


def test_signal_at_lag_2000_reads_a_number(dtype, tolerance):
    T, k = 2001, np.arange(2001)
    step, h, x = fixed_point(0.5, T, dtype)
    h, x = jnp.stack([h, h]), jnp.stack([x, x])
    given = jnp.zeros((2, T + 1, 1), dtype).at[:, -1, 0].set(jnp.array([1, 3], dtype))
    found = gradients.signal_to_noise(step, h, x, given)
    # Each part is 0.5^k (2, 1) times the cotangent: mean 2, standard error 1.
    wanted = k * math.log(0.5) + 0.5 * math.log(5)
    rtol = tolerance(1e-12, 1e-5)
    np.testing.assert_allclose(found.log_noise, wanted, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.ratio, 2, rtol=tolerance(1e-12, 1e-3))


@pytest.mark.float64
def test_members_of_a_batch_may_have_gradients_of_very_different_size():
    step, h, x = fixed_point(0.5, 3, float)
    h, x = jnp.stack([h, h]), jnp.stack([x, x])
    given = jnp.zeros((2, 4, 1)).at[:, -1, 0].set(jnp.asarray([1e-200, 1e200]))
    found = gradients.signal_to_noise(step, h, x, given)
    # The small one is 0 beside the other: mean and error are half of that.
    wanted = math.log(0.5e200) + np.arange(3) * math.log(0.5) + 0.5 * math.log(5)
    np.testing.assert_allclose(found.log_signal, wanted, rtol=1e-12)
    np.testing.assert_allclose(found.ratio, 1, rtol=1e-12)


def named(labels, trajectory, *, power):
    return jnp.sum((trajectory.states[-1] - labels) ** int(power))


def squared(labels, trajectory):
    return named(labels, trajectory, power="2")


def test_what_of_a_loss_is_no_array_belongs_to_no_member(dtype):
    (step, h, x, _), _ = case("last", dtype)
    h, x, labels = (jnp.stack([a, 2 * a]) for a in (h, x, h))
    found = gradients.signal_to_noise(step, h, x, Partial(named, labels, power="2"))
    wanted = gradients.signal_to_noise(step, h, x, Partial(squared, labels))
    np.testing.assert_array_equal(found.log_signal, wanted.log_signal)


def test_a_loss_that_is_none_is_refused_as_for_one_member(dtype):
    (step, h, x, _), _ = case("last", dtype)
    h, x = jnp.stack([h, h]), jnp.stack([x, x])
    with pytest.raises(TypeError, match="`loss` must be callable .* but is NoneType"):
        gradients.signal_to_noise(step, h, x, None)


@pytest.mark.parametrize(
    ("h", "x", "given", "sentence"),
    [
        ((1, 3), (1, 4, 2), (1, 5, 3), r"`carry` must have the batch, .*\(1, 3\)"),
        ((), (2, 4, 2), (2, 5, 3), r"`carry` must have the batch, .*shape \(\)"),
        ((2, 3), (3, 4, 2), (2, 5, 3), r"`inputs` must have the batch, .*\(3, 4, 2\)"),
        ((2, 3), (2, 4, 2), (3, 5, 3), r"`loss` must have .*B = 2 .*\(3, 5, 3\)"),
        (
            (2, 3),
            (2, 4, 2),
            (2, 4, 3),
            r"`loss` must have shape \(T\+1, N\) = \(5, 3\)",
        ),
    ],
)
def test_arguments_without_one_batch_are_refused(h, x, given, sentence, dtype):
    (step, _, _, _), _ = case("last", dtype)
    h, x, given = (np.ones(shape, dtype) for shape in (h, x, given))
    with pytest.raises(ValueError, match=sentence):
        gradients.signal_to_noise(step, h, x, given)
