"""Every public function lowers for every device, at full precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vgjax
from vgjax import cells, jacobians, products

T, D, H = 6, 2, 3
CELLS = {"tanh": nnx.SimpleCell, "lstm": nnx.LSTMCell}


def of_cell(measure, kind="tanh", **options):
    """``measure`` as a function of numbers only, and those numbers."""

    def program(weights, carry, inputs):
        step = cells.from_function(lambda w, c, x: nnx.merge(graph, w)(c, x), weights)
        return measure(step, carry, inputs, **options)

    dtype = jnp.result_type(float)
    cell = CELLS[kind](D, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(cell)
    carry = jnp.zeros(H, dtype)
    carry = (carry, carry) if kind == "lstm" else carry
    return program, (weights, carry, jnp.ones((T, D), dtype))


def of_matrices(measure, shape):
    return measure, (jnp.ones(shape, jnp.result_type(float)),)


def extended(matrix):
    return products.push(products.identity(H, matrix.dtype), matrix)


def rates(values):
    steps = jnp.arange(1, len(values) + 1, dtype=jnp.int32)
    return vgjax.growth_rates(products.Spectrum(steps, values, values.sum(1)))


PROGRAMS = {
    "rollout": lambda: of_cell(vgjax.rollout),
    "state_jacobian": lambda: of_cell(
        lambda step, carry, x: jacobians.state_jacobian(step, carry, x[0])
    ),
    "state_jacobians": lambda: of_cell(vgjax.state_jacobians, "lstm"),
    "input_jacobians": lambda: of_cell(jacobians.input_jacobians),
    "propagator": lambda: of_cell(vgjax.propagator, "lstm"),
    "jacobian_spectrum": lambda: of_cell(vgjax.jacobian_spectrum, "lstm"),
    "jacobian_spectrum, reverse": lambda: of_cell(
        vgjax.jacobian_spectrum, reverse=True, every=3
    ),
    "growth_rates": lambda: of_matrices(rates, (T, H)),
    "product_spectrum": lambda: of_matrices(products.product_spectrum, (T, H, H)),
    "push": lambda: of_matrices(extended, (H, H)),
    "log_singular_values": lambda: of_matrices(
        lambda A: products.log_singular_values(extended(A)), (H, H)
    ),
    "log_svd": lambda: of_matrices(lambda A: products.log_svd(extended(A)), (H, H)),
}
HAS_PRODUCTS = set(PROGRAMS) - {"growth_rates"}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_function_lowers_for(platform, name):
    program, arguments = PROGRAMS[name]()
    traced = jax.jit(program).trace(*arguments)
    assert traced.lower(lowering_platforms=(platform,)).as_text()


def equations(jaxpr):
    """All equations of a program, with those of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def precisions(program, arguments):
    closed = jax.make_jaxpr(program)(*arguments)
    return [
        equation.params["precision"]
        for equation in equations(closed.jaxpr)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_are_asked_for_at_full_precision(name):
    found = precisions(*PROGRAMS[name]())
    assert bool(found) == (name in HAS_PRODUCTS)
    assert set(found) <= {(jax.lax.Precision.HIGHEST,) * 2}


def test_a_product_at_the_default_precision_would_be_seen():
    def sloppy(A):
        return jax.lax.scan(lambda h, _: (A @ h, None), A[0], length=3)[0]

    assert precisions(*of_matrices(sloppy, (H, H))) == [None]


def test_gradients_and_batches_of_a_cell_are_at_full_precision_too():
    program, arguments = of_cell(vgjax.rollout, "lstm")

    def loss(*arguments):
        return program(*arguments).states[-1].sum()

    batch = jax.vmap(jax.grad(loss), in_axes=(None, None, 0))
    weights, carry, inputs = arguments
    found = precisions(batch, (weights, carry, jnp.stack([inputs] * 2)))
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}
    assert len(found) > 8
    assert np.isfinite(loss(*arguments))
