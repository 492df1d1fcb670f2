"""Batches spread over devices by `jax.shard_map`, with its checks on."""

import pytest
from running import run_as_a_user

PROGRAM = """
import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", {wide})

import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vgjax import lyapunov, spectra

rng = np.random.default_rng(1)
# Two a device at least: XLA multiplies a batch of one by other instructions.
N = {N}
batch = jnp.asarray(rng.standard_normal((8, 50, N, N)) / N**0.5, "{dtype}")


def step(h, A):
    return A @ h, None


def {name}(A):
    return {home}.{name}(step, jnp.ones(N, A.dtype), A, **{options})


expected = jax.jit(jax.vmap({name}))(batch)
# One size of mesh where compiling takes long.
for n in (4,) if "{name}" == "leading_spectrum" else (1, 2, 4):
    mesh = jax.make_mesh((n,), ("b",), axis_types=(AxisType.Auto,))
    over = PartitionSpec("b")
    spread = jax.shard_map(
        jax.vmap({name}), mesh=mesh, in_specs=over, out_specs=over
    )
    sharded = jax.device_put(batch, NamedSharding(mesh, over))
    sharded = jax.jit(spread)(sharded)
    for field, found, wanted in zip(expected._fields, sharded, expected, strict=True):
        if field not in {inexact}:
            np.testing.assert_array_equal(found, wanted, err_msg=field)
    np.testing.assert_allclose(sharded[0], expected[0], rtol={rtol})
print("equal")
"""

CASES = {
    "lyapunov_spectrum": {"burn_in": 7},
    "covariant_vectors": {"burn_in": 7, "burn_out": 7},
    "leading_spectrum": {"k": 2},
}
# XLA adds these up in an order that depends on how many there are on a device.
INEXACT = {
    "lyapunov_spectrum": ("standard_error",),
    "leading_spectrum": ("log_singular_values", "left", "right", "change", "error"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_shards_of_a_batch_give_what_the_batch_gives_to_the_last_bit(name, dtype):
    program = PROGRAM.format(
        wide=dtype(0).dtype == "float64",
        dtype=dtype(0).dtype.name,
        name=name,
        home="spectra" if name == "leading_spectrum" else "lyapunov",
        N=12 if name == "leading_spectrum" else 4,
        options=CASES[name],
        inexact=INEXACT.get(name, ()),
        rtol=1e-9 if dtype(0).dtype == "float64" else 1e-3,
    )
    found = run_as_a_user(program)
    assert found.stdout == "equal\n", found.stderr
