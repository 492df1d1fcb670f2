"""Global switches, in one place: no test touches `jax.config` itself."""

import os

from quickly import flags

os.environ.setdefault("MPLBACKEND", "Agg")
# At the sizes of the tests its threads only get into each other's way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
FLOAT32 = os.environ.get("VGJAX_TEST_DTYPE") == "float32"
# quickly.py says why float32 has another level. VGJAX_TEST_OPTIMISED=1 compiles as for
# a user.
OPTIMISED = bool(os.environ.get("VGJAX_TEST_OPTIMISED"))
if not OPTIMISED:
    quickly = flags(1 if FLOAT32 else 0)
    os.environ["XLA_FLAGS"] = f"{quickly} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402  # what is above must come first
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", not FLOAT32)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    config.addinivalue_line("markers", "float64: makes sense in 64-bit mode only")
    config.addinivalue_line("markers", "once: does not depend on the precision")
    config.addinivalue_line("markers", "optimised: is about numbers as XLA makes them")


def pytest_collection_modifyitems(config, items):
    refused = {"float64", "once"} if FLOAT32 else set()
    refused |= set() if OPTIMISED or FLOAT32 else {"optimised"}
    kept = [item for item in items if not any(map(item.get_closest_marker, refused))]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


@pytest.fixture
def dtype():
    return jax.numpy.float32 if FLOAT32 else jax.numpy.float64


@pytest.fixture
def tolerance():
    """Nats, by the precision the suite runs in: tolerance(1e-10, 1e-3)."""
    return lambda float64, float32: float32 if FLOAT32 else float64


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten():
    """Drop the compiled programs of a file when it ends.

    Kept, those of the whole suite take 4 GB a process and more memory maps than Linux
    grants one: compiling or storing the next one then ends in a segmentation fault.
    """
    yield
    jax.clear_caches()
