"""Traces serve again where nothing that they depend on changed, and nowhere else."""

import collections
import enum
import functools
import gc
import sys
import types
import weakref
from time import perf_counter_ns
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import traces
from flax import nnx

import vgjax
from vgjax import _programs, cells, steps
from vgjax._keys import fingerprint

pytestmark = pytest.mark.once

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


def numpy_by_another_name():
    def step(h, x, xp=np):
        return np.float32(xp.random.get_state()[1][0]) * h, x

    np.random.seed(1)
    return step, lambda: np.random.seed(2)


class Pair(NamedTuple):
    bias: float

    def scale(self, h):
        return GAIN * h + self.bias


def a_global_behind_a_method_of_a_tuple():
    pair = Pair(0.0)
    return lambda h, x: (pair.scale(h), x), a_global_number()[1]


class Scale(float):
    """A number whose value is in none of its attributes."""


def a_kind_of_number():
    scales = {"now": Scale(1)}
    return lambda h, x: (scales["now"] * h, x), lambda: scales.update(now=Scale(2))


class Gate(enum.Enum):
    OPEN = 1

    def scale(self, h):
        return GAIN * self.value * h


def a_global_behind_an_enum():
    gate = Gate.OPEN
    return lambda h, x: (gate.scale(h), x), a_global_number()[1]


class Settings(dict):
    gain = 1.0


def an_attribute_of_a_kind_of_dictionary():
    settings = Settings()
    return lambda h, x: (settings.gain * h, x), lambda: setattr(settings, "gain", 2.0)


def a_default_factory():
    gains = collections.defaultdict(lambda: 1.0)

    def change():
        gains.clear()
        gains.default_factory = lambda: 2.0

    return lambda h, x: (gains["gain"] * h, x), change


def a_cache():
    @functools.lru_cache
    def gain():
        return GAIN

    def change():
        globals()["GAIN"] = 2.0
        last_state(step)
        gain.cache_clear()

    def step(h, x):
        return gain() * h, x

    return step, change


def a_number_in_an_array():
    gain = np.ones((), np.float32)
    return lambda h, x: (gain * h, x), lambda: gain.__setitem__((), 2)


CHANGES = [
    numpy_by_another_name,
    a_global_behind_a_method_of_a_tuple,
    a_kind_of_number,
    a_global_behind_an_enum,
    an_attribute_of_a_kind_of_dictionary,
    a_default_factory,
    a_cache,
    a_number_in_an_array,
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
    drawn = np.random.get_state()
    yield
    np.random.set_state(drawn)


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_what_a_step_reads_is_read_anew(make):
    step, change = make()
    before = last_state(step)
    change()
    np.testing.assert_array_equal(last_state(step), 2 * before)


def test_steps_that_differ_in_what_is_static_are_two():
    def step(h, x, *, scale, shift):
        return scale * h + shift, x

    # Integers are static and floats are not: the same leaves in other places.
    one = last_state(functools.partial(step, scale=3, shift=0.5))
    two = last_state(functools.partial(step, scale=0.5, shift=3))
    np.testing.assert_array_equal([one, two], [[3.5] * 2] * 2)
    three = last_state(functools.partial(step, scale=0.25, shift=3))
    np.testing.assert_array_equal(three, [3.25] * 2)


def test_one_array_twice_is_not_two_equal_ones():
    def same_or_twice(a, b):
        return lambda h, x: (h if a is b else 2 * h, x)

    a = np.ones(2)
    np.testing.assert_array_equal(last_state(same_or_twice(a, a)), [1, 1])
    np.testing.assert_array_equal(last_state(same_or_twice(a, a.copy())), [2, 2])


def test_a_step_that_changes_what_it_reads_is_traced_each_time():
    is_on = [False]

    def step(h, x):
        is_on[0] = not is_on[0]
        return (2 if is_on[0] else 1) * h, x

    found = [last_state(step)[0] for _ in range(5)]
    assert found == [2, 1, 2, 1, 2]


def test_callbacks_speak_to_their_own_run():
    def run():
        log = []

        def step(h, x):
            jax.debug.callback(log.append, h[0])
            return 2 * h, x

        last_state(step, length=3)
        jax.effects_barrier()
        return log

    assert [len(run()) for _ in range(3)] == [3, 3, 3]


def with_a_rule(slope, read=lambda slope: slope[0]):
    @jax.custom_jvp
    def same(h):
        return h

    same.defjvp(lambda h, t: (same(*h), read(slope) * t[0]))
    return lambda h, x: (same(h), x)


def slope_of(step):
    found = vgjax.state_jacobians(step, jnp.ones(1, jnp.float32), length=1)
    return float(found[0, 0, 0])


def test_rules_of_derivatives_read_what_is_there_now():
    old = [1.0]
    step = with_a_rule(old)
    last_state(step)
    old[0] = 2.0
    assert slope_of(with_a_rule([1.0])) == 1.0
    assert slope_of(step) == 2.0
    behind_a_module = with_a_rule(SETTINGS, lambda module: module.gain)
    assert slope_of(behind_a_module) == 1.0
    SETTINGS.gain = 2.0
    assert slope_of(behind_a_module) == 2.0


def clocked(h, x):
    return perf_counter_ns() * h, x


def by_batch(h, x):
    return jax.lax.psum(1, "batch") * h, x


@pytest.mark.parametrize(
    "step", [clocked, by_batch, an_iterator()[0], an_import_within()[0]]
)
def test_what_depends_on_the_moment_has_no_fingerprint(step):
    assert fingerprint(step) is None
    assert fingerprint(over(2.0)) is not None


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
        lambda: steps.from_function(lambda W, h, x: (W @ h, x), 2 * W),
        lambda: functools.partial(lambda W, h, x: (W @ h, x), 2 * W),
    ]
    x = jnp.ones((3, 2), jnp.float32)
    for make in [*(lambda step=step: step for step in kept), *made_anew]:
        jax.clear_caches()
        _programs._TRACED.clear()
        with traces() as first:
            last_state(make(), inputs=x)
        with traces() as traced:
            last_state(make(), inputs=x)
        assert first
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
    "leading_spectrum": functools.partial(vgjax.spectra.leading_spectrum, k=1),
    "cotangents": lambda *run: vgjax.gradients.cotangents(*run, last_of),
    "log_cotangents": lambda *run: vgjax.gradients.log_cotangents(*run, last_of),
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

    step = steps.from_function(network, jnp.eye(12, dtype=dtype))
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
