"""Gates and normalisation: against Flax, and where paper and pencil say it.

Their equations are held to NumPy in test_zoo_equations.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_cells
import pytest
from flax import linen, nnx
from numpy_cells import assert_mean, assert_normal, assert_uniform, set_to

import vgjax
from vgjax import cells, steps


def key(seed):
    return jax.random.key(seed)


def build(name, inputs, features, **options):
    return cells.build(name, inputs, features, key=key(1), **options)


def normal(seed, *shape):
    return jax.random.normal(key(seed), shape)


# Against Flax: kernels are the transposes of our matrices.


def flax_gru(cell):
    names = [cell.r, cell.z, cell.n]
    flax = nnx.GRUCell(2, 4, param_dtype=cell.dtype, rngs=nnx.Rngs(0))
    set_to(flax.dense_i.kernel, jnp.concatenate([a.U[...] for a in names]).T)
    set_to(flax.dense_i.bias, jnp.concatenate([a.b[...] for a in names]))
    set_to(flax.dense_h.kernel, jnp.concatenate([a.W[...] for a in names]).T)
    set_to(cell.c, np.zeros(4))  # which nnx does not have, but linen does
    return flax


def flax_lstm(cell):
    flax = nnx.LSTMCell(2, 4, param_dtype=cell.dtype, rngs=nnx.Rngs(0))
    for name in "ifgo":
        ours = getattr(cell, name)
        set_to(getattr(flax, "if_" if name == "f" else f"i{name}").kernel, ours.U.T)
        set_to(getattr(flax, f"h{name}").kernel, ours.W.T)
        set_to(getattr(flax, f"h{name}").bias, ours.b[...])
    return flax


def linen_params(cell, gates):
    params = {}
    for name in gates:
        ours = getattr(cell, name)
        params[f"i{name}"] = {"kernel": ours.U.T, "bias": ours.b[...]}
        params[f"h{name}"] = {"kernel": ours.W.T}
    params["hn"]["bias"] = cell.c[...]
    return {"params": params}


def linen_gru(cell):
    module = linen.GRUCell(4, dtype=cell.dtype, param_dtype=cell.dtype)
    return steps.from_linen(module, linen_params(cell, "rzn"))


def linen_mgu(cell):
    module = linen.MGUCell(4, dtype=cell.dtype, param_dtype=cell.dtype)
    return steps.from_linen(module, linen_params(cell, "fn"))


@pytest.mark.parametrize(
    ("name", "flax"),
    [("gru", flax_gru), ("gru", linen_gru), ("mgu", linen_mgu), ("lstm", flax_lstm)],
)
def test_gates_are_those_of_flax_with_the_same_weights(name, flax, tolerance):
    cell = numpy_cells.scramble(build(name, 2, 4), 1)
    flax = flax(cell)
    carry = jax.tree.map(lambda a: normal(2, *a.shape), cell.initialize_carry())
    inputs, tol = normal(3, 3, 2), tolerance(1e-12, 1e-5)
    J = vgjax.state_jacobians(cell, carry, inputs)
    expected = vgjax.state_jacobians(flax, carry, inputs)
    np.testing.assert_allclose(J, expected, rtol=tol, atol=tol)
    found, expected = cell(carry, inputs[0]), flax(carry, inputs[0])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


BIASES = {"gru": {}, "mgu": {"f": 1}, "lstm": {"f": 1}, "minimal_rnn": {"u": 0}}


@pytest.mark.parametrize("name", BIASES)
def test_gates_begin_orthogonal_in_w_and_lecun_in_u(name, tolerance):
    cell = build(name, 2, 200)
    for letter in {"gru": "rzn", "mgu": "fn", "lstm": "ifgo", "minimal_rnn": "u"}[name]:
        a = getattr(cell, letter)
        np.testing.assert_allclose(
            a.W @ a.W.T, np.eye(200), atol=tolerance(1e-13, 1e-4)
        )
        fan_in = 200 if name == "minimal_rnn" else 2
        assert_normal(a.U[...], fan_in**-0.5)
        np.testing.assert_array_equal(a.b[...], BIASES[name].get(letter, 0))


@pytest.mark.parametrize("name", ["mgu", "lstm", "minimal_rnn", "layer_norm_lstm"])
def test_the_forget_bias_is_that_given(name):
    cell = build(name, 2, 3, forget_bias=2.5)
    if name == "layer_norm_lstm":
        found = cell.ifog.b[...]
        np.testing.assert_array_equal(found, np.repeat([0, 2.5, 0, 0], 3))
    else:
        found = cell.u.b[...] if name == "minimal_rnn" else cell.f.b[...]
        np.testing.assert_array_equal(found, [2.5] * 3)


# Zero weights: what is kept of a state in T steps.

T = 10_000


def without_recurrence(cell):
    """All recurrent matrices 0."""
    for path, param in nnx.iter_graph(cell):
        if path and path[-1] == "W":
            set_to(param, np.zeros(param.shape))
    return cell


@pytest.mark.float64
@pytest.mark.parametrize(
    ("bias", "rate"),
    [
        (0, -0.693147180559945),
        (1, -0.313261687518223),
        (2, -0.126928011042973),
        (5, -0.00671534848911794),
    ],
)
def test_an_lstm_without_recurrence_forgets_at_the_rate_of_its_bias(bias, rate):
    cell = without_recurrence(build("lstm", 1, 1, forget_bias=bias))
    found = vgjax.jacobian_spectrum(
        cell, cell.initialize_carry(), jnp.zeros((T, 1)), every=T
    )
    # Phi = [[f^T, 0], [o f^T, 0]] with o = 1/2: c by c, and h, which follows it.
    by_c, by_h = found.log_singular_values[0]
    np.testing.assert_allclose(by_c - np.log(1.25) / 2, T * rate, rtol=1e-12)
    assert by_h == -np.inf


@pytest.mark.float64
def test_a_gru_without_recurrence_halves_its_state_at_every_step():
    cell = without_recurrence(build("gru", 1, 2))
    found = vgjax.jacobian_spectrum(
        cell, cell.initialize_carry(), jnp.zeros((T, 1)), every=T
    )
    expected = np.full((1, 2), T * np.log(0.5))
    np.testing.assert_allclose(found.log_singular_values, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("Tmax", "mean"), [(100, -0.0429985619833), (1000, -0.00653402880873)]
)
def test_chrono_biases_give_memories_of_up_to_tmax_steps(Tmax, mean):
    cell = build("chrono_lstm", 2, 500, Tmax=Tmax)
    b = np.asarray(cell.f.b[...], np.float64)
    assert_uniform(np.exp(b), 1, Tmax - 1)
    np.testing.assert_array_equal(cell.i.b[...], -cell.f.b[...])
    np.testing.assert_array_equal(cell.g.b[...], np.zeros(500))
    np.testing.assert_array_equal(cell.o.b[...], np.zeros(500))
    assert_mean(-np.log1p(np.exp(-b)), mean)
    if Tmax == 100:
        with pytest.raises(ValueError, match="`Tmax` must be at least 3 steps"):
            build("chrono_lstm", 2, 3, Tmax=2)


# Layer normalisation.


def test_layer_normalisation_does_not_see_the_scale_of_its_weights(tolerance):
    cell = numpy_cells.scramble(build("layer_norm_rnn", 2, 4), 1)
    h, x = normal(2, 4), normal(3, 2)
    results = []
    for scale in (1000.0, 7.0):
        set_to(cell.W, cell.W[...] * scale)
        set_to(cell.U, cell.U[...] * scale)
        results.append(cell(h, x)[0])
    np.testing.assert_allclose(*results, rtol=tolerance(1e-9, 1e-4))
    set_to(cell.norm.alpha, cell.norm.alpha[...] * 7)
    assert np.abs(cell(h, x)[0] - results[0]).max() > 0.01


# Batch normalisation.


def statistics(*z):
    """Mean and variance of each batch, averaged over the batches."""
    return np.mean([[a.mean(0), a.var(0)] for a in z], axis=0)


@pytest.fixture(scope="module", params=["batch_norm_rnn", "batch_norm_lstm"])
def frozen(request):
    """Name, a cell, a run of it, and the cell that is frozen on this run."""
    cell = numpy_cells.scramble(build(request.param, 2, 3, batch=4, gain=0.7), 1)
    carry = jax.tree.map(lambda a: normal(2, *a.shape), cell.initialize_carry())
    inputs = normal(3, 5, 4, 2)
    return request.param, cell, (carry, inputs), cell.freeze(carry, inputs)


def test_frozen_statistics_are_those_of_the_run_on_average(frozen, tolerance):
    name, cell, (carry, inputs), found = frozen
    p = numpy_cells.parameters(cell)
    step = getattr(numpy_cells, name)(4)
    s = np.concatenate([np.ravel(a) for a in jax.tree.leaves(carry)]).astype(float)
    x = np.asarray(inputs, np.float64)
    states = [s]
    for t in range(5):
        states.append(step(p, states[-1], x[t], t)[0])
    states = np.array(states)
    h = states[:-1, -12:].reshape(5, 4, 3)
    affine = p["a" if name == "batch_norm_rnn" else "ifog"]
    expected = {
        "h": statistics(*(h @ affine["W"].T)),
        "x": statistics(*(x @ affine["U"].T)),
    }
    if name == "batch_norm_lstm":
        expected["c"] = statistics(*states[1:, :12].reshape(5, 4, 3))
    for which, value in expected.items():
        np.testing.assert_allclose(
            found.norms[which].statistics[...],
            value,
            rtol=tolerance(1e-12, 1e-4),
            atol=tolerance(1e-13, 1e-5),
        )
    assert cell.batch == 4  # which it was before, and still is
    assert cell.norms["h"].statistics.get_value() is None


def test_a_frozen_cell_takes_the_steps_of_one_member(frozen, tolerance):
    name, _, _, cell = frozen
    p = numpy_cells.parameters(cell)
    given = {which: norm.pop("statistics") for which, norm in p["norms"].items()}
    step = getattr(numpy_cells, name)(1, frozen=given)
    carry = jax.tree.map(lambda a: normal(4, *a.shape), cell.initialize_carry())
    inputs = cell.random_inputs(key(5), 3)
    assert inputs.shape == (3, 2)
    found = vgjax.rollout(cell, carry, inputs)
    J = vgjax.state_jacobians(cell, carry, inputs)
    states, outputs, jacobians = numpy_cells.run(
        step,
        p,
        np.asarray(found.states[0], np.float64),
        np.asarray(inputs, np.float64),
    )
    tol = tolerance(1e-12, 1e-4)
    np.testing.assert_allclose(found.states, states, rtol=tol, atol=tol)
    np.testing.assert_allclose(found.outputs, outputs, rtol=tol, atol=tol)
    np.testing.assert_allclose(J, jacobians, rtol=tol, atol=tol)
    if name == "batch_norm_rnn":
        scale = p["norms"]["h"]["gamma"] / np.sqrt(given["h"][1] + 1e-5)
        for J_t, h in zip(J, states[1:], strict=True):
            expected = np.diag((1 - h**2) * scale) @ p["a"]["W"]
            np.testing.assert_allclose(J_t, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize("name", ["batch_norm_rnn", "batch_norm_lstm"])
def test_a_cell_built_frozen_has_statistics_of_a_run_on_noise(name, dtype):
    cell = build(f"frozen_{name}", 2, 3)
    (x,) = (np.asarray(cell.norms["x"].statistics[...]),)
    U = np.asarray((cell.a if name == "batch_norm_rnn" else cell.ifog).U[...])
    # U x has mean 0 and variance |U|^2, here from 64 batches of 64.
    assert (np.abs(x[0]) < 6 * np.linalg.norm(U, axis=1) / 64).all()
    variance = (U**2).sum(1) * 63 / 64
    assert (np.abs(x[1] - variance) < 6 * variance * np.sqrt(2) / 64).all()
    assert x.dtype == dtype
    assert (np.asarray(cell.norms["h"].statistics[...][1]) > 0).all()
    assert cell.random_inputs(key(2), 3).shape == (3, 2)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(0.1, 0.980670), (0.3, 0.861032), (0.5, 0.71738), (1, 0.464402)],
)
def test_the_gain_decides_how_much_tanh_lets_through(gain, expected):
    batch = 40_000
    cell = build("batch_norm_rnn", 2, 2, batch=batch, gain=gain)
    set_to(cell.norms["x"].gamma, np.zeros(2))
    h = cell(normal(2, batch, 2), jnp.ones((batch, 2)))[0]
    squares = (1 - np.asarray(h, np.float64) ** 2) ** 2
    # Of each unit its own: two units of one batch are independent, being orthogonal.
    assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(2 * batch)
