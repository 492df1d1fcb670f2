"""Count what JAX compiles."""

import contextlib

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """Yield a list that grows by one entry for each program compiled meanwhile."""
    found = []

    def heard(event, duration, **_):
        if event == _EVENT:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
