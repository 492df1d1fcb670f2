"""What cells of one matrix or many time scales do where paper and pencil say it; depth.

Their equations are held to NumPy in test_zoo_equations.py.
"""

import jax.numpy as jnp
import numpy as np
import numpy_cells
import pytest
import scipy.special
from flax import nnx
from numpy_cells import assert_normal, assert_uniform, set_to
from support.zoo import build, drawn, key

import vgjax

# One matrix.


def test_an_irnn_begins_as_the_identity_with_small_inputs(dtype):
    cell = build("irnn", 2, 5)
    np.testing.assert_array_equal(cell.a.W[...], np.eye(5))
    np.testing.assert_array_equal(cell.a.b[...], np.zeros(5))
    assert cell.a.W[...].dtype == dtype
    assert_normal(drawn("irnn", lambda c: c.a.U[...]), 0.001)
    relu = cell(jnp.array([-1.0, 2, 3, 4, 5]), jnp.zeros(2))[0]
    np.testing.assert_array_equal(relu, [0, 2, 3, 4, 5])


def test_a_smart_tanh_has_fifteen_nonzeros_a_row_and_radius_095(tolerance):
    cell = build("smart_tanh", 2, 400)
    W = np.asarray(cell.a.W[...], np.float64)
    assert ((W != 0).sum(1) == 15).all()
    radius = np.abs(np.linalg.eigvals(W)).max()
    assert abs(radius - 0.95) < tolerance(1e-13, 1e-5)
    assert_normal(cell.a.U[...], 0.01)
    np.testing.assert_array_equal(build("smart_tanh", 2, 4).a.W[...] != 0, True)


def test_inputs_come_in_with_variance_one_over_their_number():
    assert_normal(drawn("tanh", lambda c: c.a.U[...]), 2**-0.5)
    assert_normal(drawn("tanh", lambda c: c.a.U[...], input_std=3.0), 3)


def test_gain_scales_each_kind_of_recurrent_matrix(tolerance):
    W = drawn("tanh", lambda c: c.a.W[...], gain=1.5)
    assert_normal(W, 1.5 / 400**0.5)
    options = {"recurrent": "sparse", "nonzeros": 2, "gain": 3.0}
    W = drawn("tanh", lambda c: c.a.W[...], **options)
    assert ((W != 0).sum(1) == 2).all()
    assert_normal(W[W != 0], 3 / 2**0.5)
    Q = np.asarray(build("relu", 2, 4, recurrent="orthogonal", gain=2.0).a.W[...])
    np.testing.assert_allclose(Q @ Q.T, 4 * np.eye(4), atol=tolerance(1e-14, 1e-5))
    W = build("relu", 2, 4, recurrent="identity", gain=2.0).a.W[...]
    np.testing.assert_array_equal(W, 2 * np.eye(4))


@pytest.mark.parametrize("recurrent", ["gaussian", "orthogonal", "identity", "sparse"])
def test_a_spectral_radius_wins_over_the_gain(recurrent, tolerance):
    options = {"recurrent": recurrent, "gain": 3.0, "spectral_radius": 0.7}
    W = np.asarray(build("tanh", 2, 4, **options).a.W[...], np.float64)
    radius = np.abs(np.linalg.eigvals(W)).max()
    assert abs(radius - 0.7) < tolerance(1e-14, 1e-5)


@pytest.mark.parametrize("name", ["residual", "leaky", "skip", "dilated"])
def test_cells_of_one_matrix_pass_on_the_options_of_it(name, tolerance):
    given = {"recurrent": "orthogonal", "gain": 2.0}
    cell = build(name, 2, 4, **given)
    affine = cell.layers[1] if name == "dilated" else cell.a
    # Skip has two matrices, each 2 / sqrt(2) times an orthogonal one.
    for W in [affine.W[...], *([cell.V[...]] if name == "skip" else [])]:
        scale = 2.0 if name == "skip" else 4.0
        atol = tolerance(1e-14, 1e-5)
        np.testing.assert_allclose(W @ W.T, scale * np.eye(4), atol=atol)
    if name == "skip":
        assert np.abs(affine.W[...] - cell.V[...]).max() > 0.1


def test_a_linear_orthogonal_network_neither_grows_nor_shrinks(tolerance):
    cell = build("linear", 2, 4, recurrent="orthogonal")
    inputs = cell.random_inputs(key(2), 100)
    Phi = vgjax.propagator(cell, cell.initialize_carry(), inputs)
    sigma = np.linalg.svd(Phi, compute_uv=False)
    # A hundred products, each of them off by a few eps.
    np.testing.assert_allclose(sigma, np.ones(4), rtol=tolerance(1e-13, 1e-4))


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_an_antisymmetric_step_at_rest_turns_and_dampens(gamma, tolerance):
    cell = build("antisymmetric", 2, 4, eps=0.2, gamma=gamma)
    J = vgjax.state_jacobians(cell, jnp.zeros(4), jnp.zeros((1, 2)))[0]
    W = np.asarray(cell.W[...], np.float64)
    omega = np.linalg.eigvals(W - W.T).imag
    expected = np.abs(1 - 0.2 * gamma + 0.2j * omega)
    found = np.linalg.svd(J, compute_uv=False)
    np.testing.assert_allclose(
        np.sort(found), np.sort(expected), rtol=tolerance(1e-13, 1e-5)
    )
    if gamma == 0:
        assert found.min() > 1


# Time scales.


@pytest.mark.float64
def test_uncoupled_leaky_units_forget_at_the_rates_of_their_time_constants():
    cell = build("leaky", 2, 4, log_uniform=(2.0, 500.0))
    set_to(cell.a.W, np.zeros((4, 4)))
    inputs = cell.random_inputs(key(2), 1000)
    J = np.asarray(vgjax.state_jacobians(cell, cell.initialize_carry(), inputs))
    kept = np.diagonal(J, axis1=1, axis2=2)
    np.testing.assert_array_equal(J, kept[:, :, None] * np.eye(4))
    expected = 1000 * np.log1p(-1 / np.asarray(cell.tau[...]))
    np.testing.assert_allclose(np.log(kept).sum(0), expected, rtol=1e-12)


def test_time_constants_are_those_given():
    found = build("leaky", 2, 3, time_constants=20.0).tau[...]
    np.testing.assert_array_equal(found, [20, 20, 20])
    found = build("leaky", 2, 3, time_constants=[1.0, 2.0, 30.0]).tau[...]
    np.testing.assert_array_equal(found, [1, 2, 30])


def test_time_constants_are_drawn_evenly_in_their_logarithm(tolerance):
    default = drawn("leaky", lambda c: c.tau[...])
    assert default.min() >= 1
    assert default.max() <= 100 * (1 + tolerance(1e-14, 1e-6))
    assert_uniform(np.log(default), 0, np.log(100))
    given = drawn("leaky", lambda c: c.tau[...], log_uniform=(5.0, 20.0))
    assert_uniform(np.log(given), np.log(5), np.log(20))


@pytest.mark.parametrize(
    "options",
    [
        {"time_constants": 0.5},
        {"time_constants": [2.0, 3.0]},
        {"log_uniform": (0.5, 3.0)},
        {"log_uniform": (3.0, 2.0)},
        {"log_uniform": (1.0, 2.0), "time_constants": 2.0},
    ],
)
def test_time_constants_that_cannot_be_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        build("leaky", 2, 3, **options)


def test_a_time_constant_of_one_is_the_plain_network(tolerance):
    leaky = numpy_cells.scramble(build("leaky", 2, 3, time_constants=1.0), 1)
    tanh = build("tanh", 2, 3)
    nnx.update(tanh, nnx.state(leaky, nnx.Param))
    h, x = jnp.array([0.3, -2.0, 1.0]), jnp.array([0.5, -1.0])
    np.testing.assert_allclose(leaky(h, x)[0], tanh(h, x)[0], rtol=tolerance(0, 1e-6))


def test_a_skip_of_one_step_is_the_plain_network_of_both_matrices(tolerance):
    skip = numpy_cells.scramble(build("skip", 2, 3, delay=1), 1)
    tanh = build("tanh", 2, 3)
    nnx.update(tanh, nnx.state(skip.a, nnx.Param).__class__({"a": nnx.state(skip.a)}))
    set_to(tanh.a.W, skip.a.W[...] + skip.V[...])
    h, x = jnp.array([0.3, -2.0, 1.0]), jnp.array([0.5, -1.0])
    found = skip(h[None], x)[0]
    assert found.shape == (1, 3)
    rtol = tolerance(1e-14, 1e-5)
    np.testing.assert_allclose(found[0], tanh(h, x)[0], rtol=rtol)


def test_a_dilated_layer_reaches_d_steps_back_in_one_product_with_w(tolerance):
    cell = numpy_cells.scramble(build("dilated", 2, 2, dilations=(3,)), 1)
    inputs = cell.random_inputs(key(2), 3)
    Phi = np.asarray(vgjax.propagator(cell, cell.initialize_carry(), inputs))
    states = np.asarray(vgjax.rollout(cell, cell.initialize_carry(), inputs).states)
    # The newest of step 3 by the newest of step 0, which went by untouched until then;
    # those of steps 1 and 2 do not know it.
    p = numpy_cells.parameters(cell)["layers"][0]
    a = p["U"] @ np.asarray(inputs[2], np.float64) + p["b"]
    expected = np.diag(np.cosh(a) ** -2.0) @ p["W"]
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(Phi[:2, :2], expected, rtol=tol, atol=tol)
    np.testing.assert_array_equal(Phi[2:, :2], np.zeros((4, 2)))
    np.testing.assert_allclose(states[3, :2], np.tanh(a), rtol=tol, atol=tol)


def test_a_clockwork_has_a_block_upper_triangular_matrix_and_a_clock_beside_it():
    cell = build("clockwork", 2, 6, periods=(1, 2, 4))
    heard = np.kron(np.triu(np.ones((3, 3))), np.ones((2, 2))) > 0
    np.testing.assert_array_equal(np.asarray(cell.a.W[...]) != 0, heard)
    W = drawn("clockwork", lambda c: c.a.W[...], periods=(1, 4), gain=2.0)
    for first in (0, 200):
        assert_normal(W[first : first + 200, first:], 2 / (400 - first) ** 0.5)
    carry = cell.initialize_carry()
    found = vgjax.rollout(cell, carry, cell.random_inputs(key(2), 10))
    assert found.states.shape == (11, 6)
    assert found.carry[1] == 10
    moved = np.diff(found.states, axis=0)[:, ::2] != 0
    times = np.arange(10)[:, None]
    np.testing.assert_array_equal(moved, times % np.array([1, 2, 4]) == 0)


# Depth.


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("relu", "relu"),
        ("leaky_relu", "relu"),
        ("linear", "linear"),
        ("tanh", "linear"),
    ],
)
def test_layers_begin_at_the_gain_of_the_random_walk(activation, kind, tolerance):
    gains = {"linear": walk_gain_linear(4), "relu": walk_gain_relu(4)}
    given = {"activation": activation}
    found = build("shared_layers", 0, 4, **given).layer.W[...]
    unit = build("shared_layers", 0, 4, gain=1.0, **given).layer.W[...]
    rtol = tolerance(1e-12, 1e-5)
    np.testing.assert_allclose(found, gains[kind] * unit, rtol=rtol)
    for name in ("residual_layers", "batch_norm_layers", "layer_norm_layers"):
        W = build(f"shared_{name}", 0, 4, **given).layer.W[...]
        np.testing.assert_allclose(W, found, rtol=rtol)


def walk_gain_linear(N):
    return (N / 2) ** 0.5 * np.exp(-scipy.special.digamma(N / 2) / 2)


def walk_gain_relu(N):
    K = np.arange(1, N + 1)
    chance = scipy.special.comb(N, K) / (2**N - 1)
    return N**0.5 * np.exp(-chance @ (np.log(2) + scipy.special.digamma(K / 2)) / 2)


def test_each_layer_has_weights_of_its_own_of_variance_gain_squared_over_width():
    cell = build("layers", 0, 100, gain=3.0)
    W = np.asarray(cell.random_inputs(key(2), 3).W[...])
    assert W.shape == (3, 100, 100)
    assert_normal(W, 3 / 100**0.5)
    assert (W[0] != W[1]).all()


def test_a_state_over_depth_is_a_vector_a_batch_or_tokens():
    for name, options, shape in [
        ("layers", {}, (4,)),
        ("batch_norm_layers", {}, (8, 4)),
        ("batch_norm_layers", {"batch": 3}, (3, 4)),
        ("transformer", {}, (4, 4)),
        ("transformer", {"tokens": 1}, (1, 4)),
    ]:
        cell = build(name, 0, 4, **options)
        assert cell.initialize_carry(rngs=key(1)).shape == shape
        assert cell.initialize_carry(rngs=nnx.Rngs(1)).shape == shape
    wide = build("layers", 0, 1000).initialize_carry(rngs=key(1))
    assert_normal(wide, 1)


@pytest.mark.parametrize(
    ("name", "features", "options", "sentence"),
    [
        ("tanh", 3, {"recurrent": "dense"}, "`recurrent` must be one of 'gaussian'"),
        ("tanh", 3, {"nonzeros": 2}, "`nonzeros` must come with recurrent='sparse'"),
        ("tanh", 3, {"spectral_radius": 0.0}, "`spectral_radius` must be a number abo"),
        ("residual", 3, {"eps": -1.0}, "`eps` must be a number above 0"),
        ("antisymmetric", 3, {"gamma": -1.0}, "`gamma` must be"),
        ("skip", 3, {"delay": 0}, "`delay` must be at least 1"),
        ("dilated", 3, {"dilations": (1, 0)}, r"`dilations\[1\]` must be at least 1"),
        ("dilated", 3, {"dilations": ()}, "`dilations` must be a sequence"),
        ("clockwork", 4, {"periods": (2, 1)}, "`periods` must be ascending"),
        ("clockwork", 3, {"periods": (1, 2)}, "`features` must be a multiple of the 2"),
        ("cayley", 3, {"negative": 4}, "`negative` must be at least 0 and at most 3"),
        ("lru", 3, {"max_phase": 0.0}, "`max_phase` must be a number above 0"),
        ("attention", 3, {"window": 0}, "`window` must be at least 1"),
        ("attention", 3, {"heads": 2}, "`features` must be a multiple of the 2 heads"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(name, features, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(name, 2, features, **options)
