"""Count what JAX compiles and traces."""

import contextlib
from functools import partial

import jax


@contextlib.contextmanager
def _counting(event):
    found = []

    def heard(name, duration, **_):
        if name == event:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)


# Each yields a list that grows by one entry for each program meanwhile.
compilations = partial(_counting, "/jax/core/compile/backend_compile_duration")
traces = partial(_counting, "/jax/core/compile/jaxpr_trace_duration")
