"""Steps of every kind: rules for one mode only, FFT, half precision, new closures."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations

import vgjax
from vgjax import lyapunov, spectra

# One mode of differentiation only --------------------------------------------------


@jax.custom_vjp
def spike(v):
    return (v > 0).astype(v.dtype)


def surrogate(v):
    return 1 / (1 + 2 * abs(v)) ** 2


spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g * surrogate(v),))


def spiking(N):
    """Leaky units with spikes, which have a reverse rule only."""
    rng = np.random.default_rng(1)
    W = rng.standard_normal((N, N)) / N**0.5

    def step(v, x):
        return 0.9 * v + jnp.asarray(W) @ spike(v - 0.5) + x, None

    def jacobian(v, new):
        del new
        return 0.9 * np.eye(N) + W * surrogate(v - 0.5)

    return step, jacobian


def by_loop(N):
    """h' + h'^3 / 3 = W h + x, found by Newton steps in a loop: forward rules only."""
    rng = np.random.default_rng(2)
    W = 1.3 * rng.standard_normal((N, N)) / N**0.5

    def step(h, x):
        drive = jnp.asarray(W) @ h + x

        def newton(state):
            n, y = state
            return n + 1, y - (y + y**3 / 3 - drive) / (1 + y**2)

        return jax.lax.while_loop(lambda s: s[0] < 30, newton, (0, drive))[1], None

    def jacobian(h, new):
        del h
        return W / (1 + new[:, None] ** 2)

    return step, jacobian


def by_root(N):
    """The same, by `custom_root` and GMRES."""
    rng = np.random.default_rng(2)
    W = 1.3 * rng.standard_normal((N, N)) / N**0.5

    def solve(f, y):
        def newton(_, y):
            slope = jax.jvp(f, (y,), (jnp.ones_like(y),))[1]
            return y - f(y) / slope

        return jax.lax.fori_loop(0, 30, newton, y)

    def tangent_solve(g, y):
        return jax.scipy.sparse.linalg.gmres(g, y, tol=1e-14, solve_method="batched")[0]

    def step(h, x):
        drive = jnp.asarray(W) @ h + x
        f = lambda y: y + y**3 / 3 - drive  # noqa: E731
        return jax.lax.custom_root(f, drive, solve, tangent_solve), None

    return step, by_loop(N)[1]


def trajectory(kind, N, T):
    step, jacobian = kind(N)
    x = jnp.asarray(0.5 * np.random.default_rng(3).standard_normal((T, N)))
    states = np.asarray(vgjax.rollout(step, jnp.zeros(N), x).states)
    J = [jacobian(v, new) for v, new in itertools.pairwise(states)]
    return step, jnp.zeros(N), x, np.array(J)


KINDS = [spiking, by_loop, by_root]


@pytest.mark.float64
@pytest.mark.parametrize("kind", KINDS)
def test_exponents_and_vectors_of_steps_with_one_mode_only(kind):
    step, h, x, J = trajectory(kind, 3, 60)
    found = lyapunov.lyapunov_spectrum(step, h, x, frame=jnp.eye(3), tol=0)
    basis, logs = np.eye(3), []
    for A in J:
        basis, R = np.linalg.qr(A @ basis)
        logs.append(np.log(abs(np.diag(R))))
    expected = np.sort(np.mean(logs, axis=0))[::-1]
    np.testing.assert_allclose(found.exponents, expected, atol=1e-9)
    vectors = lyapunov.covariant_vectors(step, h, x)
    mapped = J @ np.asarray(vectors.vectors[:-1])
    grown = vectors.vectors[1:] * np.exp(vectors.log_growth)[:, None, :]
    np.testing.assert_allclose(mapped, grown, atol=1e-9)


@pytest.mark.float64
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("N", "T"), [(3, 6), (60, 6)])
def test_leading_values_of_steps_with_one_mode_only(kind, N, T):
    step, h, x, J = trajectory(kind, N, T)
    found = spectra.leading_spectrum(step, h, x, k=2)
    Phi = functools.reduce(lambda P, A: A @ P, J)
    expected = np.log(np.linalg.svd(Phi, compute_uv=False)[:2])
    np.testing.assert_allclose(found.log_singular_values, expected, atol=1e-8)
    assert found.converged.all()


def by_fft(z, x):
    del x
    z = jnp.fft.fft(jax.lax.complex(*z), norm="ortho")
    return (jnp.real(z), jnp.imag(z)), None


def test_a_unitary_transform_neither_grows_nor_shrinks(dtype, tolerance):
    z, atol = (jnp.ones(4, dtype), jnp.zeros(4, dtype)), tolerance(1e-12, 1e-4)
    found = lyapunov.lyapunov_spectrum(by_fft, z, length=50)
    np.testing.assert_allclose(found.exponents, 0, atol=atol)
    found = lyapunov.covariant_vectors(by_fft, z, length=50)
    np.testing.assert_allclose(found.log_growth, 0, atol=50 * atol)
    found = spectra.leading_spectrum(by_fft, z, k=3, length=50)
    np.testing.assert_allclose(found.log_singular_values, 0, atol=50 * atol)


@pytest.mark.float64
def test_without_a_reverse_rule_a_large_state_is_refused_in_one_sentence():
    def step(h, x):
        del x
        return jax.lax.while_loop(lambda h: h[0] > 1, lambda h: h / 2, h), None

    with pytest.raises(ValueError, match=r"`step` must have a reverse-mode .* 8192"):
        spectra.leading_spectrum(step, jnp.ones(8193), k=1, length=2)


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_measured_in_float32(half):
    halve = functools.partial(lambda c, h, x: (c * h, x), jnp.asarray(0.5, half))
    h = jnp.ones(12, half)
    found = lyapunov.lyapunov_spectrum(halve, h, length=20, k=2)
    assert found.exponents.dtype == found.frame.dtype == jnp.float32
    np.testing.assert_allclose(found.exponents, np.log(0.5), rtol=1e-6)
    found = spectra.leading_spectrum(halve, h, k=1, length=20)
    np.testing.assert_allclose(found.log_singular_values, 20 * np.log(0.5), rtol=1e-6)
    found = lyapunov.covariant_vectors(halve, h, length=20, k=2)
    np.testing.assert_allclose(found.log_growth, np.log(0.5), rtol=1e-5)


# New numbers in an old program -----------------------------------------------------


def scale(c, h, x):
    return c * h + x, None


class Scale:
    def __init__(self, c):
        self.c = c

    def step(self, h, x):
        return self.c * h + x, None


jax.tree_util.register_pytree_node(
    Scale, lambda s: ((s.c,), None), lambda _, c: Scale(*c)
)

# Each with a length of its own: they are one program, compiled once for all.
MAKERS = {
    "closure": (lambda c: lambda h, x: (c * h + x, None), 15),
    "partial": (lambda c: functools.partial(scale, c), 16),
    "method": (lambda c: Scale(c).step, 17),
}


def exponent_of(step, T=14):
    x = jnp.zeros((T, 3))
    return lyapunov.lyapunov_spectrum(step, jnp.ones(3), x).exponents[0]


def largest_of(step, T=14):
    x = jnp.zeros((T, 3))
    found = spectra.leading_spectrum(step, jnp.ones(3), x, k=1)
    return found.log_singular_values[0] / T


@pytest.fixture
def compiled():
    """One entry for each program that is compiled from now on."""
    with compilations() as found:
        yield found


@pytest.mark.parametrize(("maker", "T"), MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("measure", [exponent_of, largest_of])
def test_new_arrays_in_new_functions_compile_nothing(maker, T, measure, compiled):
    first, second = jnp.full(3, 0.25), jnp.full(3, 0.5)
    np.testing.assert_allclose(measure(maker(first), T), np.log(0.25), rtol=1e-5)
    assert compiled  # so that the second time it would be seen
    compiled.clear()
    np.testing.assert_allclose(measure(maker(second), T), np.log(0.5), rtol=1e-5)
    assert not compiled


def test_new_weights_of_a_sweep_compile_nothing(compiled):
    def largest(factor):
        def step(h, x):
            del x
            return factor * h, None

        found = spectra.leading_spectrum(step, jnp.ones(12), k=1, length=9)
        assert found.sweeps > 0
        return found.log_singular_values[0] / 9

    largest(jnp.full(12, 0.25))
    assert compiled
    compiled.clear()
    np.testing.assert_allclose(largest(jnp.full(12, 0.5)), np.log(0.5), rtol=1e-5)
    assert not compiled


def test_a_closure_over_a_dict_reads_what_is_in_it_now():
    params = {"c": jnp.full(3, 0.25)}
    step = lambda h, x: (params["c"] * h + x, None)  # noqa: E731
    for c in (0.25, 0.5):
        params["c"] = jnp.full(3, c)
        np.testing.assert_allclose(exponent_of(step), np.log(c), rtol=1e-5)
        np.testing.assert_allclose(largest_of(step), np.log(c), rtol=1e-5)


# Derivatives of the largest value ---------------------------------------------------


def relu_net(N):
    rng = np.random.default_rng(4)
    W = jnp.asarray(rng.standard_normal((N, N)) / N**0.5)
    x = jnp.asarray(abs(rng.standard_normal((4, N)))).at[:, 1].set(-50)  # one unit off

    def largest(W):
        step = lambda h, x: (jax.nn.relu(W @ h + x), None)  # noqa: E731
        found = spectra.leading_spectrum(step, jnp.zeros(N), x, k=1)
        return found.log_singular_values[0]

    def by_svd(W):
        h, Phi = jnp.zeros(N), jnp.eye(N)
        for t in range(4):
            h = jax.nn.relu(W @ h + x[t])
            Phi = jnp.where(h[:, None] > 0, W @ Phi, 0)
        return jnp.log(jnp.linalg.norm(Phi, 2))

    return W, largest, by_svd


@pytest.mark.float64
def test_forward_derivatives_are_finite_beside_a_unit_that_is_off():
    N = 16  # more than k + 8: blocks are swept
    W, largest, by_svd = relu_net(N)
    direction = jnp.asarray(np.random.default_rng(5).standard_normal((N, N)))
    _, slope = jax.jvp(largest, (W,), (direction,))
    _, expected = jax.jvp(by_svd, (W,), (direction,))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


@pytest.mark.float64
def test_reverse_mode_is_refused_in_one_sentence():
    W, largest, _ = relu_net(16)
    with pytest.raises(TypeError, match=r"`leading_spectrum` .*jacfwd.*jacobian_spec"):
        jax.grad(largest)(W)
