"""State and input Jacobians against closed forms, differences and one another."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

import vgjax
from vgjax import steps
from vgjax.jacobians import input_jacobians, propagator, state_jacobian, state_jacobians

D, H = 2, 3


def make(Cell, dtype, seed=1):
    """A cell of H features on D inputs, all parameters drawn from N(0, 0.8^2)."""
    cell = Cell(D, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    flat, unravel = ravel_pytree(state)
    flat = 0.8 * np.random.default_rng(seed).standard_normal(flat.size)
    return nnx.merge(graph, unravel(jnp.asarray(flat, dtype)))


def parameters(cell):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(cell, nnx.Param)))


def drive(dtype, T=5, seed=2):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((T, D)), dtype)


def vectors(dtype, n, seed=3):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(H), dtype) for _ in range(n))


def test_tanh_cell_has_the_transposed_kernel_behind_its_slope(dtype, tolerance):
    cell, (h,), x = make(nnx.SimpleCell, dtype), vectors(dtype, 1), drive(dtype)
    P = parameters(cell)
    K = P["dense_h"]["kernel"]
    J, h = state_jacobians(cell, h, x), np.asarray(h)
    B = input_jacobians(cell, h, x)
    tol = tolerance(1e-13, 1e-5)
    for t in range(5):
        a = h @ K + x[t] @ P["dense_i"]["kernel"] + P["dense_i"]["bias"]
        h = np.tanh(a)
        slope = 1 - h**2
        np.testing.assert_allclose(J[t], np.diag(slope) @ K.T, atol=tol)
        assert np.abs(J[t] - np.diag(slope) @ K).max() > 0.1
        by_input = np.diag(slope) @ P["dense_i"]["kernel"].T
        np.testing.assert_allclose(B[t], by_input, atol=tol)
    assert J.shape == (5, H, H)
    assert B.shape == (5, H, D)


def gru(P, h, x):
    """Update and Jacobian of a GRU, by hand."""
    K = np.split(P["dense_h"]["kernel"], 3, axis=1)
    own = np.split(h @ P["dense_h"]["kernel"], 3)
    given = np.split(x @ P["dense_i"]["kernel"] + P["dense_i"]["bias"], 3)
    r, z = oracles.sigmoid(given[0] + own[0]), oracles.sigmoid(given[1] + own[1])
    n = np.tanh(given[2] + r * own[2])
    dr, dz = np.diag(r * (1 - r)) @ K[0].T, np.diag(z * (1 - z)) @ K[1].T
    dn = np.diag(1 - n**2) @ (np.diag(own[2]) @ dr + np.diag(r) @ K[2].T)
    J = np.diag(1 - z) @ dn + np.diag(h - n) @ dz + np.diag(z)
    return (1 - z) * n + z * h, J


def test_gru_has_the_jacobian_worked_out_by_hand(dtype, tolerance):
    cell, (h,), x = make(nnx.GRUCell, dtype), vectors(dtype, 1), drive(dtype)
    J, states = state_jacobians(cell, h, x), vgjax.rollout(cell, h, x).states
    h = np.asarray(h)
    for t in range(5):
        h, expected = gru(parameters(cell), h, np.asarray(x[t]))
        np.testing.assert_allclose(states[t + 1], h, atol=tolerance(1e-13, 1e-5))
        np.testing.assert_allclose(J[t], expected, atol=tolerance(1e-13, 1e-5))


def lstm(P, c, h, x):
    """Update of an LSTM and the four blocks of its Jacobian, by hand."""

    def gate(name, of):
        given = x @ P[{"f": "if_"}.get(name, "i" + name)]["kernel"]
        return of(given + h @ P["h" + name]["kernel"] + P["h" + name]["bias"])

    i, f, o = (gate(name, oracles.sigmoid) for name in "ifo")
    g = gate("g", np.tanh)
    K = {name: P["h" + name]["kernel"].T for name in "ifgo"}
    new = f * c + i * g
    slope = o * (1 - np.tanh(new) ** 2)
    c_by_c = np.diag(f)
    c_by_h = (
        np.diag(c * f * (1 - f)) @ K["f"]
        + np.diag(g * i * (1 - i)) @ K["i"]
        + np.diag(i * (1 - g**2)) @ K["g"]
    )
    h_by_c = np.diag(slope) @ c_by_c
    h_by_h = np.diag(np.tanh(new) * o * (1 - o)) @ K["o"] + np.diag(slope) @ c_by_h
    return new, o * np.tanh(new), np.block([[c_by_c, c_by_h], [h_by_c, h_by_h]])


def test_lstm_has_the_four_blocks_worked_out_by_hand(dtype, tolerance):
    cell, carry, x = make(nnx.LSTMCell, dtype), vectors(dtype, 2), drive(dtype)
    J, states = state_jacobians(cell, carry, x), vgjax.rollout(cell, carry, x).states
    c, h = (np.asarray(a) for a in carry)
    tol = tolerance(1e-13, 1e-5)
    for t in range(5):
        c, h, expected = lstm(parameters(cell), c, h, np.asarray(x[t]))
        np.testing.assert_allclose(states[t + 1], np.concatenate([c, h]), atol=tol)
        np.testing.assert_allclose(J[t], expected, atol=tol)
    one = state_jacobian(cell, carry, x[0])
    np.testing.assert_allclose(one, J[0], atol=tol)


@pytest.mark.float64
def test_error_of_a_central_difference_falls_as_the_square_of_its_step():
    cell, carry, x = make(nnx.LSTMCell, float), vectors(float, 2), drive(float, 3)
    state, unravel = ravel_pytree(carry)

    @jax.jit
    def last(state):
        carry = unravel(state)
        for t in range(3):
            carry, _ = cell(carry, x[t])
        return ravel_pytree(carry)[0]

    h = np.array([0.04, 0.02, 0.01, 0.005])
    J = propagator(cell, carry, x)
    error = [
        np.abs(oracles.central_difference(last, np.asarray(state), step) - J).max()
        for step in h
    ]
    slopes = np.diff(np.log(error)) / np.diff(np.log(h))
    np.testing.assert_allclose(slopes, 2, atol=0.05)


def product(jacobians):
    """Newest on the left."""
    result = np.eye(jacobians.shape[-1])
    for J in np.asarray(jacobians):
        result = J @ result
    return result


def test_propagator_is_the_product_with_the_newest_jacobian_on_the_left(
    dtype, tolerance
):
    cell, (h,), x = make(nnx.SimpleCell, dtype), vectors(dtype, 1), drive(dtype)
    J, whole = state_jacobians(cell, h, x), propagator(cell, h, x)
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(product(J), whole, atol=tol)
    assert np.abs(product(J[::-1]) - whole).max() > 1e-2 * np.abs(whole).max()


def test_propagators_of_two_stretches_compose(dtype, tolerance):
    cell, carry, x = make(nnx.LSTMCell, dtype), vectors(dtype, 2), drive(dtype, 4)
    states = vgjax.rollout(cell, carry, x).states
    at = [(state[:H], state[H:]) for state in states]
    early = np.asarray(propagator(cell, carry, x[:2]))
    late = np.asarray(propagator(cell, at[2], x[2:]))
    whole = propagator(cell, carry, x)
    np.testing.assert_allclose(late @ early, whole, atol=tolerance(1e-13, 1e-5))
    # Sanity: neither the order nor the state in the middle is of no consequence.
    assert np.abs(early @ late - whole).max() > 1e-2
    off_by_one = np.asarray(propagator(cell, at[1], x[2:]))
    assert np.abs(off_by_one @ early - whole).max() > 1e-3


def test_gradient_by_the_first_state_is_the_transposed_propagator_of_the_last(
    dtype, tolerance
):
    cell, carry, x = make(nnx.LSTMCell, dtype), vectors(dtype, 2), drive(dtype)
    a = jnp.asarray(np.random.default_rng(4).standard_normal(2 * H), dtype)

    def loss(state):
        return jnp.sin(state) @ a

    def of_first(carry):
        carry, _ = jax.lax.scan(cell, carry, x)
        return loss(ravel_pytree(carry)[0])

    Phi = np.asarray(propagator(cell, carry, x))
    last = jax.grad(loss)(vgjax.rollout(cell, carry, x).states[-1])
    expected = ravel_pytree(jax.grad(of_first)(carry))[0]
    np.testing.assert_allclose(
        Phi.T @ np.asarray(last), expected, atol=tolerance(1e-13, 1e-5)
    )
    assert np.abs(Phi @ np.asarray(last) - expected).max() > 1e-2


def stacked(cells, carry, x):
    first, second = cells
    h, y = first(carry[0], x)
    deep, y = second(carry[1], y)
    return (h, deep), y


def test_layers_form_a_block_triangle(dtype, tolerance):
    lower = make(nnx.GRUCell, dtype)
    upper = nnx.LSTMCell(H, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(5))
    step = steps.from_function(stacked, (lower, upper))
    h, deep = vectors(dtype, 1)[0], vectors(dtype, 2, seed=6)
    x = drive(dtype)
    J = np.asarray(state_jacobians(step, (h, deep), x))
    assert J.shape == (5, 3 * H, 3 * H)
    np.testing.assert_array_equal(J[:, :H, H:], 0)
    assert np.abs(J[:, H:, :H]).max() > 1e-2
    below, tol = state_jacobians(lower, h, x), tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(J[:, :H, :H], below, atol=tol)
    outputs = vgjax.rollout(lower, h, x).outputs
    above = state_jacobians(upper, deep, outputs)
    np.testing.assert_allclose(J[:, H:, H:], above, atol=tol)


def test_convolutional_lstm_has_the_carry_of_an_image(dtype, tolerance):
    cell = linen.ConvLSTMCell(
        features=2, kernel_size=(2,), dtype=dtype, param_dtype=dtype
    )
    carry = cell.initialize_carry(jax.random.key(0), (3, 1))
    x = jnp.asarray(np.random.default_rng(7).standard_normal((4, 3, 1)), dtype)
    step = steps.from_linen(cell, cell.init(jax.random.key(1), carry, x[0]))
    J = state_jacobians(step, carry, x)
    assert J.shape == (4, 12, 12)
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(product(J), propagator(step, carry, x), atol=tol)
    # The cell's own block is diagonal, as in any LSTM; a pixel sees its neighbour.
    own = np.asarray(J[:, :6, :6])
    np.testing.assert_allclose(own * (1 - np.eye(6)), 0, atol=tol)
    assert (np.diagonal(own, axis1=1, axis2=2) > 0).all()
    assert np.count_nonzero(J[-1, :6, 6:]) > 6


def test_equinox_and_flax_lstms_differ_by_the_order_of_their_blocks(dtype, tolerance):
    flax_cell, (c, h), x = make(nnx.LSTMCell, dtype), vectors(dtype, 2), drive(dtype)
    P = parameters(flax_cell)
    cell = equinox.nn.LSTMCell(D, H, key=jax.random.key(0), dtype=dtype)
    given = [P[name]["kernel"].T for name in ("ii", "if_", "ig", "io")]
    own = [P["h" + name]["kernel"].T for name in "ifgo"]
    bias = [P["h" + name]["bias"] for name in "ifgo"]
    cell = equinox.tree_at(
        lambda c: (c.weight_ih, c.weight_hh, c.bias),
        cell,
        tuple(jnp.concatenate(part) for part in (given, own, bias)),
    )
    found = state_jacobians(steps.from_equinox(cell), (h, c), x)
    swap = np.r_[H : 2 * H, :H]
    expected = np.asarray(state_jacobians(flax_cell, (c, h), x))[:, swap][:, :, swap]
    np.testing.assert_allclose(found, expected, atol=tolerance(1e-13, 1e-5))


def turn(angle, h, x):
    assert x is None
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([c * h[0] - s * h[1], 2 * (s * h[0] + c * h[1])]), None


def test_steps_without_inputs_have_jacobians_too(dtype, tolerance):
    step, h = steps.from_function(turn, jnp.asarray(0.3, dtype)), jnp.ones(2, dtype)
    c, s = np.cos(0.3), np.sin(0.3)
    J = np.array([[c, -s], [2 * s, 2 * c]])
    tol = tolerance(1e-13, 1e-5)
    np.testing.assert_allclose(state_jacobian(step, h), J, atol=tol)
    np.testing.assert_allclose(state_jacobians(step, h, length=3), [J] * 3, atol=tol)
    found = propagator(step, h, length=3)
    np.testing.assert_allclose(found, J @ J @ J, atol=tol)


def bilinear(h, x):
    a, b = x["a"], x["b"]
    return h * b + jnp.stack([a[0] * a[1], a[1] * a[2]]), None


def test_inputs_that_are_a_tree_are_differentiated_in_the_order_of_ravel(dtype):
    # b comes first here, and second in the order of ravel_pytree.
    x = {
        "b": jnp.asarray([2, 3], dtype),
        "a": jnp.asarray([[1, 2, 3], [4, 5, 6]], dtype),
    }
    h = jnp.asarray([7, 11], dtype)
    found = input_jacobians(bilinear, h, x)
    np.testing.assert_array_equal(found[0], [[2, 1, 0, 7], [0, 3, 2, 11]])
    after = [7 * 2 + 2, 11 * 2 + 6]
    np.testing.assert_array_equal(found[1], [[5, 4, 0, after[0]], [0, 6, 5, after[1]]])
    J = state_jacobians(bilinear, h, x)
    np.testing.assert_array_equal(J, [2 * np.eye(2), 3 * np.eye(2)])
    one = state_jacobian(bilinear, h, jax.tree.map(lambda a: a[1], x))
    np.testing.assert_array_equal(one, 3 * np.eye(2))


def test_jacobians_go_through_jit_vmap_and_grad(dtype, tolerance):
    (h,), x = vectors(dtype, 1), drive(dtype)
    cell = make(nnx.SimpleCell, dtype)
    inputs = jnp.stack([x, 2 * x])
    together = jax.jit(jax.vmap(lambda x: state_jacobians(cell, h, x)))(inputs)
    tol = tolerance(1e-13, 1e-5)
    for b in range(2):
        expected = state_jacobians(cell, h, inputs[b])
        np.testing.assert_allclose(together[b], expected, atol=tol)

    def entry(w):
        step = steps.from_function(lambda w, h, x: (w * h**2 + x, None), w)
        return propagator(step, jnp.ones(1, dtype), jnp.zeros((2, 1), dtype))[0, 0]

    # s_2 = w^3 s_0^4, so Phi = 4 w^3 and its derivative by w is 12 w^2.
    found = jax.grad(entry)(jnp.asarray(1.5, dtype))
    np.testing.assert_allclose(found, 12 * 1.5**2, rtol=tolerance(1e-13, 1e-5))


def keeps_one(h, x):
    del x
    return h[:1], None


@pytest.mark.parametrize("measure", [state_jacobians, propagator])
def test_wrong_arguments_are_refused_by_name(measure, dtype):
    h, x = jnp.ones(2, dtype), jnp.ones((3, 2), dtype)
    with pytest.raises(ValueError, match="`length` must be given .* both are None"):
        measure(keeps_one, h)
    with pytest.raises(ValueError, match=r"comes out as .*\[1\]"):
        measure(keeps_one, h, x)
    with pytest.raises(ValueError, match=r"`inputs` must have 4 steps .*\(3, 2\)"):
        measure(keeps_one, h, x, length=4)
    with pytest.raises(TypeError, match="`carry` must hold floating .* int32"):
        measure(keeps_one, jnp.ones(2, jnp.int32), x)


def test_input_jacobians_need_inputs_that_are_floating(dtype):
    h = jnp.ones(2, dtype)

    def keeps(h, x):
        return h, x

    with pytest.raises(ValueError, match="`inputs`"):
        input_jacobians(keeps, h, None)
    with pytest.raises(TypeError, match="`inputs` must hold floating numbers"):
        input_jacobians(keeps, h, jnp.ones((3, 2), jnp.int32))
