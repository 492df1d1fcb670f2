"""Batches of networks spread over devices by `jax.shard_map`, with its checks on."""

import pytest
from running import run_as_a_user

PROGRAM = """
import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", {wide})

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

import vgjax

# Two a device at least: XLA multiplies a batch of one by other instructions.
rng = np.random.default_rng(1)
W = rng.standard_normal((8, 3, 3)).astype("{dtype}")
x = rng.standard_normal((8, 5, 3)).astype("{dtype}")


def network(W, h, x):
    h = jnp.tanh(W @ h + x)
    return h, h


def given(W, x):
    return vgjax.steps.from_function(network, W), jnp.ones_like(x[0]), x


def loss(trajectory):
    return trajectory.outputs.sum()


MEASURES = dict(
    rollout=lambda W, x: vgjax.rollout(*given(W, x)),
    jacobians=lambda W, x: vgjax.state_jacobians(*given(W, x)),
    by_input=lambda W, x: vgjax.jacobians.input_jacobians(*given(W, x)),
    propagator=lambda W, x: vgjax.propagator(*given(W, x)),
    saturation=lambda W, x: vgjax.jacobians.saturation(*given(W, x)),
    forward=lambda W, x: vgjax.jacobian_spectrum(*given(W, x)),
    reverse=lambda W, x: vgjax.jacobian_spectrum(*given(W, x), reverse=True),
    cotangents=lambda W, x: vgjax.gradients.cotangents(*given(W, x), loss),
    lags=lambda W, x: vgjax.gradients.lag_contributions(*given(W, x), loss),
    flow=lambda W, x: vgjax.gradients.gradient_flow(*given(W, x), loss),
    alignment=lambda W, x: vgjax.gradients.alignment(
        *given(W, x), lambda trajectory: trajectory.carry.sum()
    ),
)
for name in {names}:
    batch = jax.vmap(MEASURES[name])
    expected = jax.jit(batch)(W, x)
    # All sizes of mesh for the cheapest: compiling is what this test costs.
    for n in (1, 2, 4) if name == "rollout" else (4,):
        mesh = jax.make_mesh((n,), ("b",), axis_types=(AxisType.Auto,))
        over = PartitionSpec("b")
        spread = jax.shard_map(batch, mesh=mesh, in_specs=over, out_specs=over)
        found = jax.jit(spread)(W, x)
        # Batches of two and of eight are fused otherwise: angles differ by an ulp.
        rtol = 4 * jnp.finfo(W.dtype).eps if name == "alignment" else 0
        jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol), found, expected)
    print(name)
"""

GROUPS = [
    ["rollout", "jacobians", "by_input", "propagator", "saturation"],
    ["forward", "reverse"],
    ["cotangents", "lags", "flow", "alignment"],
]


@pytest.mark.slow
@pytest.mark.parametrize("names", GROUPS)
def test_shards_of_a_batch_give_what_the_batch_gives_to_the_last_bit(names, dtype):
    program = PROGRAM.format(
        wide=dtype(0).dtype == "float64", dtype=dtype(0).dtype.name, names=names
    )
    found = run_as_a_user(program)
    assert found.stdout.split() == names, found.stderr
