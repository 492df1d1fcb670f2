"""What the parts of `scripts/bench` share: fresh processes, clocks and switches."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

BENCH = Path(__file__).resolve().with_name("bench.py")


def call(name, *arguments, threads=None, capture=False):
    """Run one part in a fresh process; its output, if captured."""
    environment = dict(os.environ)
    environment.pop("OPENBLAS_NUM_THREADS", None)
    # First calls are measured, and a cache would answer instead of the compiler.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if threads:
        environment["OPENBLAS_NUM_THREADS"] = threads
    part = json.dumps([name, *arguments])
    done = subprocess.run(
        [sys.executable, str(BENCH), "--part", part],
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )
    return done.stdout


def in_turn(functions, repeats):
    """Median seconds of each, called in turn so that a busy moment hits all alike."""
    import jax

    for function in functions:
        jax.block_until_ready(function())
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, seen in zip(functions, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(function())
            seen.append(time.perf_counter() - began)
    return [statistics.median(seen) for seen in times]


def peak_memory():
    """Most memory this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def verdict(value, bound, *, least=False):
    """Say whether a number is within its bound, the most or the least it may be."""
    return "met" if (value >= bound if least else value <= bound) else "MISSED"


def start():
    """Return jax in 64-bit mode."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax
