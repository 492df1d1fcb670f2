"""Every public function lowers for every device, at full precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.lowering import precisions

import vgjax
from vgjax import gradients, jacobians, lyapunov, products, spectra, steps, theory

T, D, H = 6, 2, 3
CELLS = {"tanh": nnx.SimpleCell, "lstm": nnx.LSTMCell}


def of_cell(measure, kind="tanh", **options):
    """``measure`` as a function of numbers only, and those numbers."""

    def program(weights, carry, inputs):
        step = steps.from_function(lambda w, c, x: nnx.merge(graph, w)(c, x), weights)
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


def of_last(trajectory):
    return sum(leaf.sum() for leaf in jax.tree.leaves(trajectory.carry))


def of_batch(step, carry, inputs, loss):
    carry, inputs = (jnp.stack([a, a]) for a in (carry, inputs))
    return gradients.signal_to_noise(step, carry, inputs, loss)


def leading(W):
    step = steps.from_function(lambda W, h, x: (W @ h, x), W)
    return spectra.leading_spectrum(step, W[0], k=1, length=3)


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
    "lyapunov_spectrum": lambda: of_cell(lyapunov.lyapunov_spectrum, "lstm"),
    "lyapunov_spectrum, qr_every": lambda: of_cell(
        lyapunov.lyapunov_spectrum, qr_every=2
    ),
    "covariant_vectors": lambda: of_cell(lyapunov.covariant_vectors, burn_in=1),
    "leading_spectrum": lambda: of_matrices(leading, (12, 12)),
    "leading_spectrum, all of it": lambda: of_cell(spectra.leading_spectrum, k=2),
    "kaplan_yorke_dimension": lambda: of_matrices(
        lyapunov.kaplan_yorke_dimension, (H,)
    ),
    "cotangents": lambda: of_cell(gradients.cotangents, "lstm", loss=of_last),
    "log_cotangents": lambda: of_cell(gradients.log_cotangents, "lstm", loss=of_last),
    "lag_contributions": lambda: of_cell(gradients.lag_contributions, loss=of_last),
    "signal_to_noise": lambda: of_cell(of_batch, loss=of_last),
    "gradient_flow": lambda: of_cell(gradients.gradient_flow, loss=of_last),
    "alignment": lambda: of_cell(gradients.alignment, loss=of_last),
    "gelfand_rates": lambda: of_matrices(
        lambda A: theory.gelfand_rates(A, [1, 2]), (H, H)
    ),
    "power_method_angles": lambda: of_matrices(
        lambda A: theory.power_method_angles(A, A[0], [1, 2]), (H, H)
    ),
    "pascanu_bound": lambda: of_matrices(
        lambda A: theory.pascanu_bound(A, 1.0, [1, 2]), (H, H)
    ),
    "eigenvalue_rates": lambda: of_matrices(theory.eigenvalue_rates, (H, H)),
    "eigenvector_condition": lambda: of_matrices(theory.eigenvector_condition, (H, H)),
    "henrici_departure": lambda: of_matrices(theory.henrici_departure, (H, H)),
    "mode_amplitudes": lambda: of_matrices(
        lambda A: theory.mode_amplitudes(A, A[0], [1, 2]), (H, H)
    ),
    "power_spectrum": lambda: of_matrices(
        lambda A: theory.power_spectrum(A, [1, 2]), (H, H)
    ),
    "power_method_rate": lambda: of_matrices(theory.power_method_rate, (H, H)),
    "can_explode": lambda: of_matrices(lambda A: theory.can_explode(A, 1.0), (H, H)),
    "entropy": lambda: of_matrices(lyapunov.entropy, (H,)),
    "check_laws": lambda: of_matrices(
        lambda A: products.check_laws(products.product_spectrum(A), A), (T, H, H)
    ),
}
HAS_PRODUCTS = set(PROGRAMS) - {
    "can_explode",
    "eigenvector_condition",
    "entropy",
    "henrici_departure",
    "growth_rates",
    "kaplan_yorke_dimension",
    "pascanu_bound",
}
# JAX has no eigenvalues there.
NOT_ON_TPU = {
    "alignment",
    "eigenvalue_rates",
    "mode_amplitudes",
    "power_method_angles",
    "power_method_rate",
}
# Calls the host, which JAX lowers only for the platform it is on.
ON_THE_HOST = {"eigenvector_condition", "henrici_departure"}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_function_lowers_for(platform, name):
    if platform == "tpu" and name in NOT_ON_TPU:
        pytest.skip("JAX has no eigenvalues on TPU")
    if platform != "cpu" and name in ON_THE_HOST:
        pytest.skip("a callback lowers for this platform only")
    program, arguments = PROGRAMS[name]()
    traced = jax.jit(program).trace(*arguments)
    assert traced.lower(lowering_platforms=(platform,)).as_text()


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
