"""Cells with exact activations: the same values, and the Jacobians they truly have."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from counting import compilations
from flax import linen, nnx

import vgjax
from vgjax import activations, cells, steps
from vgjax.steps import exact

D, N = 2, 3


def nnx_cell(name, seed, dtype, **options):
    cell = getattr(nnx, name)(
        D, N, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(seed), **options
    )
    return cell, jax.tree.map(
        lambda leaf: leaf.astype(dtype), cell.initialize_carry((D,), nnx.Rngs(1))
    )


def linen_cell(seed, dtype, name="LSTMCell", **options):
    cell = getattr(linen, name)(N, dtype=dtype, param_dtype=dtype, **options)
    carry = cell.initialize_carry(jax.random.key(0), (D,))
    variables = cell.init(jax.random.key(seed), carry, jnp.zeros(D, dtype))
    return steps.from_linen(cell, variables), carry


def equinox_cell(seed, dtype):
    cell = equinox.nn.GRUCell(D, N, dtype=dtype, key=jax.random.key(seed))
    return steps.from_equinox(cell), jnp.zeros(N, dtype)


def tanh_step(W, h, x):
    h = jnp.tanh(W @ h + x[0])
    return h, h


def plain_function(seed, dtype):
    W = np.random.default_rng(seed).standard_normal((N, N))
    return steps.from_function(tanh_step, jnp.asarray(W, dtype)), jnp.zeros(N, dtype)


NNX = ["SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell"]
MAKE = {
    **{
        name: lambda seed, dtype, name=name: nnx_cell(name, seed, dtype) for name in NNX
    },
    "linen": linen_cell,
    "equinox": equinox_cell,
    "function": plain_function,
}


def inputs(dtype, scale=1.0):
    x = scale * np.random.default_rng(5).standard_normal((6, D))
    return jnp.asarray(x, dtype)


@pytest.mark.parametrize("kind", MAKE)
def test_same_values_exact_jacobians_and_one_compilation(kind, dtype, tolerance):
    x = jnp.concatenate([inputs(dtype), inputs(dtype, tolerance(30.0, 12.0))])
    step, carry = MAKE[kind](1, dtype)
    given = jax.tree.map(np.asarray, jax.tree.leaves(step))
    new = exact(step)
    a, b = (vgjax.rollout(cell, carry, x) for cell in (step, new))
    tol = tolerance(1e-14, 1e-6)
    np.testing.assert_allclose(a.states, b.states, atol=tol)
    np.testing.assert_allclose(a.outputs, b.outputs, atol=tol)

    found = vgjax.state_jacobians(new, carry, x)
    if kind in ("OptimizedLSTMCell", "linen"):
        # The other way to them: through the primitives.
        true = vgjax.state_jacobians(activations.exact(step), carry, x)
        np.testing.assert_allclose(found, true, rtol=tolerance(1e-12, 1e-4), atol=0)
    assert np.all(np.abs(found).max(axis=2) > 0)
    for before, after in zip(given, jax.tree.leaves(step), strict=True):
        np.testing.assert_array_equal(before, after)

    new = exact(MAKE[kind](2, dtype)[0])
    with compilations() as again:
        other = vgjax.state_jacobians(new, carry, x)
    assert again == []
    assert np.abs(other - found).max() > 0.01


@pytest.mark.parametrize("name", NNX)
def test_a_flax_nnx_cell_stays_one(name, dtype):
    cell, carry = nnx_cell(name, 1, dtype)
    theirs = cell.activation_fn
    new = exact(cell)
    assert type(new) is type(cell)
    assert new is not cell
    assert cell.activation_fn is theirs is jnp.tanh
    assert new.activation_fn is activations.tanh
    if name != "SimpleCell":
        assert cell.gate_fn is jax.nn.sigmoid
        assert new.gate_fn is activations.sigmoid
    again = new.initialize_carry((D,), nnx.Rngs(1))
    assert jax.tree.structure(again) == jax.tree.structure(carry)
    assert type(exact(new)) is type(cell)
    # Its weights are its own: to change them leaves the given cell as it was.
    kept = jax.tree.map(np.asarray, jax.tree.leaves(cell))
    nnx.update(new, jax.tree.map(lambda leaf: leaf + 1, nnx.state(new, nnx.Param)))
    for a, b in zip(kept, jax.tree.leaves(cell), strict=True):
        np.testing.assert_array_equal(a, b)


def saturated(step, h, x):
    return np.asarray(vgjax.state_jacobians(step, h, x), float)


def test_jacobian_of_a_saturated_simple_cell_is_the_one_by_hand(dtype, tolerance):
    cell, h = nnx_cell("SimpleCell", 2, dtype)
    x = inputs(dtype, tolerance(40.0, 10.0))[:1]
    W = np.asarray(cell.dense_h.kernel[...], float).T
    a = np.asarray(x[0], float) @ np.asarray(cell.dense_i.kernel[...], float)
    a = a + np.asarray(cell.dense_i.bias[...], float)
    slope = oracles.tanh_slope(a + W @ np.asarray(h, float))
    # Pre-activations of some tens carry an error of as many eps.
    tol = tolerance(1e-12, 1e-4)
    true = slope[:, None] * W
    np.testing.assert_allclose(saturated(exact(cell), h, x)[0], true, rtol=tol)
    lost = np.all(saturated(cell, h, x)[0] == 0, axis=1)
    assert lost.any()
    assert (true != 0).all()


def test_jacobian_of_a_saturated_linen_gru_is_the_one_by_hand(dtype, tolerance):
    step, h = linen_cell(3, dtype, "GRUCell")
    h = h + jnp.asarray([0.3, -0.2, 0.1], dtype)
    x = inputs(dtype, tolerance(40.0, 20.0))[:1]
    kernels = {
        name: {k: np.asarray(v, float) for k, v in layer.items()}
        for name, layer in step.variables["params"].items()
    }
    s, u = np.asarray(h, float), np.asarray(x[0], float)

    def by(name):
        layer = kernels[name]
        return layer["kernel"].T, layer.get("bias", 0)

    def line(name, v):
        W, b = by(name)
        return W @ v + b

    ar, az = line("ir", u) + line("hr", s), line("iz", u) + line("hz", s)
    r, z = oracles.sigmoid(ar), oracles.sigmoid(az)
    inner = line("hn", s)
    an = line("in", u) + r * inner
    n = np.tanh(an)
    # oracles.tanh_slope(a / 2) / 4 is the slope of the logistic function.
    r1, z1 = oracles.tanh_slope(ar / 2) / 4, oracles.tanh_slope(az / 2) / 4
    Wr, Wz, Wn = (by(name)[0] for name in ("hr", "hz", "hn"))
    dn = oracles.tanh_slope(an)[:, None] * (
        r[:, None] * Wn + (inner * r1)[:, None] * Wr
    )
    # 1 - z without cancellation.
    true = oracles.sigmoid(-az)[:, None] * dn + np.diag(z)
    true = true + ((s - n) * z1)[:, None] * Wz
    found = saturated(exact(step), h, x)[0]
    # The cell computes 1 - z and s - n itself, to eps of 1.
    atol = tolerance(1e-15, 1e-6)
    np.testing.assert_allclose(found, true, rtol=tolerance(1e-11, 1e-3), atol=atol)


def test_activations_that_are_not_known_are_exact_too(dtype, tolerance):
    x = inputs(dtype, tolerance(40.0, 20.0))
    options = {"activation_fn": lambda x: 2 * jnp.tanh(x)}
    for step, carry in (
        nnx_cell("SimpleCell", 1, dtype, **options),
        linen_cell(1, dtype, "SimpleCell", **options),
    ):
        lost = np.abs(vgjax.state_jacobians(step, carry, x)).max(axis=2) == 0
        kept = np.abs(vgjax.state_jacobians(exact(step), carry, x)).max(axis=2) > 0
        assert lost.any()
        assert kept.all()


class Doubled(nnx.SimpleCell):
    """A cell of one's own, which applies more than its attributes."""

    def __call__(self, carry, inputs):
        return super().__call__(jnp.tanh(carry), inputs)


def test_derived_classes_and_closures_are_wrapped(dtype, tolerance):
    cell = Doubled(D, N, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    far = jnp.full(N, tolerance(25.0, 15.0), dtype)
    x = jnp.zeros((1, D), dtype)
    for step in (cell, lambda h, x: cell(h, x)):
        # 0, or in float32, as XLA makes tanh, round-off.
        plain = np.abs(vgjax.state_jacobians(step, far, x))
        found = np.abs(vgjax.state_jacobians(exact(step), far, x))
        assert np.all(found > 0)
        assert np.all((plain < found / 2) | (plain > 2 * found))


def test_relu_cells_of_flax_are_themselves(dtype):
    cell, h = nnx_cell("SimpleCell", 1, dtype, activation_fn=jax.nn.relu)
    a, b = (vgjax.state_jacobians(c, h, inputs(dtype)) for c in (cell, exact(cell)))
    np.testing.assert_array_equal(a, b)
    assert exact(cell).activation_fn is activations.relu


def test_what_is_no_step_is_refused(dtype):
    cell, _ = nnx_cell("SimpleCell", 1, dtype)
    for bad, found in [
        (3, "is int"),
        (cell.__call__, "is the bound method"),
        (linen.LSTMCell(3), "is a Flax linen module; give it"),
    ]:
        with pytest.raises(TypeError, match=f"`cell` must be callable .*{found}"):
            exact(bad)


def test_a_cell_of_the_zoo_is_copied_as_it_is(dtype):
    cell = cells.build("lstm", D, N, key=jax.random.key(0), dtype=dtype)
    new = exact(cell)
    assert type(new) is type(cell)
    assert new is not cell
    new.f.b = nnx.Param(jnp.zeros(N, dtype))
    assert float(cell.f.b[0]) == 1.0
