"""What holds for every cell of the zoo, and what `build` says to bad input."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from flax import nnx
from support.lowering import precisions

import vgjax
from vgjax import cells

T, D = 12, 2

# Sizes at which N is 4 or 6: the spectra of all are then two programs.
SMALL = {
    "skip": {"features": 2, "delay": 2},
    "dilated": {"features": 2, "dilations": (1, 2)},
    "clockwork": {"periods": (1, 2)},
    "lstm": {"features": 2},
    "chrono_lstm": {"features": 2, "Tmax": 20},
    "layer_norm_lstm": {"features": 3},
    "batch_norm_rnn": {"features": 1, "batch": 4},
    "batch_norm_lstm": {"features": 1, "batch": 3},
    "frozen_batch_norm_lstm": {"features": 2},
    "lru": {"features": 2},
    "attention": {"features": 1, "window": 3},
    # Of four ReLU units normalisation and zeros soon leave nothing.
    "batch_norm_layers": {"features": 2, "batch": 3, "activation": "tanh"},
    "shared_batch_norm_layers": {"features": 2, "batch": 3, "activation": "tanh"},
    "layer_norm_layers": {"activation": "tanh"},
    "shared_layer_norm_layers": {"activation": "tanh"},
    "transformer": {"features": 2, "tokens": 3},
    "shared_transformer": {"features": 2, "tokens": 3},
}
OVER_DEPTH = {name for name in cells.names() if cells.is_over_depth(name)}
OF_ITS_OWN = {name for name in OVER_DEPTH if not name.startswith("shared")}


def build(name, seed, **more):
    given = {"features": 4, **SMALL.get(name, {}), **more}
    key = seed if isinstance(seed, jax.Array) else jax.random.key(seed)
    D_of_it = 0 if name in OVER_DEPTH else D
    return cells.build(name, D_of_it, given.pop("features"), key=key, **given)


def case(name, seed=1, **more):
    """Cell, a carry in general position, and inputs."""
    cell = build(name, seed, **more)
    carry = cell.initialize_carry(rngs=nnx.Rngs(seed + 1))
    keys = iter(jax.random.split(jax.random.key(seed + 2), 10))
    carry = jax.tree.map(
        lambda a: (
            a
            if jnp.issubdtype(a.dtype, jnp.integer)
            else a + 0.3 * jax.random.normal(next(keys), a.shape, a.dtype)
        ),
        carry,
    )
    return cell, carry, cell.random_inputs(jax.random.key(seed + 3), T)


def cast(tree, dtype):
    return jax.tree.map(lambda a: a if is_whole(a) else a.astype(dtype), tree)


def is_whole(a):
    return jnp.issubdtype(a.dtype, jnp.integer)


def at(inputs, t):
    """What goes in at step t."""
    return None if inputs is None else jax.tree.map(lambda a: a[t], inputs)


def real_part(carry):
    """Flat state, without clocks, and the carry that a changed one belongs to."""
    leaves, structure = jax.tree.flatten(carry)
    state, unravel = jax.flatten_util.ravel_pytree(
        [a for a in leaves if not is_whole(a)]
    )

    def with_state(state):
        real = iter(unravel(state))
        return structure.unflatten([a if is_whole(a) else next(real) for a in leaves])

    return state, with_state


@functools.cache
def jacobians_of(name):
    return np.asarray(vgjax.state_jacobians(*case(name), length=T))


every_cell = pytest.mark.parametrize("name", cells.names())


@pytest.mark.float64
@every_cell
def test_jacobian_is_the_central_difference(name):
    # After three steps clocks have ticked, some units wait, and caches have filled.
    t = 3
    cell, carry, inputs = case(name)
    for s in range(t):
        carry, _ = cell(carry, at(inputs, s))
    x = at(inputs, t)
    state, with_state = real_part(carry)

    @jax.jit
    @jax.vmap
    def after(state):
        return real_part(cell(with_state(state), x)[0])[0]

    h = 1e-6
    steps = h * np.eye(len(state))
    # One call for all columns, which oracles.central_difference cannot do.
    there = np.asarray(
        after(jnp.concatenate([state[None] + s for s in (steps, -steps)]))
    )
    difference = ((there[: len(state)] - there[len(state) :]) / (2 * h)).T
    np.testing.assert_allclose(jacobians_of(name)[t], difference, rtol=0, atol=2e-8)
    assert np.abs(difference).max() > 1e-3


@pytest.mark.float64
@every_cell
def test_spectrum_is_the_one_of_exact_arithmetic(name):
    J = jacobians_of(name)
    found = vgjax.products.product_spectrum(J).log_singular_values
    answers = oracles.log_singular_values(J, {1, 4, T}, digits=150)
    # Normalisation annihilates directions, in floats to rounding only: 1e-17.
    kept = np.sum(answers[1] > answers[1][0] - 32)
    # An ulp of the largest entry of their Jacobians moves their third value by 2e-9.
    atol = 1e-8 if name in ("layer_norm_rnn", "batch_norm_layers") else 1e-9
    for t, answer in answers.items():
        values, rank = found[t - 1], min(kept, np.isfinite(answer).sum())
        np.testing.assert_allclose(values[:rank], answer[:rank], rtol=0, atol=atol)
        assert np.all((values[rank:] < values[0] - 32) | np.isneginf(values[rank:]))


@pytest.mark.float64
@pytest.mark.parametrize("name", ["gru", "clockwork", "layers", "shared_layers"])
def test_spectrum_of_a_cell_is_that_of_its_jacobians(name):
    cell, carry, inputs = case(name)
    found = vgjax.jacobian_spectrum(cell, carry, inputs, length=T, reverse=True)
    of_them = vgjax.products.product_spectrum(jacobians_of(name), reverse=True)
    np.testing.assert_allclose(found.log_singular_values, of_them.log_singular_values)


@every_cell
def test_new_weights_run_the_compiled_program_and_keys_make_an_ensemble(name, dtype):
    _, carry, inputs = case(name, dtype=dtype)
    traces = []

    def made(key):
        cell = build(name, key, dtype=dtype)
        # Weights of their own are drawn with the layers.
        return cell, cell.random_inputs(key, T) if name in OF_ITS_OWN else inputs

    def states(cell, inputs):
        traces.append(name)
        return vgjax.rollout(cell, carry, inputs, length=T).states

    run = jax.jit(states)
    keys = jax.random.split(jax.random.key(5), 2)
    by_itself = np.stack([run(*made(key)) for key in keys])
    assert len(traces) == 1
    ensemble = jax.vmap(lambda key: states(*made(key)))(keys)
    atol = 1e-5 if dtype == jnp.float32 else 1e-13
    np.testing.assert_allclose(ensemble, by_itself, rtol=0, atol=atol)
    assert np.abs(by_itself[0] - by_itself[1]).max() > 1e-4
    assert by_itself.dtype == dtype


@pytest.mark.float64
@every_cell
def test_float32_is_float64_to_its_own_rounding(name):
    cell, carry, inputs = case(name, dtype=jnp.float32)
    single = vgjax.rollout(cell, carry, inputs, length=T)
    double = vgjax.rollout(*cast((cell, carry, inputs), jnp.float64), length=T)
    assert single.states.dtype == jnp.float32
    assert double.states.dtype == jnp.float64
    size = np.abs(double.states).max()
    np.testing.assert_allclose(
        single.states, double.states, rtol=0, atol=2e-4 * max(1, size)
    )


@every_cell
def test_fifty_steps_of_optax_bring_the_loss_down(name, dtype):
    cell, carry, inputs = case(name, dtype=dtype)
    graph, weights, rest = nnx.split(cell, nnx.Param, ...)
    # Weights of their own are the inputs, and are what is trained.
    trained = inputs if name in OF_ITS_OWN else weights
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.02))

    def loss(trained):
        own = name in OF_ITS_OWN
        cell = nnx.merge(graph, weights if own else trained, rest)
        given = trained if own else inputs
        outputs = vgjax.rollout(cell, carry, given, length=T).outputs
        return jnp.mean((outputs - 0.3) ** 2)

    def update(state, _):
        trained, memory = state
        value, gradient = jax.value_and_grad(loss)(trained)
        updates, memory = optimiser.update(gradient, memory)
        return (optax.apply_updates(trained, updates), memory), value

    start = (trained, optimiser.init(trained))
    (after, _), losses = jax.lax.scan(update, start, length=50)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    chex.assert_trees_all_equal_shapes_and_dtypes(after, trained)


def test_a_cell_of_the_zoo_runs_in_the_rnn_of_flax(dtype):
    cell, _, inputs = case("lstm", dtype=dtype)
    outputs = nnx.RNN(cell)(inputs)
    ours = vgjax.rollout(cell, cell.initialize_carry(), inputs).outputs
    atol = 1e-6 if dtype == jnp.float32 else 1e-14
    np.testing.assert_allclose(outputs, ours, rtol=0, atol=atol)


@every_cell
def test_default_dtype_is_that_of_jax(name, dtype):
    cell = build(name, 1)
    leaves = jax.tree.leaves((cell, cell.initialize_carry(rngs=jax.random.key(0))))
    assert {a.dtype for a in leaves if not is_whole(a)} == {np.dtype(dtype)}


# Options


@every_cell
def test_every_option_is_listed_with_the_value_it_has(name):
    listed = cells.options(name)
    assert {"key", "dtype"}.isdisjoint(listed)
    given = {k: v for k, v in listed.items() if k not in SMALL.get(name, {})}
    with_defaults = build(name, 1, **given)
    chex.assert_trees_all_equal(
        jax.tree.leaves(with_defaults), jax.tree.leaves(build(name, 1))
    )


def test_an_option_list_does_not_name_what_makes_the_cell_what_it_is():
    assert "activation" not in cells.options("irnn")
    assert "layer" not in cells.options("layers")
    assert "batch" not in cells.options("frozen_batch_norm_rnn")
    assert cells.options("smart_tanh")["spectral_radius"] == 0.95
    assert cells.options("batch_norm_layers")["batch"] == 8
    assert cells.options("transformer")["heads"] == 2


# Bad input

BAD = [
    # An unknown name, with all there are and the nearest.
    (
        "lsmt",
        {},
        ValueError,
        "`name` must be one of 'linear', .*'lru'.*'lsmt'; .*'lstm'",
    ),
    ("LSTM", {}, ValueError, "but is 'LSTM'; the nearest is 'lstm'"),
    (["lstm"], {}, ValueError, r"`name` must be one of .* but is \['lstm'\]"),
    ("lstm", {"forget_bias": "a"}, ValueError, "`forget_bias` must be a finite number"),
    ("layers", {"layer": 3}, TypeError, "`layer` must be an option of 'layers'"),
    ("zzzzz", {}, ValueError, "but is 'zzzzz'\\.$"),
    # An unknown option, likewise.
    (
        "lstm",
        {"forgetbias": 1.0},
        TypeError,
        "`forgetbias` must be an option of 'lstm', but its options are forget_bias; "
        "the nearest is 'forget_bias'",
    ),
    ("gru", {"gain": 1.0}, TypeError, "`gain` .* of 'gru', but its options are none"),
    ("irnn", {"activation": "tanh"}, TypeError, "`activation` must be an option of"),
    (
        "layers",
        {"batch": 3},
        TypeError,
        "`batch` .* of 'layers', but its options are activation, gain",
    ),
    # Values.
    ("tanh", {"gain": 0.0}, ValueError, "`gain` must be a number above 0, but is 0.0"),
    ("layers", {"gain": -1}, ValueError, "`gain` must be a number above 0, but is -1"),
    ("clockwork", {"gain": 0}, ValueError, "`gain` must be a number above 0"),
    ("batch_norm_rnn", {"gain": 0}, ValueError, "`gain` must be a number above 0"),
    ("tanh", {"gain": "big"}, ValueError, "`gain` must be a number .* but is 'big'"),
    ("tanh", {"spectral_radius": -1.0}, ValueError, "`spectral_radius` must be"),
    ("tanh", {"input_std": 0}, ValueError, "`input_std` must be a number above 0"),
    (
        "tanh",
        {"recurrent": "ortogonal"},
        ValueError,
        "`recurrent` must be one of 'gaussian', 'orthogonal', .*'ortogonal'",
    ),
    ("tanh", {"nonzeros": 3}, ValueError, "`nonzeros` must come with recurrent='sp"),
    ("smart_tanh", {"nonzeros": 9}, ValueError, "`nonzeros` must be .* at most 4"),
    ("smart_tanh", {"nonzeros": 0}, ValueError, "`nonzeros` must be at least 1"),
    ("leaky", {"time_constants": 0.5}, ValueError, "`time_constants` .* from 0.5 to"),
    ("leaky", {"time_constants": np.inf}, ValueError, "`time_constants` must be fin"),
    ("leaky", {"time_constants": [1.0, 2.0]}, ValueError, "`time_constants` must have"),
    ("leaky", {"log_uniform": (0.1, 3)}, ValueError, "`log_uniform` must be"),
    (
        "leaky",
        {"time_constants": 2.0, "log_uniform": (1, 3)},
        ValueError,
        "`log_uniform` must be None where `time_constants` is given",
    ),
    ("skip", {"delay": 0}, ValueError, "`delay` must be at least 1, but is 0"),
    ("skip", {"delay": 1.5}, TypeError, "`delay` must be a whole number, but is 1.5"),
    (
        "dilated",
        {"dilations": ()},
        ValueError,
        "`dilations` must be a sequence .* is \\(\\)",
    ),
    ("dilated", {"dilations": (1, 0)}, ValueError, r"`dilations\[1\]` must be at"),
    ("clockwork", {"periods": (1, 2, 4)}, ValueError, "`features` must be a multiple"),
    ("clockwork", {"periods": (2, 1)}, ValueError, "`periods` must be ascending"),
    ("clockwork", {"periods": 3}, ValueError, "`periods` must be a sequence .* is 3"),
    ("chrono_lstm", {"Tmax": 2}, ValueError, "`Tmax` must be at least 3 .* is 2"),
    ("chrono_lstm", {"Tmax": np.nan}, ValueError, "`Tmax` must be at least 3"),
    ("batch_norm_rnn", {"batch": 1}, ValueError, "`batch` must be at least 2"),
    ("residual", {"eps": 0.0}, ValueError, "`eps` must be a number above 0"),
    ("antisymmetric", {"gamma": -0.1}, ValueError, "`gamma` must be .* at least 0"),
    ("leaky", {"log_uniform": (1, "b")}, ValueError, "`log_uniform` must be .* 'b'"),
    ("leaky", {"time_constants": [1j] * 4}, TypeError, "`time_constants` must be real"),
    ("tanh", {"gain": 1j}, ValueError, "`gain` must be a number above 0, but is 1j"),
    ("layers", {"activation": ["tanh"]}, ValueError, r"`activation` must be one of"),
    ("lstm", {"forget_bias": np.nan}, ValueError, "`forget_bias` must be a finite"),
    (
        "clockwork",
        {"periods": (1, 2**40)},
        ValueError,
        r"`periods\[1\]` must be .* most",
    ),
    ("transformer", {"causal": "no"}, TypeError, "`causal` must be True or False"),
    ("tanh", {"key": np.zeros(3, np.uint32)}, TypeError, r"JAX key, .* uint32\[3\]"),
    ("residual", {"eps": np.inf}, ValueError, "`eps` must be a number .* is inf"),
    ("chrono_lstm", {"Tmax": "10"}, ValueError, "`Tmax` must be .* but is '10'"),
    ("lru", {"r_max": "a"}, ValueError, "`r_max` must be a radius .* 'a'"),
    ("cayley", {"negative": 5}, ValueError, "`negative` must be .* at most 4"),
    ("lru", {"r_min": 0.9, "r_max": 0.8}, ValueError, "`r_max` must be above `r_min`"),
    ("lru", {"max_phase": 0}, ValueError, "`max_phase` must be a number above 0"),
    ("attention", {"heads": 3}, ValueError, "`features` must be a multiple of the 3"),
    ("transformer", {"heads": 3}, ValueError, "`features` must be a multiple of the 3"),
    ("attention", {"window": 0}, ValueError, "`window` must be at least 1"),
    ("transformer", {"tokens": 0}, ValueError, "`tokens` must be at least 1"),
    ("batch_norm_layers", {"batch": 1}, ValueError, "`batch` must be at least 2"),
    ("tanh", {"dtype": jnp.int32}, TypeError, "`dtype` must be float32 or float64"),
    ("tanh", {"key": 0}, TypeError, "`key` must be a JAX key, .* but is int"),
    ("layers", {"key": None}, TypeError, "`key` must be a JAX key, .* NoneType"),
    ("tanh", {"features": 0}, ValueError, "`features` must be at least 1, but is 0"),
    ("tanh", {"inputs": 0}, ValueError, "`inputs` must be at least 1, but is 0"),
    ("layers", {"inputs": 2}, ValueError, "`inputs` must be 0 for a network over"),
]


@pytest.mark.parametrize(("name", "given", "error", "match"), BAD)
def test_what_build_cannot_use_is_refused_in_one_sentence(name, given, error, match):
    D_of_it = 0 if str(name) in OVER_DEPTH else D
    sizes = {"inputs": D_of_it, "features": 4, "key": jax.random.key(0)}
    with pytest.raises(error, match=match) as raised:
        cells.build(name, **{**sizes, **given})
    assert "\n" not in str(raised.value)


def test_inputs_of_another_width_are_refused_by_name(dtype):
    cell, carry, _ = case("gru", dtype=dtype)
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(D=2,\)"):
        vgjax.rollout(cell, carry, jnp.zeros((T, 3), dtype))
    cell, carry, _ = case("batch_norm_rnn", dtype=dtype)
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch=4, D=2\)"):
        vgjax.rollout(cell, carry, jnp.zeros((T, 2), dtype))


def test_a_radius_may_be_a_numpy_number():
    cell = build("lru", 1, r_max=np.float32(0.95), r_min=np.float64(0.5))
    assert float(jnp.exp(-jnp.exp(cell.log_nu[...])).max()) < 0.951


@pytest.mark.float64
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("lru", {"r_max": np.float64(0.99), "max_phase": np.float64(1.0)}),
        ("residual", {"eps": np.float64(0.1)}),
        ("antisymmetric", {"gamma": np.float64(0.1), "gain": np.float64(1.0)}),
        ("layers", {"gain": jnp.array(2.0)}),
        ("clockwork", {"gain": np.array(2.0)}),
        ("minimal_rnn", {"features": np.int64(4), "forget_bias": np.float64(1.0)}),
        ("chrono_lstm", {"Tmax": np.float64(10.0)}),
        ("leaky", {"time_constants": np.arange(1.0, 5.0)}),
    ],
)
def test_numbers_of_numpy_leave_a_cell_the_dtype_it_was_asked_for(name, given):
    cell, carry, inputs = case(name, dtype=jnp.float32, **given)
    found = vgjax.rollout(cell, carry, inputs, length=T).states
    assert found.dtype == jnp.float32


def test_a_sweep_may_trace_what_is_a_number(dtype):
    _, carry, inputs = case("residual", dtype=dtype)

    def last(eps):
        cell = build("residual", 1, eps=eps, dtype=dtype)
        return vgjax.rollout(cell, carry, inputs).states[-1]

    found = jax.vmap(last)(jnp.array([0.1, 0.2], dtype))
    np.testing.assert_allclose(found[1], last(0.2), rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.raises(TypeError, match="`gain` must be known when layers are built"):
        jax.vmap(lambda g: build("layers", 1, gain=g).features)(jnp.ones(2, dtype))


def test_freezing_wants_a_batch_of_a_cell_that_is_not_frozen(dtype):
    cell, carry, inputs = case("batch_norm_rnn", dtype=dtype)
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(T, batch, D=2\)"):
        cell.freeze(carry, inputs[..., :1])
    with pytest.raises(
        ValueError, match="`inputs` must be those of a batch of at least"
    ):
        cell.freeze(carry[:1], inputs[:, :1])
    with pytest.raises(ValueError, match=".* whose statistics are not frozen yet"):
        cell.freeze(carry, inputs).freeze(carry, inputs)


def test_a_batch_of_another_size_is_refused_over_depth(dtype):
    cell, carry, inputs = case("batch_norm_layers", dtype=dtype)
    with pytest.raises(ValueError, match=r"`carry` must have shape \(3, 2\), but has"):
        vgjax.rollout(cell, carry[0], inputs)


def test_layers_are_refused_by_name_where_they_are_none(dtype):
    cell, carry, _ = case("layers", dtype=dtype)
    with pytest.raises(TypeError, match="`inputs` must be layers, as of random_inputs"):
        vgjax.rollout(cell, carry, jnp.zeros((T, 4), dtype))
    with pytest.raises(TypeError, match="`layer` must be a class of layers, but is 'D"):
        cells.Layers(0, 4, key=jax.random.key(0), layer="Dense")
    with pytest.raises(ValueError, match="`features` must be at least 1, but is 0"):
        cells.TransformerBlock(0, key=jax.random.key(0))


def test_depth_wants_a_key_for_its_first_state():
    with pytest.raises(TypeError, match="`rngs` must be .* JAX key, .* NoneType"):
        build("layers", 1).initialize_carry()


def test_unknown_class_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'vgjax.cells' has no attribute 'LTSM'"):
        cells.LTSM  # noqa: B018
    assert "LSTM" in dir(cells)


# Devices


@every_cell
def test_a_step_lowers_for_every_device_at_full_precision(name, dtype):
    cell, carry, inputs = case(name, dtype=dtype)
    x = at(inputs, 0)

    def step(cell, carry, x):
        return cell(carry, x)

    found = precisions(step, (cell, carry, x))
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}
    traced = jax.jit(step).trace(cell, carry, x)
    for platform in ("cpu", "cuda", "tpu"):
        assert traced.lower(lowering_platforms=(platform,)).as_text()
