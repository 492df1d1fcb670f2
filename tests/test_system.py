"""Steps as the field uses them: never stale, never compiled twice, of any dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from flax import linen, nnx

import vgjax
from vgjax import steps

pytestmark = pytest.mark.once

MATRIX = np.array([[0.9, 0.4], [-0.3, 0.5]])


def spectrum(step, carry, inputs=None, **options):
    return vgjax.jacobian_spectrum(step, carry, inputs, **options).log_singular_values


def last_of(matrices):
    """Log singular values of a short product, newest factor on the left."""
    product = functools.reduce(lambda a, b: b @ a, matrices)
    return np.log(np.linalg.svd(product, compute_uv=False))


# Never stale, never compiled twice


def linear(W, h, x):
    return W @ h, x


class Model(nnx.Module):
    def __init__(self, W):
        self.W = nnx.Param(W)

    def move(self, h, x):
        return self.W[...] @ h, x


STEPS = {
    "lambda": lambda W: lambda h, x: (W @ h, x),
    "partial": lambda W: functools.partial(linear, W),
    "tree_util.Partial": lambda W: jax.tree_util.Partial(linear, W),
    "bound method": lambda W: Model(W).move,
    "jitted": lambda W: jax.jit(lambda h, x: (W @ h, x)),
    "from_function": lambda W: steps.from_function(linear, W),
    "closure over numpy": lambda W: (lambda V: lambda h, x: (V @ h, x))(np.asarray(W)),
}


@pytest.mark.parametrize("kind", STEPS)
def test_new_steps_over_new_arrays_are_right_and_not_compiled_again(
    kind, dtype, tolerance
):
    one, two = jnp.asarray(MATRIX, dtype), jnp.asarray(2 * MATRIX.T, dtype)
    carry = jnp.ones(2, dtype)
    first = spectrum(STEPS[kind](one), carry, length=3, every=3)
    with compilations() as compiled:
        second = spectrum(STEPS[kind](two), carry, length=3, every=3)
        jax.block_until_ready(second)
    assert compiled == []
    atol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(first[-1], last_of([MATRIX] * 3), atol=atol)
    np.testing.assert_allclose(second[-1], last_of([2 * MATRIX.T] * 3), atol=atol)


def test_the_counter_of_compilations_counts(dtype):
    with compilations() as compiled:
        for n in (5, 6):
            spectrum(lambda h, x: (jnp.sin(h), x), jnp.ones(2, dtype), length=n)
    assert len(compiled) >= 2


def test_a_closure_over_a_dictionary_reads_what_is_there_now(dtype, tolerance):
    params = {"W": jnp.asarray(MATRIX, dtype)}

    def step(h, x):
        return jnp.asarray(params["W"]) @ h, x

    carry = jnp.ones(2, dtype)
    before = spectrum(step, carry, length=2)
    params["W"] = 0.1 * params["W"]
    with compilations() as compiled:
        after = spectrum(step, carry, length=2)
        states = vgjax.rollout(step, carry, length=2).states
    atol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(before[-1], last_of([MATRIX] * 2), atol=atol)
    np.testing.assert_allclose(after[-1], last_of([0.1 * MATRIX] * 2), atol=atol)
    np.testing.assert_allclose(
        states[-1], 0.01 * MATRIX @ MATRIX @ np.ones(2), rtol=tolerance(1e-13, 1e-5)
    )
    assert len(compiled) <= 2  # the rollout


# Variables that change


class Clock(nnx.Module):
    """Halve the state by ever more."""

    def __init__(self, start):
        self.w = nnx.Param(jnp.ones((), start.dtype))
        self.n = nnx.Variable(start)

    def __call__(self, h, x):
        del x
        self.n[...] += 1
        h = self.w[...].astype(h.dtype) * h * 0.5 ** self.n[...].astype(h.dtype)
        return h, h


def test_integer_variables_travel_from_step_to_step(dtype, tolerance):
    clock = Clock(jnp.zeros((), jnp.int32))
    with jax.numpy_dtype_promotion("standard"):
        found = spectrum(clock, jnp.ones(1, dtype), length=4)
        backward = spectrum(clock, jnp.ones(1, dtype), length=4, reverse=True)
    expected = -np.log(2) * np.array([1, 3, 6, 10])
    atol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(found[:, 0], expected, atol=atol)
    np.testing.assert_allclose(
        backward[:, 0], -np.log(2) * np.array([4, 7, 9, 10]), atol=atol
    )
    assert clock.n[...] == 0  # left as it was


def test_floating_variables_that_change_are_refused_by_path(dtype):
    clock = Clock(jnp.zeros((), dtype))
    sentence = r"must not change floating Variables .* changes \.n\.value.*\.eval\(\)"
    with pytest.raises(ValueError, match=sentence):
        vgjax.rollout(clock, jnp.ones(1, dtype), length=4)


class Thinning(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, h, x):
        del x
        h = self.dropout(h)
        return h, None


def test_dropout_draws_anew_at_every_step(dtype):
    found = vgjax.rollout(Thinning(), jnp.ones(16, dtype), length=4)
    module, h = Thinning(), jnp.ones(16, dtype)
    for state in found.states[1:]:
        h, _ = module(h, None)
        np.testing.assert_array_equal(state, h)
    kept = (found.states != 0).sum(axis=1)
    assert kept[0] == 16
    assert kept[4] < kept[1] < 16


class Normed(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, h, x):
        del x
        return self.norm(h), None


def test_running_statistics_are_refused_until_eval():
    cell, carry = Normed(), jnp.ones((3, 2), jnp.float32)
    with pytest.raises(ValueError, match=r"changes \.norm\.mean.*\.eval\(\)"):
        vgjax.rollout(cell, carry, length=2)
    cell.eval()
    assert vgjax.rollout(cell, carry, length=2).states.shape == (3, 6)


class LinenCell(linen.Module):
    reads: bool = False

    @linen.compact
    def __call__(self, h, x):
        mean = self.variable("averages", "mean", lambda: jnp.zeros(8, jnp.float32))
        if not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * h
        h = linen.Dropout(0.5, deterministic=False)(h)
        return (h + mean.value if self.reads else h), x


def linen_cell(reads):
    module, h = LinenCell(reads), jnp.ones(8, jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return module, {"params": {}, **module.init(keys, h, None)}, h


def test_linen_dropout_draws_anew_and_averages_that_nothing_reads_travel():
    module, variables, h = linen_cell(reads=False)
    rngs = {"dropout": jax.random.key(2)}
    step = steps.from_linen(module, variables, rngs=rngs, mutable="averages")
    kept = (vgjax.rollout(step, h, length=3).states != 0).sum(axis=1)
    assert list(kept) == sorted(kept, reverse=True)
    assert kept[3] < kept[1] < 8
    assert step.rngs["dropout"] is rngs["dropout"]  # left as it was
    again = vgjax.rollout(step, h, length=3).states
    np.testing.assert_array_equal((again != 0).sum(axis=1), kept)


def test_linen_averages_that_the_state_depends_on_are_refused():
    module, variables, h = linen_cell(reads=True)
    rngs = {"dropout": jax.random.key(2)}
    step = steps.from_linen(module, variables, rngs=rngs, mutable=["averages"])
    with pytest.raises(ValueError, match=r"floating .*'averages'.*into the carry"):
        vgjax.rollout(step, h, length=3)


# Passengers, inputs and carries of any dtype


def test_flags_keys_and_python_numbers_are_passengers(dtype):
    def step(carry, x):
        h, key, old, n, flag = carry
        h = h * x["mask"] + x["id"]
        return (h, jax.random.fold_in(key, 1), old + 1, n + 1, not flag), n

    key = jax.random.key(0)
    carry = (jnp.ones(2, dtype), key, jax.random.PRNGKey(1), 3, True)
    inputs = {"id": jnp.arange(3), "mask": jnp.array([True, False, True])}
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(jax.errors.TracerBoolConversionError),
    ):
        # `not` of a traced flag is the user's mistake, told in JAX's words.
        vgjax.rollout(step, carry, inputs)

    def rightly(carry, x):
        *kept, _ = step((*carry[:-1], False), x)[0]
        return (*kept, ~carry[-1]), carry[3]

    with jax.numpy_dtype_promotion("standard"):
        found = vgjax.rollout(rightly, carry, inputs)
        jacobians = vgjax.state_jacobians(rightly, carry, inputs)
    np.testing.assert_array_equal(found.states[:, 0], [1, 1, 1, 3])
    np.testing.assert_array_equal(found.outputs, [3, 4, 5])
    np.testing.assert_array_equal(jacobians[:, 0, 0], [1, 0, 1])
    _, new_key, old, n, flag = found.carry
    assert (n, flag) == (6, False)
    assert flag.dtype == bool
    np.testing.assert_array_equal(old, jax.random.PRNGKey(1) + 3)
    for _ in range(3):
        key = jax.random.fold_in(key, 1)
    assert new_key == key


def test_keys_as_inputs(dtype):
    keys = jax.random.split(jax.random.key(0), 3)

    def step(h, key):
        return h * jax.random.bernoulli(key, 0.5, h.shape).astype(h.dtype), None

    found = vgjax.state_jacobians(step, jnp.ones(4, dtype), keys)
    for J, key in zip(found, keys, strict=True):
        mask = np.diag(np.asarray(jax.random.bernoulli(key, 0.5, (4,)), float))
        np.testing.assert_array_equal(J, mask)


COMPLEX = np.array([0.9 * np.exp(1j), 0.5j])


def test_complex_leaves_are_real_and_imaginary_parts(dtype, tolerance):
    kind = jnp.complex128 if dtype == jnp.float64 else jnp.complex64
    lam, mix = jnp.asarray(COMPLEX, kind), jnp.asarray([[1, 2j], [1, 1]], kind)

    def step(z, x):
        return mix @ (lam * z) + x.astype(kind), jnp.abs(z)

    def real(h, x):
        z = np.asarray(mix) @ np.diag(np.asarray(lam))
        blocks = jnp.asarray(np.block([[z.real, -z.imag], [z.imag, z.real]]), dtype)
        return blocks @ h + jnp.concatenate([x, jnp.zeros_like(x)]), None

    z, inputs = jnp.asarray([1 + 1j, 2 - 1j], kind), jnp.ones((5, 2), dtype)
    h = jnp.asarray([1, 2, 1, -1], dtype)
    with jax.numpy_dtype_promotion("standard"):
        one, two = vgjax.rollout(step, z, inputs), vgjax.rollout(real, h, inputs)
        found = spectrum(step, z, inputs)
        jacobians = vgjax.state_jacobians(step, z, inputs)
    expected = spectrum(real, h, inputs)
    rtol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(one.states, two.states, rtol=rtol)
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-12, 1e-4))
    np.testing.assert_allclose(
        jacobians, vgjax.state_jacobians(real, h, inputs), atol=tolerance(1e-14, 1e-6)
    )
    assert one.carry.dtype == kind
    np.testing.assert_allclose(
        one.carry,
        np.asarray(two.states)[-1, :2] + 1j * np.asarray(two.states)[-1, 2:],
        rtol=rtol,
    )


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_half_precision_has_jacobians_of_its_own_and_products_in_float32(half):
    def step(h, x):
        return jnp.tanh(h) * x, None

    carry, inputs = jnp.full(2, 0.5, half), jnp.full((40, 2), 0.25, half)
    J = vgjax.state_jacobians(step, carry, inputs)
    assert J.dtype == half
    found = spectrum(step, carry, inputs)
    assert found.dtype == jnp.float32
    diagonals = np.asarray(J.astype(jnp.float32))[:, [0, 1], [0, 1]]
    expected = np.cumsum(np.log(diagonals.astype(np.float64)), axis=0)
    # XLA need not round a step to half precision where it fuses it with others.
    steps = np.arange(1, 41)[:, None]
    assert (
        abs(np.asarray(found) - expected) < 2 * float(jnp.finfo(half).eps) * steps
    ).all()
    assert found[-1, 0] < -50


def test_a_body_in_half_precision_saturates_where_it_does():
    W = jnp.array([[2, 1], [0.5, 2]], jnp.bfloat16)

    def step(h, x):
        a = W @ h.astype(jnp.bfloat16) + x.astype(jnp.bfloat16)
        return jnp.tanh(a).astype(jnp.float32), None

    carry = jnp.full(2, 0.1, jnp.float32)
    inputs = jnp.array([[0, 0], [6, 0], [6, 6]], jnp.float32)
    found = vgjax.jacobians.saturation(step, carry, inputs)
    np.testing.assert_array_equal(found.lost, [0, 0.5, 1])
    rows = vgjax.state_jacobians(step, carry, inputs)
    np.testing.assert_array_equal((rows == 0).all(axis=2).mean(axis=1), [0, 0.5, 1])


# One mode of differentiation only


@jax.custom_vjp
def spike(x):
    return (x > 0).astype(x.dtype)


spike.defvjp(lambda x: (spike(x), x), lambda x, ct: (ct / (1 + jnp.abs(x)) ** 2,))


def spiking(h, x):
    W = jnp.asarray(MATRIX, h.dtype)
    return 0.5 * h + W @ spike(h) + x, spike(h)


def spiking_jacobian(h):
    h = np.asarray(h, float)
    return 0.5 * np.eye(2) + MATRIX @ np.diag(1 / (1 + np.abs(h)) ** 2)


def by_newton(h, x):
    """Solve z - tanh(z)/2 = h."""

    def better(state):
        z, n = state
        slope = 1 - 0.5 * (1 - jnp.tanh(z) ** 2)
        return z - (z - 0.5 * jnp.tanh(z) - h) / slope, n + 1

    return jax.lax.while_loop(lambda s: s[1] < 30, better, (h, 0))[0], x


def newton_jacobian(z):
    z = np.asarray(z, float)
    return np.diag(1 / (1 - 0.5 * (1 - np.tanh(z) ** 2)))


def test_jacobians_of_a_step_with_a_reverse_rule_only(dtype, tolerance):
    h, inputs = jnp.asarray([0.3, -0.2], dtype), jnp.full((4, 2), 0.1, dtype)
    states = vgjax.rollout(spiking, h, inputs).states[:-1]
    expected = [spiking_jacobian(s) for s in states]
    J = vgjax.state_jacobians(spiking, h, inputs)
    np.testing.assert_allclose(J, expected, rtol=tolerance(1e-13, 1e-5))
    found = spectrum(spiking, h, inputs)
    atol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(found[-1], last_of(expected), atol=atol)
    assert vgjax.jacobians.input_jacobians(spiking, h, inputs).shape == (4, 2, 2)
    product = functools.reduce(lambda a, b: b @ a, expected)
    np.testing.assert_allclose(vgjax.propagator(spiking, h, inputs), product, atol=atol)


def test_jacobians_of_a_step_with_a_forward_rule_only(dtype, tolerance):
    h = jnp.asarray([0.3, -0.2], dtype)
    states = vgjax.rollout(by_newton, h, length=3).states[1:]
    expected = [newton_jacobian(s) for s in states]
    atol = tolerance(1e-12, 1e-5)
    J = vgjax.state_jacobians(by_newton, h, length=3)
    np.testing.assert_allclose(J, expected, atol=atol)
    np.testing.assert_allclose(
        spectrum(by_newton, h, length=3, reverse=True)[-1],
        last_of(expected),
        atol=atol,
    )
    np.testing.assert_allclose(
        vgjax.propagator(by_newton, h, length=3),
        functools.reduce(lambda a, b: b @ a, expected),
        atol=atol,
    )


def test_a_fourier_transform_in_a_step(dtype, tolerance):
    def step(carry, x):
        z = jnp.fft.fft(jax.lax.complex(*carry), norm="ortho")
        return (z.real, z.imag), x

    carry = jnp.ones(4, dtype), jnp.zeros(4, dtype)
    for reverse in (False, True):
        found = spectrum(step, carry, length=50, reverse=reverse)
        np.testing.assert_allclose(found, 0, atol=tolerance(1e-13, 1e-4))


# Under the caller's transformations


def test_under_jit_vmap_grad_and_nnx_jit(dtype, tolerance):
    W = jnp.asarray(np.stack([MATRIX, MATRIX.T, 2 * MATRIX]), dtype)
    carry = jnp.ones(2, dtype)

    def last(W):
        return spectrum(lambda h, x: (W @ h, x), carry, length=3, every=3)[-1]

    expected = np.stack([last_of([w] * 3) for w in np.asarray(W, float)])
    atol = tolerance(1e-12, 1e-5)
    np.testing.assert_allclose(jax.vmap(last)(W), expected, atol=atol)
    np.testing.assert_allclose(jax.jit(last)(W[0]), expected[0], atol=atol)
    slope = jax.grad(lambda w: last(w * W[0])[0])(jnp.asarray(2.0, dtype))
    np.testing.assert_allclose(slope, 3 / 2, atol=tolerance(1e-10, 1e-4))
    cell = Model(W[0])
    jitted = nnx.jit(lambda cell: spectrum(cell.move, carry, length=3, every=3)[-1])
    np.testing.assert_allclose(jitted(cell), expected[0], atol=atol)
    jitted = nnx.jit(lambda clock: spectrum(clock, carry[:1], length=4))
    with jax.numpy_dtype_promotion("standard"):
        found = jitted(Clock(jnp.zeros((), jnp.int32)))
    np.testing.assert_allclose(found[-1, 0], -10 * np.log(2), atol=atol)
