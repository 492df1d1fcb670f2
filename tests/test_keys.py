"""Traces serve again where nothing that they depend on changed, and nowhere else."""

import functools
import gc
import sys
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import traces
from flax import nnx

import vgjax
from vgjax import _programs, cells

GAIN = 1.0
TABLE = {"gains": [1.0, 1.0]}
SETTINGS = types.ModuleType("settings_of_a_user")
SETTINGS.gain = 1.0


def helper(h):
    return h


def last_state(step, *, carry=None, **options):
    carry = jnp.ones(2, jnp.float32) if carry is None else carry
    options = options or {"length": 1}
    return np.asarray(vgjax.rollout(step, carry, **options).states[-1])


class Gained:
    gain = 1.0
    halves = False

    def __call__(self, h, x):
        del x
        return self.scale() * h, None

    def scale(self):
        return self.gain

    @property
    def twice(self):
        return 2 * self.gain


class Cell(nnx.Module):
    def __init__(self, config):
        self.w = nnx.Param(jnp.ones((), jnp.float32))
        self.config = nnx.static(config)

    def __call__(self, h, x):
        del x
        return self.w[...] * self.config["gain"] * h, None


def closure_over_a_list():
    gains = [1.0]
    return lambda h, x: (gains[0] * h, x), lambda: gains.__setitem__(0, 2.0)


def closure_over_nested_arrays():
    tree = {"a": [jnp.ones((), jnp.float32)]}
    doubled = 2 * tree["a"][0]
    return lambda h, x: (tree["a"][0] * h, x), lambda: tree["a"].__setitem__(0, doubled)


def numpy_in_place():
    W = np.eye(2, dtype=np.float32)
    return lambda h, x: (W @ h, x), lambda: np.multiply(W, 2, out=W)


def a_global_number():
    def step(h, x):
        return GAIN * h, x

    return step, lambda: globals().__setitem__("GAIN", 2.0)


def a_global_within_a_lambda():
    def step(h, x):
        return (lambda z: TABLE["gains"][1] * z)(h), x

    return step, lambda: TABLE["gains"].__setitem__(1, 2.0)


def a_global_function():
    def step(h, x):
        return helper(h), x

    return step, lambda: globals().__setitem__("helper", lambda h: 2 * h)


def a_rule_that_calls_a_global_function():
    @jax.custom_jvp
    def same(h):
        return h

    same.defjvp(lambda h, t: (same(*h), helper(*t)))
    return lambda h, x: (jax.jvp(same, (h,), (h,))[1], x), a_global_function()[1]


def a_module_of_the_users():
    def step(h, x):
        return SETTINGS.gain * h, x

    return step, lambda: setattr(SETTINGS, "gain", 2.0)


def an_import_within():
    def step(h, x):
        def gain():
            import settings_of_a_user

            return settings_of_a_user.gain

        return gain() * h, x

    return step, lambda: setattr(SETTINGS, "gain", 2.0)


def an_attribute():
    cell = Gained()
    return cell, lambda: setattr(cell, "gain", 2.0)


def an_attribute_of_the_class():
    return Gained(), lambda: setattr(Gained, "gain", 2.0)


def a_method_of_the_class():
    return Gained(), lambda: setattr(Gained, "scale", lambda self: 2 * self.gain)


def an_attribute_behind_a_property():
    cell = Gained()
    cell.gain = 0.5
    return lambda h, x: (cell.twice * h, x), lambda: setattr(cell, "gain", 1.0)


def a_static_dictionary_of_a_module():
    cell = Cell({"gain": 1.0})
    return cell, lambda: cell.config.__setitem__("gain", 2.0)


def a_default():
    def step(h, x, gain=1.0):
        return gain * h, x

    return step, lambda: setattr(step, "__defaults__", (2.0,))


def an_attribute_of_a_function():
    def step(h, x):
        return step.gain * h, x

    step.gain = 1.0
    return step, lambda: setattr(step, "gain", 2.0)


def a_wrapper_with_a_librarys_name():
    @functools.wraps(jnp.tanh)
    def scale(h):
        return GAIN * h

    del scale.__wrapped__
    return lambda h, x: (scale(h), x), a_global_number()[1]


def a_counter():
    calls = 0

    def step(h, x):
        nonlocal calls
        calls += 1
        return min(calls, 2) * h, x

    return step, lambda: None


def an_iterator():
    gains = iter([1.0, 2.0])
    return lambda h, x: (next(gains) * h, x), lambda: None


def draws_of_numpy():
    def step(h, x):
        return np.random.get_state()[1][0].astype(np.float32) * h, x

    np.random.seed(1)
    return step, lambda: np.random.seed(2)


CHANGES = [
    closure_over_a_list,
    closure_over_nested_arrays,
    numpy_in_place,
    a_global_number,
    a_global_within_a_lambda,
    a_global_function,
    a_rule_that_calls_a_global_function,
    a_module_of_the_users,
    an_import_within,
    an_attribute,
    an_attribute_of_the_class,
    a_method_of_the_class,
    an_attribute_behind_a_property,
    a_static_dictionary_of_a_module,
    a_default,
    an_attribute_of_a_function,
    a_wrapper_with_a_librarys_name,
    a_counter,
    an_iterator,
    draws_of_numpy,
]


@pytest.fixture(autouse=True)
def world_as_it_was(monkeypatch):
    """Put back what the changes below change."""
    monkeypatch.setitem(sys.modules, "settings_of_a_user", SETTINGS)
    monkeypatch.setattr(SETTINGS, "gain", 1.0)
    monkeypatch.setitem(globals(), "GAIN", 1.0)
    monkeypatch.setitem(globals(), "helper", helper)
    monkeypatch.setitem(TABLE, "gains", [1.0, 1.0])
    monkeypatch.setattr(Gained, "gain", 1.0)
    monkeypatch.setattr(Gained, "scale", Gained.scale)


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_what_a_step_reads_is_read_anew(make):
    step, change = make()
    before = last_state(step)
    change()
    np.testing.assert_array_equal(last_state(step), 2 * before)


def over(W):
    return lambda h, x: (W @ h, x)


def test_steps_in_which_nothing_changed_are_not_traced_again():
    W = jnp.eye(2, dtype=jnp.float32)
    V = np.eye(2, dtype=np.float32)
    gru = nnx.GRUCell(2, 2, rngs=nnx.Rngs(0), dtype=jnp.float32)
    relu = cells.build("relu", 2, 2, key=jax.random.key(0), dtype=jnp.float32)
    kept = [Gained(), gru, relu, functools.partial(lambda W, h, x: (W @ h, x), W)]
    made_anew = [
        lambda: over(W),
        lambda: over(V.copy()),
        lambda: lambda h, x: (jax.vmap(lambda z: jax.nn.relu(GAIN * z))(h), x),
        lambda: Gained().__call__,
        # Other arrays of a step are arguments of its program.
        lambda: cells.from_function(lambda W, h, x: (W @ h, x), 2 * W),
        lambda: functools.partial(lambda W, h, x: (W @ h, x), 2 * W),
    ]
    x = jnp.ones((3, 2), jnp.float32)
    for make in [*(lambda step=step: step for step in kept), *made_anew]:
        jax.clear_caches()
        last_state(make(), inputs=x)
        with traces() as traced:
            last_state(make(), inputs=x)
        assert traced == []


def last_of(trajectory):
    return trajectory.carry.sum()


MEASURES = {
    "rollout": vgjax.rollout,
    "state_jacobians": vgjax.state_jacobians,
    "input_jacobians": vgjax.jacobians.input_jacobians,
    "propagator": vgjax.propagator,
    "saturation": vgjax.jacobians.saturation,
    "jacobian_spectrum": vgjax.jacobian_spectrum,
    "lyapunov_spectrum": vgjax.lyapunov_spectrum,
    "covariant_vectors": vgjax.lyapunov.covariant_vectors,
    "leading_spectrum": functools.partial(vgjax.lyapunov.leading_spectrum, k=1),
    "cotangents": lambda *run: vgjax.gradients.cotangents(*run, last_of),
    "lag_contributions": lambda *run: vgjax.gradients.lag_contributions(*run, last_of),
    "gradient_flow": lambda *run: vgjax.gradients.gradient_flow(*run, last_of),
    "alignment": lambda *run: vgjax.gradients.alignment(*run, last_of),
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_python_of_a_step_runs_once_a_call(name, dtype):
    runs = []

    def network(W, h, x):
        runs.append(1)
        return jnp.tanh(W @ h + x), h

    step = cells.from_function(network, jnp.eye(12, dtype=dtype))
    x = jnp.ones((20, 12), dtype)
    # Traced and not compiled, which would take long.
    jax.eval_shape(lambda h: MEASURES[name](step, h, x), jnp.ones(12, dtype))
    assert len(runs) == 1


def test_a_change_of_the_settings_or_the_arguments_is_a_new_trace():
    def step(h, _):
        return 0.5 * jnp.arange(2).astype(h.dtype) * h, jnp.arange(2) / 3

    outputs = vgjax.rollout(step, jnp.ones(2, jnp.float32), length=1).outputs
    with jax.enable_x64(not jax.config.jax_enable_x64):
        other = vgjax.rollout(step, jnp.ones(2, jnp.float32), length=1).outputs
    assert {str(outputs.dtype), str(other.dtype)} == {"float32", "float64"}
    assert last_state(step, carry=jnp.ones(2, jnp.float32)).dtype == np.float32
    assert last_state(step, carry=jnp.ones(2, jnp.float16)).dtype == np.float16
    found = jax.jit(lambda a: vgjax.rollout(over(a), a[0], length=1).states[-1])
    np.testing.assert_array_equal(found(jnp.eye(2)), [1, 0])
    np.testing.assert_array_equal(found(2 * jnp.eye(2)), [4, 0])


def test_a_trace_keeps_no_array_of_the_users_alive():
    W = jnp.eye(2, dtype=jnp.float32)
    reference = weakref.ref(W)
    last_state(over(W))
    del W
    gc.collect()
    assert reference() is None
    # Another array may get its place in memory.
    for n in range(20):
        W = (1.0 + n) * jnp.eye(2, dtype=jnp.float32)
        np.testing.assert_array_equal(last_state(over(W)), (1.0 + n) * np.ones(2))
        del W


def test_a_trace_keeps_what_numpy_arrays_were():
    W = 5 * np.eye(2, dtype=np.float32)
    last_state(over(W))
    W[...] = 7
    # The same code over the same numbers: the trace of the first serves.
    with traces() as traced:
        found = last_state(over(5 * np.eye(2, dtype=np.float32)))
    assert traced == []
    np.testing.assert_array_equal(found, [5, 5])


def test_the_traces_that_are_remembered_are_bounded():
    for n in range(_programs._MOST_REMEMBERED + 10):
        _programs.traced(lambda x, n=n: x * n, np.ones(1), decided_by=n)
    assert len(_programs._TRACED) == _programs._MOST_REMEMBERED
    with traces() as traced:
        _programs.traced(lambda x: x * 0, np.ones(1), decided_by=n)
    assert traced == []


def test_a_loss_is_read_anew(dtype):
    gains = [1.0]

    def loss(trajectory):
        return gains[0] * trajectory.states[-1].sum()

    def step(h, x):
        return 0.5 * h, x

    def of_the_last():
        found = vgjax.gradients.cotangents(
            step, jnp.ones(2, dtype), None, loss, length=3
        )
        return np.asarray(found[-1])

    of_the_last()
    before = of_the_last()
    gains[0] = 2.0
    np.testing.assert_array_equal(of_the_last(), 2 * before)


def test_a_class_may_hold_what_has_no_key(dtype):
    class Slotted:
        __slots__ = ("gain",)

        def __init__(self):
            self.gain = 1.0

        def __call__(self, h, x):
            return self.gain * h, x

    step = Slotted()
    before = last_state(step, carry=jnp.ones(2, dtype))
    step.gain = 2.0
    np.testing.assert_array_equal(
        last_state(step, carry=jnp.ones(2, dtype)), 2 * before
    )
