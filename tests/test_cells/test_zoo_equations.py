"""Every cell of the zoo against its equations in NumPy: values and Jacobians.

All weights are first given noise, so that no term of an equation is zero. Jacobians of
the NumPy steps are taken by complex steps, which are exact; those that a docstring
writes out are held to what it says.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpy_cells
import pytest

import vgjax

TAU = np.array([1.0, 2.5, 7.0, 100.0])
ACTIVATIONS = tuple(numpy_cells.PHI)
relu = numpy_cells.relu


def gelu_block(causal):
    return numpy_cells.transformer_block(3, 2, causal)


# name in this file: (name in the zoo, options, step in NumPy). 4 features, 2 inputs.
CELLS = {
    **{
        name: (name, {}, numpy_cells.recurrent(phi))
        for name, phi in numpy_cells.PHI.items()
    },
    "residual": ("residual", {"eps": 0.3}, numpy_cells.residual(0.3)),
    "antisymmetric": (
        "antisymmetric",
        {"eps": 0.3, "gamma": 0.2},
        numpy_cells.antisymmetric(0.3, 0.2),
    ),
    "leaky": ("leaky", {"time_constants": TAU}, numpy_cells.leaky(TAU)),
    "skip": ("skip", {"delay": 3}, numpy_cells.skip(3)),
    "dilated": ("dilated", {"dilations": (1, 3)}, numpy_cells.dilated((1, 3), 4)),
    "clockwork": (
        "clockwork",
        {"periods": (2, 5)},
        numpy_cells.clockwork((2, 5), 4),
    ),
    "gru": ("gru", {}, numpy_cells.gru),
    "mgu": ("mgu", {}, numpy_cells.mgu),
    "minimal_rnn": ("minimal_rnn", {"forget_bias": 1.0}, numpy_cells.minimal_rnn),
    "lstm": ("lstm", {}, numpy_cells.lstm),
    "layer_norm_rnn": ("layer_norm_rnn", {}, numpy_cells.layer_norm_rnn),
    "layer_norm_gru": ("layer_norm_gru", {}, numpy_cells.layer_norm_gru),
    "layer_norm_lstm": ("layer_norm_lstm", {}, numpy_cells.layer_norm_lstm),
    "batch_norm_rnn": (
        "batch_norm_rnn",
        {"batch": 3, "gain": 0.8},
        numpy_cells.batch_norm_rnn(3),
    ),
    "batch_norm_lstm": (
        "batch_norm_lstm",
        {"batch": 3, "gain": 0.8},
        numpy_cells.batch_norm_lstm(3),
    ),
    "layers": ("layers", {"activation": "tanh"}, numpy_cells.dense(np.tanh)),
    "residual_layers": (
        "residual_layers",
        {"eps": 0.3},
        numpy_cells.dense(relu, 0.3),
    ),
    "batch_norm_layers": (
        "batch_norm_layers",
        {"batch": 3},
        numpy_cells.batch_norm_dense(relu, 3),
    ),
    "layer_norm_layers": (
        "layer_norm_layers",
        {"activation": "sigmoid"},
        numpy_cells.layer_norm_dense(numpy_cells.sigmoid),
    ),
    "transformer": ("transformer", {"tokens": 3}, gelu_block(False)),
    "causal_transformer": (
        "transformer",
        {"tokens": 3, "causal": True},
        gelu_block(True),
    ),
    "shared_layers": ("shared_layers", {}, numpy_cells.dense(relu)),
    "shared_transformer": (
        "shared_transformer",
        {"tokens": 3},
        gelu_block(False),
    ),
}


def key(seed):
    return jax.random.key(seed)


def filled(carry, seed):
    """The carry with normal numbers in the place of its zeros, clocks as they are."""
    rng = np.random.default_rng(seed)

    def fill(a):
        whole = jnp.issubdtype(a.dtype, jnp.integer)
        return a if whole else jnp.asarray(rng.standard_normal(a.shape), a.dtype)

    return jax.tree.map(fill, carry)


@functools.cache
def measured(case, T=5):
    """What vgjax finds and what NumPy expects."""
    name, options, step = CELLS[case]
    over_depth = name.endswith(("layers", "transformer"))
    cell = vgjax.cells.build(name, 0 if over_depth else 2, 4, key=key(1), **options)
    cell = numpy_cells.scramble(cell, 2)
    carry = filled(cell.initialize_carry(rngs=key(3)), 4)
    inputs, p = cell.random_inputs(key(5), T), numpy_cells.parameters(cell)
    length = None
    if inputs is None:
        length, xs = T, [p["layer"]] * T
    elif over_depth:
        inputs = numpy_cells.scramble(inputs, 6)
        stack = numpy_cells.parameters(inputs)
        xs = [jax.tree.map(lambda a, t=t: a[t], stack) for t in range(T)]
    else:
        xs = np.asarray(inputs, np.float64)
    J = vgjax.state_jacobians(cell, carry, inputs, length=length)
    found = stepped(cell, carry, inputs, T)
    states, outputs, jacobians = numpy_cells.run(step, p, found.states[0], xs)
    return types.SimpleNamespace(
        cell=cell,
        p=p,
        inputs=xs,
        carry=carry,
        found=found,
        J=np.asarray(J),
        states=states,
        outputs=outputs,
        jacobians=jacobians,
    )


def stepped(cell, carry, inputs, T):
    """States and outputs, one call of the cell at a time."""
    states, outputs = [state(carry)], []
    for t in range(T):
        carry, y = cell(carry, jax.tree.map(lambda a, t=t: a[t], inputs))
        states.append(state(carry))
        outputs.append(np.asarray(y))
    return types.SimpleNamespace(states=np.array(states), outputs=np.array(outputs))


def state(carry):
    """The floating numbers of a carry in one row."""
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(carry) if a.ndim]
    return np.concatenate([a.ravel() for a in leaves])


@pytest.fixture
def close(tolerance):
    # Some hundred operations on numbers of order one; in float32 the small variances
    # of a batch of three magnify their errors.
    tol = tolerance(1e-12, 2e-4)
    return functools.partial(np.testing.assert_allclose, rtol=tol, atol=tol)


@pytest.mark.parametrize("case", CELLS)
def test_a_cell_takes_the_steps_of_its_equations(case, close):
    m = measured(case)
    close(m.found.states, m.states)
    close(m.found.outputs, m.outputs)
    assert np.abs(np.diff(m.states, axis=0)).max() > 0.01


@pytest.mark.parametrize("case", CELLS)
def test_state_jacobians_are_the_derivatives_of_those_equations(case, close):
    m = measured(case)
    close(m.J, m.jacobians)
    assert np.abs(m.J - m.J.transpose(0, 2, 1)).max() > 0.01


# What the docstrings write out, from NumPy's states and parameters.


def pre_activations(m):
    a = m.p.get("a", m.p)
    return [
        a["W"] @ h + a["U"] @ x + a.get("b", 0)
        for h, x in zip(m.states, m.inputs, strict=False)
    ]


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_the_jacobian_of_one_matrix_is_the_slopes_times_it(case, close):
    m = measured(case)
    for J, a in zip(m.J, pre_activations(m), strict=True):
        close(J, np.diag(numpy_cells.SLOPES[case](a)) @ m.p["a"]["W"])


def test_slopes_of_relu_and_leaky_relu_differ_by_unit_in_this_file():
    for case in ("relu", "leaky_relu"):
        slopes = [numpy_cells.SLOPES[case](a) for a in pre_activations(measured(case))]
        assert len(np.unique(slopes)) == 2


def test_a_residual_path_adds_its_branch_to_the_identity(close):
    m = measured("residual")
    W = m.p["a"]["W"]
    for J, a in zip(m.J, pre_activations(m), strict=True):
        close(J, np.eye(4) + 0.3 * np.diag(np.cosh(a) ** -2) @ W)
        sigma = np.linalg.svd(J, compute_uv=False)
        assert np.abs(sigma - 1).max() <= 0.3 * np.linalg.norm(W, 2)


def test_an_antisymmetric_jacobian_is_what_its_docstring_says(close):
    m = measured("antisymmetric")
    M = m.p["W"] - m.p["W"].T - 0.2 * np.eye(4)
    for J, h, x in zip(m.J, m.states, m.inputs, strict=False):
        slopes = np.cosh(M @ h + m.p["V"] @ x + m.p["b"]) ** -2
        close(J, np.eye(4) + 0.3 * np.diag(slopes) @ M)


def test_a_leaky_jacobian_is_what_its_docstring_says(close):
    m = measured("leaky")
    for J, a in zip(m.J, pre_activations(m), strict=True):
        slopes = np.diag(np.cosh(a) ** -2 / TAU)
        close(J, np.diag(1 - 1 / TAU) + slopes @ m.p["a"]["W"])


def test_a_skip_jacobian_has_two_blocks_above_a_shift(close):
    m = measured("skip")
    for t in range(len(m.J)):
        newest, oldest = m.states[t][:4], m.states[t][-4:]
        a = m.p["a"]["W"] @ newest + m.p["V"] @ oldest
        S = np.diag(np.cosh(a + m.p["a"]["U"] @ m.inputs[t] + m.p["a"]["b"]) ** -2)
        top = np.hstack([S @ m.p["a"]["W"], np.zeros((4, 4)), S @ m.p["V"]])
        close(m.J[t], np.vstack([top, np.eye(12)[:8]]))


def test_clockwork_rows_are_those_of_the_identity_until_their_clock_ticks():
    m = measured("clockwork", T=10)
    waits = [[np.array_equal(J[i], np.eye(4)[i]) for i in (0, 1, 2, 3)] for J in m.J]
    times = np.arange(10)
    expected = np.stack([times % 2 > 0] * 2 + [times % 5 > 0] * 2, axis=1)
    np.testing.assert_array_equal(waits, expected)
    assert (m.J[:, 2:, :2] == 0).all()
    assert (m.J[0, :2, 2:] != 0).all()


def test_a_gru_jacobian_is_what_its_docstring_says(close):
    m = measured("gru")
    p, diag = m.p, np.diag
    for J, h, x in zip(m.J, m.states, m.inputs, strict=False):
        r = numpy_cells.sigmoid(numpy_cells.affine(p["r"], h, x))
        z = numpy_cells.sigmoid(numpy_cells.affine(p["z"], h, x))
        heard = p["n"]["W"] @ h + p["c"]
        n = np.tanh(p["n"]["U"] @ x + p["n"]["b"] + r * heard)
        reset = diag(r) @ p["n"]["W"] + diag(heard * r * (1 - r)) @ p["r"]["W"]
        by_z = diag((h - n) * z * (1 - z)) @ p["z"]["W"]
        close(J, diag(z) + by_z + diag((1 - z) * (1 - n**2)) @ reset)


def test_a_minimal_rnn_jacobian_is_what_its_docstring_says(close):
    m = measured("minimal_rnn")
    for J, h, x in zip(m.J, m.states, m.inputs, strict=False):
        z = np.tanh(m.p["W_x"] @ x + m.p["b_z"])
        u = numpy_cells.sigmoid(numpy_cells.affine(m.p["u"], h, z))
        close(J, np.diag(u) + np.diag((h - z) * u * (1 - u)) @ m.p["u"]["W"])


def test_an_lstm_passes_its_memory_through_the_forget_gate_alone(close):
    m = measured("lstm")
    for J, s, x in zip(m.J, m.states, m.inputs, strict=False):
        f = numpy_cells.sigmoid(numpy_cells.affine(m.p["f"], s[4:], x))
        close(J[:4, :4], np.diag(f))


@pytest.mark.parametrize("case", ["layer_norm_lstm", "batch_norm_lstm"])
def test_normalisation_leaves_the_path_of_the_memory_alone(case, close):
    m = measured(case)
    n = len(m.states[0]) // 2
    for J in m.J:
        close(J[:n, :n], np.diag(np.diag(J)[:n]))
        assert (np.diag(J)[:n] > 0).all()
        assert (np.diag(J)[:n] < 1).all()


def test_a_layer_norm_jacobian_is_what_its_docstring_says(close):
    m = measured("layer_norm_rnn")
    alpha, beta = m.p["norm"]["alpha"], m.p["norm"]["beta"]
    for J, a in zip(m.J, pre_activations(m), strict=True):
        sigma = np.sqrt(a.var() + 1e-5)
        hat = (a - a.mean()) / sigma
        slopes = np.cosh(alpha * hat + beta) ** -2 * alpha / sigma
        project = np.eye(4) - np.ones((4, 4)) / 4 - np.outer(hat, hat) / 4
        close(J, np.diag(slopes) @ project @ m.p["W"])


def test_batch_statistics_couple_members_as_the_docstring_says(close):
    m = measured("batch_norm_rnn")
    B, F, W = 3, 4, m.p["a"]["W"]
    gamma = m.p["norms"]["h"]["gamma"]
    for J, s, h in zip(m.J, m.states, m.states[1:], strict=False):
        z = s.reshape(B, F) @ W.T
        sigma = np.sqrt(z.var(0) + 1e-5)
        hat = (z - z.mean(0)) / sigma
        by_z = (np.eye(B) - 1 / B)[:, :, None] - hat[:, None] * hat[None] / B
        by_z = by_z * (gamma / sigma) * (1 - h.reshape(B, 1, F) ** 2)
        expected = np.einsum("mnk,kj->mknj", by_z, W)
        close(J, expected.reshape(B * F, B * F))
        assert np.abs(J[:F, F : 2 * F]).max() > 0.01


def test_a_causal_token_does_not_move_with_later_ones():
    J = measured("causal_transformer").J.reshape(-1, 3, 4, 3, 4)
    for i in range(3):
        for j in range(3):
            assert (J[:, i, :, j] == 0).all() == (j > i)
    J = measured("transformer").J.reshape(-1, 3, 4, 3, 4)
    assert (np.abs(J).max((2, 4)) > 1e-4).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_depth_jacobians_are_slopes_times_the_matrix_of_that_layer(activation, close):
    case = {"tanh": "layers", "relu": "shared_layers"}[activation]
    m = measured(case)
    slope = numpy_cells.SLOPES[activation]
    for J, h, p in zip(m.J, m.states, m.inputs, strict=False):
        close(J, np.diag(slope(p["W"] @ h + p["b"])) @ p["W"])


@pytest.mark.parametrize("name", ["layers", "transformer"])
def test_shared_layers_are_the_same_layer_repeated(name, close):
    shared = measured(f"shared_{name}")
    options = CELLS[f"shared_{name}"][1]
    cell = vgjax.cells.build(name, 0, 4, key=key(9), **options)
    copies = jax.tree.map(lambda a: jnp.stack([a] * 5), shared.cell.layer)
    found = stepped(cell, shared.carry, copies, 5)
    close(found.states, shared.found.states)


def test_a_layer_norm_gru_has_no_parameter_but_those_of_its_equations():
    # (z, r) = sigma(LN_1(W h) + LN_2(U x)): LN_1 and LN_2 have the only biases.
    p = measured("layer_norm_gru").p
    assert set(p) == {"W_zr", "U_zr", "W_n", "U_n", "norms"}
