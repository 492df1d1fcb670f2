"""Batches spread over devices by `jax.shard_map`, with its checks on."""

import pytest
from running import run_as_a_user

PROGRAM = """
import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", {wide})

import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from vgjax import products


def vectors(chain):
    product = products.identity(chain.shape[-1], chain.dtype)
    return products.log_svd(products.push(product, chain[0]))


def slope(chain):
    return jax.grad(lambda A: products.product_spectrum(A)[1][-1, 0])(chain)


chains = np.random.default_rng(1).standard_normal((8, 6, 4, 4)).astype("{dtype}")
# Two a device at least: XLA multiplies a batch of one by other instructions.
chains[2, 3, 1] = 0
chains[3, 3] *= 1e-9 ** np.arange(4)
for measure in (products.product_spectrum, vectors, slope):
    expected = jax.jit(jax.vmap(measure))(chains)
    # One size of mesh: compiling is what this test costs.
    mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Auto,))
    over = PartitionSpec("b")
    spread = jax.shard_map(jax.vmap(measure), mesh=mesh, in_specs=over, out_specs=over)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(spread)(chains), expected)
print("equal")
"""


@pytest.mark.slow
def test_shards_of_a_batch_give_what_the_batch_gives_to_the_last_bit(dtype):
    program = PROGRAM.format(
        wide=dtype(0).dtype == "float64", dtype=dtype(0).dtype.name
    )
    found = run_as_a_user(program)
    assert found.stdout == "equal\n", found.stderr
