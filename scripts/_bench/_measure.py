"""Fresh processes and clocks: all that `scripts/bench` measures is measured here."""

import os
import platform
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def alone(function, *arguments, threads=None, **variables):
    """Call a module's function in a fresh process, and return what it returns.

    threads: OPENBLAS_NUM_THREADS of the process; None: what OpenBLAS takes itself.
    variables: more environment variables of the process.
    """
    # First calls are measured, and a cache would answer instead of the compiler.
    variables |= {"OPENBLAS_NUM_THREADS": threads, "JAX_COMPILATION_CACHE_DIR": None}
    kept = dict(os.environ)
    try:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        with process() as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def process(prepare=None, *arguments):
    """Start one process, that nothing of this one's memory goes into."""
    return ProcessPoolExecutor(1, get_context("spawn"), prepare, arguments)


def timed(run):
    """Seconds until the result of one call is there, and the result."""
    import jax

    began = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - began, result


def in_turn(functions, repeats):
    """Median seconds of each, called in turn so that a busy moment hits all alike."""
    for function in functions:
        timed(function)
    rounds = [[timed(function)[0] for function in functions] for _ in range(repeats)]
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def median_for(seconds, run):
    """Median seconds of warm calls; those that take little are timed more often."""
    timed(run)
    times, until = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        times.append(timed(run)[0])
    return statistics.median(times)


def peak_memory():
    """Most memory this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start():
    """Switch JAX to 64 bits."""
    import jax

    jax.config.update("jax_enable_x64", True)


def machine():
    """Name the processor and the versions that are measured."""
    import jax

    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, jax {jax.__version__}, "
        f"{jax.devices()[0].device_kind}, float64"
    )
