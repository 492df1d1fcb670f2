"""Global switches, in one place: no test touches `jax.config` itself."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
# At the sizes of the tests its threads only get into each other's way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

FLOAT32 = os.environ.get("VGJAX_TEST_DTYPE") == "float32"

jax.config.update("jax_enable_x64", not FLOAT32)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    config.addinivalue_line("markers", "float64: makes sense in 64-bit mode only")


def pytest_collection_modifyitems(config, items):
    if not FLOAT32:
        return
    kept = [item for item in items if not item.get_closest_marker("float64")]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


@pytest.fixture
def dtype():
    return jax.numpy.float32 if FLOAT32 else jax.numpy.float64


@pytest.fixture
def tolerance():
    """Nats, by the precision the suite runs in: tolerance(1e-10, 1e-3)."""
    return lambda float64, float32: float32 if FLOAT32 else float64
