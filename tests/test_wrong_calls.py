"""Wrong calls, each with the sentence that answers it."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import vgjax
from vgjax import cells, plots, steps, theory

ONE = np.float32
CELL = nnx.GRUCell(1, 3, rngs=nnx.Rngs(0))
CARRY = jnp.zeros(3, ONE)
INPUTS = jnp.ones((5, 1), ONE)
RNN = nnx.RNN(CELL)


def alone(h, x):
    del x
    return h


def generator(h, x):
    yield h, x


def with_parameters(params, h, x):
    return params @ h, x


def with_a_label(h, x):
    del x
    return h, "h"


WRONG = {
    "inputs without an axis for D": (
        (CELL, CARRY, INPUTS[:, 0]),
        r"`inputs` must have shape \(T, D\), but has shape \(5,\).*inputs\[:, None\]",
    ),
    "a batch of carries and inputs": (
        (CELL, jnp.zeros((4, 3), ONE), jnp.ones((4, 5, 1), ONE)),
        r"one trajectory.* shapes \(4, 3\) and \(4, 5, 1\).*jax\.vmap.*here 12 numbers",
    ),
    "a batch of inputs": (
        (CELL, CARRY, jnp.ones((4, 5, 1), ONE)),
        r"goes in as float32\[3\] and comes out as float32\[5, 3\].*jax\.vmap",
    ),
    "nnx.RNN": ((RNN, CARRY, INPUTS), "is a RNN of Flax, .*give its cell"),
    "nnx.Bidirectional": (
        (nnx.Bidirectional(RNN, RNN), CARRY, INPUTS),
        "is a Bidirectional of Flax, .*give its cell",
    ),
    "linen.RNN": (
        (linen.RNN(linen.GRUCell(3)), CARRY, INPUTS),
        "is a RNN of Flax, .*give its cell",
    ),
    "a linen cell": ((linen.GRUCell(3), CARRY, INPUTS), "linen module; .*from_linen"),
    "a whole model": (
        (nnx.Linear(1, 3, rngs=nnx.Rngs(0)), CARRY, INPUTS),
        "Linear needs one argument only .*give the cell",
    ),
    "the carry forgotten": ((CELL, INPUTS), r"`length` must be given .*with a carry"),
    "no carry": ((CELL, None, INPUTS), "`carry` must hold at least one number"),
    "a carry of text": ((CELL, "h", INPUTS), "`carry` must be an array, .*but is str"),
    "a step of three arguments": (
        (with_parameters, CARRY, INPUTS),
        r"takes \(params, h, x\); .*from_function",
    ),
    "an Equinox cell": (
        (equinox.nn.GRUCell(1, 3, key=jax.random.key(0)), CARRY, INPUTS),
        "is the Equinox GRUCell, .*from_equinox",
    ),
    "the state alone": (
        (alone, CARRY, INPUTS),
        r"must return the pair \(carry, y\), but returns an array alone",
    ),
    "the state of an LSTM alone": (
        (alone, (CARRY, CARRY), INPUTS),
        "must return a carry of the structure",
    ),
    "text instead of a state": (
        (lambda h, x: "h", CARRY, INPUTS),  # noqa: ARG005
        r"pair \(carry, y\), but returns str",
    ),
    "text as output": ((with_a_label, CARRY, INPUTS), "PyTrees of arrays, .*str"),
    "a generator": ((generator, CARRY, INPUTS), r"pair .*, but returns generator"),
    "a list of inputs": (
        (CELL, CARRY, [jnp.ones(1, ONE)] * 5),
        r"list of 5 arrays.*jnp\.stack\(inputs\)",
    ),
    "no step": ((CARRY, CARRY, INPUTS), "`step` must be callable as"),
    "another carry than a cell of the zoo has": (
        (cells.build("lstm", 1, 3, key=jax.random.key(0), dtype=ONE), CARRY, INPUTS),
        r"`carry` must have the shapes \(\(3,\), \(3,\)\), .*but has \(3,\)",
    ),
    "a closure over a module that changes": (
        (lambda h, x: (DROPOUT(h), x), CARRY, INPUTS),
        "must be the Flax module itself",
    ),
}
DROPOUT = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("call", [vgjax.rollout, vgjax.jacobian_spectrum])
def test_a_wrong_step_carry_or_input_gets_one_sentence(call, kind):
    arguments, sentence = WRONG[kind]
    with (
        jax.numpy_dtype_promotion("standard"),  # what users have
        jax.numpy_rank_promotion("allow"),
        pytest.raises((TypeError, ValueError), match=sentence) as caught,
    ):
        call(*arguments)
    assert str(caught.value).startswith(("Argument `", "Arguments `"))


def test_what_the_user_broke_is_told_in_its_own_words():
    def broken(h, x):
        del h, x
        msg = "my own mistake"
        raise KeyError(msg)

    with pytest.raises(KeyError, match="my own mistake"):
        vgjax.rollout(broken, CARRY, INPUTS)


def linen_gru():
    module = linen.GRUCell(3)
    return module, module.init(jax.random.key(0), CARRY, INPUTS[0])


def test_variables_of_linen_that_do_not_fit_get_one_sentence():
    module, variables = linen_gru()
    with pytest.raises(ValueError, match=r"`variables` .*'params'.*has only \['hn'"):
        steps.from_linen(module, variables["params"])
    model = {"params": {"cell": variables["params"], "head": {}}}
    step = steps.from_linen(module, model)
    with pytest.raises(ValueError, match="`variables` must be what `module.init`"):
        vgjax.rollout(step, CARRY, INPUTS)
    with pytest.raises(TypeError, match="`module` must be a cell, but is RNN"):
        steps.from_linen(linen.RNN(module), variables)
    with pytest.raises(TypeError, match="`variables` must be the mapping"):
        steps.from_linen(module, [variables])


CHAIN = np.ones((2, 1, 1), ONE)
OTHERS = {
    "reverse as text": (
        TypeError,
        lambda: vgjax.jacobian_spectrum(CELL, CARRY, INPUTS, reverse="no"),
        "`reverse` must be True or False, but is 'no'",
    ),
    "reverse as a number": (
        TypeError,
        lambda: vgjax.products.product_spectrum(CHAIN, reverse=1),
        "`reverse` must be True or False, but is 1",
    ),
    "errors as text": (
        TypeError,
        lambda: vgjax.jacobian_spectrum(CELL, CARRY, INPUTS, errors="no"),
        "`errors` must be True or False, but is 'no'",
    ),
    "errors as a number": (
        TypeError,
        lambda: vgjax.products.product_spectrum(CHAIN, errors=0),
        "`errors` must be True or False, but is 0",
    ),
    "rates of nothing": (
        TypeError,
        lambda: vgjax.growth_rates(None),
        "`spectrum` must be a Spectrum, .*but is NoneType",
    ),
    "rates of an array": (
        TypeError,
        lambda: vgjax.growth_rates(np.ones((3, 2))),
        "`spectrum` must be a Spectrum, .*but is ndarray",
    ),
    "a plot of an array": (
        TypeError,
        lambda: plots.spectrum(np.ones((3, 2))),
        "`spectrum` must be a Spectrum, .*but is ndarray",
    ),
    "a push onto nothing": (
        TypeError,
        lambda: vgjax.products.push(None, np.eye(2)),
        "`product` must be a GradedProduct, .*but is NoneType",
    ),
    "a push onto an array": (
        TypeError,
        lambda: vgjax.products.push(np.eye(2), np.eye(2)),
        "`product` must be a GradedProduct, .*but is ndarray",
    ),
    "powers up to a number": (
        ValueError,
        lambda: theory.power_spectrum(np.eye(2, dtype=ONE), 100),
        r"`steps` must have shape \(R,\), such as \[100\], but is the scalar 100",
    ),
    "a batch of inputs for one carry": (
        ValueError,
        lambda: vgjax.gradients.signal_to_noise(
            CELL, CARRY, jnp.ones((4, 5, 1), ONE), lambda run: run.carry.sum()
        ),
        r"`carry` must have the batch along its leading axis, .*broadcast_to",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_wrong_call_gets_one_sentence(kind):
    error, call, sentence = OTHERS[kind]
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert str(caught.value).startswith("Argument `")


def test_a_radius_beyond_the_floats_is_infinite():
    largest = np.finfo(np.float64).max
    W = np.full((2, 2), largest)
    assert theory.pseudospectral_radius(W, largest) == np.inf
