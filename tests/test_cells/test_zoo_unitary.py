"""Orthogonal and unitary matrices, and attention: singular values of 1, or so they say.

Only the linear recurrent unit lets them be smaller. Initial values are held to their
papers, parameters of any value to the equations in NumPy.
"""

import functools

import jax.numpy as jnp
import numpy as np
import numpy_cells
import pytest
import scipy.linalg
from numpy_cells import assert_mean, assert_normal, assert_uniform, set_to
from support.zoo import build, drawn, key

import vgjax

# Orthogonal matrices.


ORTHOGONAL = [("cayley", {}), ("cayley", {"negative": 2}), ("expm", {})]


@pytest.mark.parametrize(("name", "options"), ORTHOGONAL)
@pytest.mark.parametrize("features", [1, 4, 5])
def test_w_is_orthogonal_now_and_after_any_change(name, options, features, tolerance):
    if features == 1 and options:
        options = {"negative": 1}
    cell = build(name, 2, features, **options)
    atol, eye = tolerance(1e-14, 1e-5), np.eye(features)
    for seed in (1, 2, 3):
        W = cell.W()
        np.testing.assert_allclose(W @ W.T, eye, atol=atol)
        numpy_cells.scramble(cell, seed)


@pytest.mark.parametrize("name", ["cayley", "expm"])
def test_w_is_the_map_of_an_antisymmetric_matrix(name, tolerance):
    cell = numpy_cells.scramble(build(name, 2, 5), 1)
    M = np.triu(np.asarray(cell.M[...], np.float64), 1)
    A, eye = M - M.T, np.eye(5)
    expected = {
        "cayley": np.linalg.inv(eye + A) @ (eye - A),
        "expm": scipy.linalg.expm(A),
    }
    atol = tolerance(1e-14, 1e-5)
    np.testing.assert_allclose(cell.W(), expected[name], atol=atol)
    if name == "cayley":
        signed = build("cayley", 2, 5, negative=2)
        set_to(signed.M, cell.M[...])
        D = np.diag([1, 1, 1, -1, -1])
        np.testing.assert_allclose(signed.W(), expected[name] @ D, atol=atol)


@pytest.mark.parametrize("negative", [0, 1, 4, 5])
def test_negative_signs_decide_the_determinant_and_bring_the_eigenvalue_minus_one(
    negative, tolerance
):
    W = np.asarray(build("cayley", 2, 5, negative=negative).W(), np.float64)
    tol = tolerance(1e-13, 1e-5)
    assert abs(np.linalg.det(W) - (-1) ** negative) < tol
    nearest = np.abs(np.linalg.eigvals(W) + 1).min()
    if negative == 0:
        assert nearest > 0.1
    if negative % 2 == 1:
        assert nearest < 10 * tol


def test_turns_begin_within_the_angles_of_their_papers():
    def angle(cell):
        W = cell.W()
        return jnp.arctan2(W[::2, 1::2], W[::2, ::2]).diagonal()

    # exp [[0, s], [-s, 0]] turns by s; (I + A)^-1 (I - A) with s = tan(t / 2) by -t.
    assert_uniform(drawn("expm", angle), -np.pi, np.pi)
    assert_uniform(-drawn("cayley", angle), 0, np.pi / 2)
    W = np.asarray(build("expm", 2, 5).W())
    np.testing.assert_allclose(W[4], np.eye(5)[4], atol=1e-6)  # odd: one stands still
    for name in ("cayley", "expm"):
        assert_uniform(drawn(name, lambda c: c.b[...]), -0.01, 0.01)


@functools.cache
def modrelu_run(name):
    cell = build(name, 2, 4)
    bias = np.array([-0.6, 0.3, 0.0, -0.2])
    set_to(cell.b, bias)
    inputs = cell.random_inputs(key(3), 8)
    carry = jnp.array([0.0, 0.5, 0, 1.0])
    return (
        cell,
        inputs,
        vgjax.rollout(cell, carry, inputs),
        vgjax.state_jacobians(cell, carry, inputs),
    )


@pytest.mark.parametrize("name", ["cayley", "expm"])
def test_an_orthogonal_cell_is_modrelu_of_an_affine_map(name, tolerance):
    cell, inputs, found, jacobians = modrelu_run(name)
    W, U, b = (np.asarray(a, np.float64) for a in (cell.W(), cell.U[...], cell.b[...]))
    h, tol = np.asarray(found.states[0], np.float64), tolerance(1e-13, 1e-4)
    off = 0
    for t, x in enumerate(np.asarray(inputs, np.float64)):
        z = W @ h + U @ x
        on = np.abs(z) + b > 0
        h = np.where(on, np.sign(z) * (np.abs(z) + b), 0)
        np.testing.assert_allclose(found.states[t + 1], h, rtol=tol, atol=tol)
        np.testing.assert_allclose(jacobians[t], on[:, None] * W, rtol=tol, atol=tol)
        sigma = np.linalg.svd(jacobians[t], compute_uv=False)
        np.testing.assert_allclose(sigma, -np.sort(-on.astype(float)), atol=tol)
        off += (~on).sum()
    assert 0 < off < 32


def test_modrelu_at_zero_lets_a_change_through_where_its_bias_is_positive():
    cell = build("expm", 2, 4)
    set_to(cell.b, [0.5, -0.5, 0.5, -0.5])
    J = vgjax.state_jacobians(cell, jnp.zeros(4), jnp.zeros((8, 2)))[0]
    on = np.array([[1], [0], [1], [0]])
    np.testing.assert_allclose(J, on * np.asarray(cell.W()), rtol=1e-6)


# The linear recurrent unit.


@pytest.fixture(scope="module")
def lru():
    return numpy_cells.scramble(build("lru", 2, 4, r_min=0.2, r_max=0.9), 1)


def test_an_lru_is_a_complex_diagonal_recurrence(lru, tolerance):
    inputs = lru.random_inputs(key(2), 6)
    carry = jnp.array([[0.5, 1, -1, 2], [2, 0, 0.3, 1]], inputs.dtype)
    found = vgjax.rollout(lru, carry, inputs)
    J = vgjax.state_jacobians(lru, carry, inputs)
    p, s, tol = numpy_cells.parameters(lru), carry.ravel(), tolerance(1e-13, 1e-5)
    lam = np.diag(np.exp(-np.exp(p["log_nu"]) + 1j * np.exp(p["log_theta"])))
    blocks = np.block([[lam.real, -lam.imag], [lam.imag, lam.real]])
    s = np.asarray(s, np.float64)
    for t, x in enumerate(np.asarray(inputs, np.float64)):
        s, y = numpy_cells.lru(p, s, x, t)
        np.testing.assert_allclose(found.states[t + 1], s, rtol=tol, atol=tol)
        np.testing.assert_allclose(found.outputs[t], y, rtol=tol, atol=tol)
        np.testing.assert_allclose(J[t], blocks, rtol=tol, atol=tol)


def test_an_lru_has_the_powers_of_its_radii_for_singular_values(lru, tolerance):
    inputs = lru.random_inputs(key(2), 6)
    log_radius = -np.exp(np.asarray(lru.log_nu[...], np.float64))
    assert np.ptp(log_radius) > 0.1
    Phi = vgjax.propagator(lru, lru.initialize_carry(), inputs)
    found = np.log(np.linalg.svd(np.asarray(Phi, np.float64), compute_uv=False))
    twice = -np.sort(-np.repeat(6 * log_radius, 2))
    np.testing.assert_allclose(found, twice, rtol=tolerance(1e-12, 1e-4))


@pytest.mark.parametrize(
    ("low", "high", "mean"), [(0.0, 1.0, -0.5), (0.9, 0.999, -0.0513666557655406)]
)
def test_an_lru_begins_evenly_in_its_ring(low, high, mean):
    given = {"r_min": low, "r_max": high, "max_phase": 0.3}
    nu, theta, gamma = drawn(
        "lru",
        lambda c: jnp.stack([c.log_nu[...], c.log_theta[...], c.log_gamma[...]]),
        4000,
        **given,
    )
    radius = np.exp(-np.exp(nu))
    assert_uniform(radius**2, low**2, high**2)
    assert_mean(np.log(radius), mean)
    assert_uniform(np.exp(theta), 0, 0.3)
    # Near the circle 1 - |lambda|^2 has lost the digits that log(nu) still has.
    expected = np.sqrt(-np.expm1(-2 * np.exp(nu)))
    np.testing.assert_allclose(np.exp(gamma), expected, rtol=1e-4)


@pytest.mark.float64
def test_an_lru_normalises_by_the_root_of_one_minus_its_radius_squared():
    cell = build("lru", 2, 4)
    radius = np.exp(-np.exp(np.asarray(cell.log_nu[...])))
    gamma = np.exp(np.asarray(cell.log_gamma[...]))
    np.testing.assert_allclose(gamma, np.sqrt(1 - radius**2), rtol=1e-12)
    assert (radius > 0.9).all()
    assert (radius < 0.999).all()


def test_an_lru_draws_its_projections_as_its_paper_does():
    # Orvieto et al. (2023), appendix A: B / sqrt(2 D), C / sqrt(F), both parts.
    assert_normal(drawn("lru", lambda c: c.B[...]), (2 * 2) ** -0.5)
    assert_normal(drawn("lru", lambda c: c.C[...]), 400**-0.5)


def test_an_impossible_ring_is_refused_by_name():
    for given in ({"r_min": 0.5, "r_max": 0.5}, {"r_max": 1.1}, {"r_min": -0.1}):
        with pytest.raises(ValueError, match="`r_m.*` must be (above|a radius)"):
            build("lru", 2, 3, **given)


# Attention.


@pytest.fixture(scope="module")
def attention():
    cell = numpy_cells.scramble(build("attention", 2, 4, window=3, heads=2), 1)
    return cell, cell.random_inputs(key(2), 5)


def test_attention_looks_at_the_last_keys_and_values(attention, tolerance):
    cell, inputs = attention
    found = vgjax.rollout(cell, cell.initialize_carry(), inputs)
    outputs, K, V = numpy_cells.attention(
        numpy_cells.parameters(cell), np.asarray(inputs, np.float64), 3, 2
    )
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(found.outputs, outputs, rtol=tol, atol=tol)
    cache = np.concatenate([K[4:1:-1].ravel(), V[4:1:-1].ravel()])
    np.testing.assert_allclose(found.states[-1], cache, rtol=tol, atol=tol)
    assert found.carry[2] == 5
    # At first there is one key, whatever the empty cache holds.
    assert np.abs(outputs[0] - cell.W_O[...] @ V[0]).max() < tol
    full = (jnp.ones((3, 4)), jnp.ones((3, 4)), jnp.zeros((), jnp.int32))
    other = vgjax.rollout(cell, full, inputs)
    np.testing.assert_allclose(other.outputs, outputs, rtol=tol, atol=tol)


def test_attention_only_moves_its_cache_one_place_on(attention):
    cell, inputs = attention
    J = vgjax.state_jacobians(cell, cell.initialize_carry(), inputs)
    shift = np.kron(np.eye(2), np.kron(np.eye(3, k=-1), np.eye(4)))
    np.testing.assert_array_equal(J, np.broadcast_to(shift, (5, 24, 24)))
    sigma = np.linalg.svd(J[0], compute_uv=False)
    np.testing.assert_array_equal(np.sort(sigma), [0] * 8 + [1] * 16)


@pytest.mark.slow
def test_attention_remembers_exactly_until_the_window_ends(attention):
    cell, inputs = attention
    found = vgjax.jacobian_spectrum(cell, cell.initialize_carry(), inputs)
    values = np.asarray(found.log_singular_values)
    np.testing.assert_array_equal((values == -np.inf).sum(1), [8, 16, 24, 24, 24])
    np.testing.assert_array_equal(values[values > -np.inf], np.zeros(24))


def test_matrices_of_attention_have_variance_one_over_their_fan_in():
    cell = build("attention", 2, 400)
    for W in (cell.W_Q, cell.W_K, cell.W_V):
        assert_normal(W[...], 2**-0.5)
    assert_normal(cell.W_O[...], 400**-0.5)
