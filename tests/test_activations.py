"""Derivatives of activation functions against mpmath, and the rewriting of programs."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from vgjax import activations

DTYPES = ["float32", pytest.param("float64", marks=pytest.mark.float64)]
JAX = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=True),
    "erf": jax.scipy.special.erf,
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_tanh": jax.nn.hard_tanh,
}
# A little beyond where the last derivative leaves the normal numbers.
REACH = {
    "tanh": (44.8, 355.5),
    "sigmoid": (88, 709),
    "softplus": (88, 709),
    "silu": (96, 718),
    "gelu": (11, 23),
    "erf": (9.6, 26.8),
    "elu": (88, 709),
}


def logistic(v):
    """S, S' and S'' in as many digits as mpmath has."""
    e = mpmath.exp(-abs(v))
    slope = e / (1 + e) ** 2
    return 1 / (1 + mpmath.exp(-v)), slope, -slope * mpmath.tanh(v / 2)


def terms(name, x):
    """What the first and the second derivative are sums of."""
    S, S1, S2 = logistic(x)
    if name == "tanh":
        t = mpmath.tanh(x)
        e = mpmath.sech(x) ** 2
        return [e], [-2 * t * e]
    if name == "sigmoid":
        return [S1], [S2]
    if name == "softplus":
        return [S], [S1]
    if name == "silu":
        return [S, x * S1], [2 * S1, x * S2]
    if name == "gelu":
        a = 2 * mpmath.sqrt(2 / mpmath.pi)
        b = a * mpmath.mpf("0.044715")
        S, S1, S2 = logistic(a * x + b * x**3)
        v1, v2 = a + 3 * b * x**2, 6 * b * x
        return [S, x * v1 * S1], [2 * v1 * S1, x * v2 * S1, x * v1**2 * S2]
    if name == "erf":
        slope = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(x**2))
        return [slope], [-2 * x * slope]
    assert name == "elu"
    return ([mpmath.exp(x)], [mpmath.exp(x)]) if x <= 0 else ([1], [0])


def grid(name, dtype):
    """Evenly over the range, and evenly in log, with zero."""
    reach = REACH[name][dtype == "float64"]
    small = np.geomspace(1e-6, reach, 32)
    # Where gelu'' was off by up to 4.8 eps: the worst of millions of points.
    hard = [4.625872, 5.938571969460071, -6.85289505795447]
    hard += [6.213420756971733, -6.212435602277437]
    parts = [np.linspace(-reach, reach, 91), small, -small, hard]
    return np.sort(np.concatenate(parts)).astype(dtype)


@functools.cache
def measured(dtype):
    """{name: (x, value, first, second)} of all the functions, compiled as one."""
    points = {name: grid(name, dtype) for name in REACH}

    def derivatives(points):
        found = {}
        for name, x in points.items():
            f = getattr(activations, name)
            orders = (f, jax.grad(f), jax.grad(jax.grad(f)))
            found[name] = (x, *(jax.vmap(order)(x) for order in orders))
        return found

    return jax.tree.map(np.asarray, jax.jit(derivatives)(points))


def errors(name, dtype, order):
    """In eps of the largest term; None where the truth is no normal number."""
    x, _, *found = measured(dtype)[name]
    info = np.finfo(dtype)
    with mpmath.workdps(40):
        for at, number in zip(x, found[order - 1], strict=True):
            true = terms(name, mpmath.mpf(float(at)))[order - 1]
            total = mpmath.fsum(true)
            size = max(abs(term) for term in true)
            if abs(total) >= info.tiny:
                yield float(abs(mpmath.mpf(float(number)) - total) / size / info.eps)
            else:
                assert abs(number) <= 2 * info.tiny


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", REACH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives_are_right_to_four_eps(name, order, dtype):
    found = list(errors(name, dtype, order))
    assert len(found) > 70
    assert max(found) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_grids_go_beyond_the_last_normal_number(dtype):
    for name in REACH:
        x = grid(name, dtype)
        with mpmath.workdps(40):
            ends = [
                mpmath.fsum(terms(name, mpmath.mpf(float(x[0])))[k]) for k in (0, 1)
            ]
        assert all(abs(end) < np.finfo(dtype).tiny for end in ends), name


@pytest.mark.parametrize("name", JAX)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_jax(name, dtype):
    x = grid(name if name in REACH else "silu", dtype)
    ours, theirs = getattr(activations, name)(x), JAX[name](x)
    assert ours.dtype == theirs.dtype == dtype
    np.testing.assert_array_equal(ours, theirs)
    assert getattr(activations, name).__name__ == name


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_tanh_has_lost_what_ours_keeps(dtype):
    x = jnp.asarray(10.0 if dtype == "float32" else 20.0, dtype)
    truth = 4 * np.exp(-2.0 * float(x))
    np.testing.assert_allclose(jax.grad(activations.tanh)(x), truth, rtol=1e-6)
    # 0, or an ulp of 1 where XLA does not contract the polynomials of tanh.
    assert abs(float(jax.grad(jnp.tanh)(x)) - truth) > 0.9 * truth


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hard_tanh", "elu"])
def test_derivatives_at_kinks_are_those_of_jax(name, dtype):
    x = jnp.asarray([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0], dtype)
    for order in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        ours, theirs = (
            jax.vmap(order(f))(x) for f in (getattr(activations, name), JAX[name])
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_parameters_are_those_of_jax_and_have_derivatives(name, dtype):
    x, p = jnp.asarray([-2.0, 0.0, 3.0], dtype), jnp.asarray(0.3, dtype)
    ours, theirs = getattr(activations, name), JAX[name]
    np.testing.assert_array_equal(ours(x, 0.3), theirs(x, 0.3))

    @jax.jit
    def derivatives(x, p):
        return [(jax.jacrev(f)(x, p), jax.jacfwd(f, 1)(x, p)) for f in (ours, theirs)]

    for a, b in zip(*derivatives(x, p), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


LIMITS = {name: (0, 1) for name in ("softplus", "silu", "gelu", "elu")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_away_derivatives_are_their_limits_and_nan_gives_nan(dtype):
    big = np.finfo(dtype).max
    x = jnp.asarray([-np.inf, -big, big, np.inf, np.nan], dtype)

    def derivatives(x):
        found = {}
        for name in REACH:
            f = getattr(activations, name)
            found[name] = jax.vmap(lambda x, f=f: (jax.grad(f)(x), second(f)(x)))(x)
        return found

    def second(f):
        return jax.grad(jax.grad(f))

    for name, (one, two) in jax.jit(derivatives)(x).items():
        low, high = LIMITS.get(name, (0, 0))
        np.testing.assert_array_equal(one[:4], [low, low, high, high], name)
        np.testing.assert_array_equal(two[:4], 0, name)
        assert np.isnan(one[4]), name
        # That of elu is JAX's choice of the branch x <= 0.
        assert np.isnan(two[4]), name


def test_every_transformation_gives_the_same(dtype, tolerance):
    x = jnp.asarray([-3.0, -0.5, 0.0, 2.0], dtype)

    def both_ways(f):
        first = jax.vmap(jax.grad(f))(x)
        second = jax.vmap(jax.grad(jax.grad(f)))(x)
        hessian = jax.hessian(lambda x: jnp.sum(f(x)))
        found = (jax.jacrev(f)(x), jax.jacfwd(f)(x), hessian(x))
        return found, (jnp.diag(first), jnp.diag(first), jnp.diag(second))

    functions = [activations.tanh, activations.gelu]
    for found, expected in jax.jit(lambda: [both_ways(f) for f in functions])():
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance(1e-14, 1e-6))
    # And without `jit`.
    compiled = jax.jit(jax.jacrev(activations.tanh))(x)
    found = jax.jacrev(activations.tanh)(x)
    np.testing.assert_allclose(found, compiled, atol=tolerance(1e-14, 1e-6))


def test_third_derivatives_come_from_autodiff(dtype, tolerance):
    x = jnp.asarray([-2.5, -0.4, 0.0, 0.3, 2.0], dtype)

    def third(f):
        return jax.vmap(jax.grad(jax.grad(jax.grad(f))))(x)

    smooth = [name for name in REACH if name != "elu"]  # which has a kink at zero
    pairs = [(getattr(activations, name), JAX[name]) for name in smooth]
    for ours, theirs in jax.jit(lambda: [(third(f), third(g)) for f, g in pairs])():
        np.testing.assert_allclose(ours, theirs, atol=tolerance(1e-13, 1e-4))
    far = jnp.asarray(np.finfo(dtype).max / 4, dtype)
    assert jax.grad(jax.grad(jax.grad(activations.tanh)))(far) == 0


@pytest.mark.parametrize("name", JAX)
@pytest.mark.parametrize(
    ("x", "found"),
    [
        (1, "has dtype int"),
        (jnp.ones(2, jnp.bfloat16), "has dtype bfloat16"),
        (1j, "has dtype complex"),
        ("high", "is str"),
    ],
)
def test_what_is_not_real_floating_is_refused(name, x, found):
    with pytest.raises(TypeError, match=f"Argument `x` must be real .* but {found}"):
        getattr(activations, name)(x)


def scanned(x):
    return jax.lax.scan(lambda c, y: (jnp.tanh(c) * y, c), x, jnp.ones((1,), x.dtype))[
        0
    ]


@jax.custom_jvp
def with_rule(x):
    return jnp.tanh(x)


with_rule.defjvp(lambda x, dx: (with_rule(*x), 7 * dx[0]))


@jax.custom_vjp
def straight_through(x):
    return jnp.sign(jnp.tanh(x))


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))

PROGRAMS = {
    "bare": jnp.tanh,
    "jit": jax.jit(jnp.tanh),
    "scan": scanned,
    "scan of jit under checkpoint": jax.checkpoint(jax.jit(scanned)),
    "cond": lambda x: jax.lax.cond(x > 0, jnp.tanh, jnp.sin, x),
    "switch": lambda x: jax.lax.switch(1, [jnp.sin, jnp.tanh, jnp.cos], x),
    "fori": lambda x: jax.lax.fori_loop(0, 1, lambda _, c: jnp.tanh(c), x),
    "while": lambda x: jax.lax.while_loop(lambda c: c > 1, jnp.tanh, x),
    "vmap": lambda x: jax.vmap(jnp.tanh)(x[None])[0],
    "map": lambda x: jax.lax.map(jnp.tanh, x[None])[0],
    "ours": activations.tanh,
    "logistic": lambda x: 2 * jax.nn.sigmoid(2 * x),
    "constant": jax.jit(lambda x: jnp.tanh(x) * np.arange(1, 3, dtype=x.dtype)[0]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_rewritten_at_every_depth(name, dtype, tolerance):
    fn = PROGRAMS[name]
    x = jnp.asarray(tolerance(20.0, 9.0), dtype)
    slope = 4 * np.exp(-2 * np.float64(x))
    exact, plain = activations.exact(fn), activations.plain(fn)
    kept = [exact, activations.exact(plain)]
    lost = [plain, activations.plain(exact)]
    once = jax.jacfwd if name == "while" else jax.jacrev

    @jax.jit
    def measure(x):
        same = [g(x) - fn(x) for g in kept + lost]
        first = [[once(g)(x) for g in many] for many in (kept, lost)]
        return same, *first, jax.jacfwd(jax.jacfwd(exact))(x)

    same, right, wrong, second = measure(x)
    assert same == [0, 0, 0, 0]
    assert wrong == [0, 0]
    np.testing.assert_allclose(right, slope, 2e-6)
    np.testing.assert_allclose(second, -2 * slope, 2e-6)
    assert exact(x) == plain(x) == fn(x)


@pytest.mark.parametrize(("name", "x"), [("erf", 8.7), ("elu", -17.0)])
def test_other_primitives_are_rewritten_too(name, x, dtype):
    x = jnp.asarray(x, dtype)
    right = jax.grad(getattr(activations, name))(x)
    theirs = jax.grad(JAX[name])(x)
    # JAX 0.12 has both right by itself.
    assert theirs != right or jax.__version_info__ >= (0, 11)
    assert jax.grad(activations.exact(JAX[name]))(x) == right
    assert jax.grad(activations.plain(getattr(activations, name)))(x) == theirs


def test_rules_of_others_are_kept_or_looked_through(dtype):
    x = jnp.asarray(0.5, dtype)
    right = jax.grad(jnp.tanh)(x)
    assert jax.grad(activations.exact(with_rule))(x) == 7
    assert jax.grad(activations.exact(jax.jit(with_rule)))(x) == 7
    assert jax.grad(activations.plain(with_rule))(x) == right
    assert jax.grad(activations.plain(jax.jit(with_rule)))(x) == right
    for change in (activations.exact, activations.plain):
        assert jax.grad(change(straight_through))(x) == 1
        kept = jax.grad(change(jax.nn.relu))
        assert (kept(jnp.zeros_like(x)), kept(x)) == (0, 1)


def test_trees_keywords_and_closures_go_through(dtype):
    W = jnp.asarray([[1.0, 2.0], [3.0, 4.0]], dtype)

    def step(carry, x, *, gain):
        h = jnp.tanh(gain * carry["h"] @ W + x)
        return {"h": h, "count": carry["count"] + 1}, (h, None)

    def loss(W, change=lambda fn: fn):
        return change(lambda h: jnp.sum(jnp.tanh(h @ W)))(W[0])

    carry = {"h": jnp.ones(2, dtype), "count": jnp.zeros((), "int32")}
    args = (carry, jnp.ones(2, dtype))
    expected = step(*args, gain=2.0)
    for change in (activations.exact, activations.plain):
        found = jax.jit(change(step))(*args, gain=2.0)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
            assert a.dtype == b.dtype
        # Weights that are being differentiated are seen through a closure.
        found = jax.grad(partial(loss, change=change))(W)
        np.testing.assert_allclose(found, jax.grad(loss)(W), atol=1e-6)


def test_other_dtypes_keep_the_derivatives_of_jax():
    for x in (jnp.asarray(1.0, jnp.bfloat16), jnp.asarray(1 + 1j, jnp.complex64)):
        found = jax.jvp(activations.exact(jnp.tanh), (x,), (x,))
        assert found == jax.jvp(jnp.tanh, (x,), (x,))


@pytest.mark.parametrize("change", [activations.exact, activations.plain])
def test_what_is_not_callable_is_refused(change):
    with pytest.raises(TypeError, match="`fn` must be callable, but is int"):
        change(3)
