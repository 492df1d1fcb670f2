"""The cells of the zoo in NumPy, from their papers. Imports nothing of ours.

``step(p, s, x, t) -> (next s, y)``: p the parameters by name, s the flat state, x the
input, t how many steps were taken before. Written for complex s too, so that
`complex_step` differentiates it to the last digits.
"""

# ruff: noqa: ARG001 - all steps take the same arguments, and few need all of them

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from flax import nnx

EPSILON = 1e-5


def run(step, p, s, inputs):
    """States (T+1, N), outputs (T, ...) and Jacobians (T, N, N)."""
    states, outputs, jacobians = [np.asarray(s, float)], [], []
    for t, x in enumerate(inputs):
        jacobians.append(complex_step(lambda s, x=x, t=t: step(p, s, x, t)[0], s))
        s, y = step(p, s, x, t)
        states.append(s)
        outputs.append(y)
    return np.array(states), np.array(outputs), np.array(jacobians)


def complex_step(f, x):
    """Jacobian of an analytic f: no difference is taken, so nothing cancels."""
    h = 1e-30
    return np.stack([f(x + 1j * h * e).imag / h for e in np.eye(len(x))], axis=1)


# Activations, for complex numbers with a tiny imaginary part.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(np.real(a) > 0, a, 0)


def leaky_relu(a):
    return np.where(np.real(a) > 0, a, 0.01 * a)


def gelu(a):
    return a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


PHI = {
    "linear": lambda a: a,
    "tanh": np.tanh,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
}
SLOPES = {
    "linear": lambda a: np.ones_like(a),
    "tanh": lambda a: np.cosh(a) ** -2.0,
    "relu": lambda a: np.where(a > 0, 1.0, 0.0),
    "leaky_relu": lambda a: np.where(a > 0, 1.0, 0.01),
    "sigmoid": lambda a: sigmoid(a) * sigmoid(-a),
}


def affine(p, h, x):
    return p["W"] @ h + p["U"] @ x + p["b"]


# One matrix.


def recurrent(phi):
    def step(p, s, x, t):
        h = phi(affine(p["a"], s, x))
        return h, h

    return step


def residual(eps):
    def step(p, s, x, t):
        h = s + eps * np.tanh(affine(p["a"], s, x))
        return h, h

    return step


def antisymmetric(eps, gamma):
    def step(p, s, x, t):
        M = p["W"] - p["W"].T - gamma * np.eye(len(s))
        h = s + eps * np.tanh(M @ s + p["V"] @ x + p["b"])
        return h, h

    return step


# On the unit circle.


def lru(p, s, x, t):
    """The complex state is carried as its real parts, then its imaginary ones."""
    lam = np.exp(-np.exp(p["log_nu"]) + 1j * np.exp(p["log_theta"]))
    B, C = p["B"][0] + 1j * p["B"][1], p["C"][0] + 1j * p["C"][1]
    h = s[: len(lam)] + 1j * s[len(lam) :]
    h = lam * h + np.exp(p["log_gamma"]) * (B @ x)
    return np.concatenate([h.real, h.imag]), (C @ h).real + p["D"] * x


# Many time scales.


def leaky(tau):
    def step(p, s, x, t):
        h = (1 - 1 / tau) * s + np.tanh(affine(p["a"], s, x)) / tau
        return h, h

    return step


def skip(delay):
    def step(p, s, x, t):
        past = s.reshape(delay, -1)
        h = np.tanh(affine(p["a"], past[0], x) + p["V"] @ past[delay - 1])
        return np.concatenate([h, s[: len(s) - len(h)]]), h

    return step


def dilated(dilations, features):
    def step(p, s, x, t):
        new, h, start = [], x, 0
        for layer, d in enumerate(dilations):
            past = s[start : start + d * features]
            start += d * features
            h = np.tanh(affine(p["layers"][layer], past[-features:], h))
            new += [h, past[:-features]]
        return np.concatenate(new), h

    return step


def clockwork(periods, features):
    of_unit = np.repeat(periods, features // len(periods))

    def step(p, s, x, t):
        W = np.where(of_unit[:, None] <= of_unit[None, :], p["a"]["W"], 0)
        a = W @ s + p["a"]["U"] @ x + p["a"]["b"]
        h = np.where(t % of_unit == 0, np.tanh(a), s)
        return h, h

    return step


# Gates.


def gru(p, s, x, t):
    r, z = sigmoid(affine(p["r"], s, x)), sigmoid(affine(p["z"], s, x))
    reset = r * (p["n"]["W"] @ s + p["c"])
    n = np.tanh(p["n"]["U"] @ x + p["n"]["b"] + reset)
    h = (1 - z) * n + z * s
    return h, h


def mgu(p, s, x, t):
    f = sigmoid(affine(p["f"], s, x))
    reset = f * (p["n"]["W"] @ s + p["c"])
    n = np.tanh(p["n"]["U"] @ x + p["n"]["b"] + reset)
    h = (1 - f) * n + f * s
    return h, h


def minimal_rnn(p, s, x, t):
    z = np.tanh(p["W_x"] @ x + p["b_z"])
    u = sigmoid(affine(p["u"], s, z))
    h = u * s + (1 - u) * z
    return h, h


def lstm(p, s, x, t):
    c, h = np.split(s, 2)
    i, f, o = (sigmoid(affine(p[name], h, x)) for name in "ifo")
    c = f * c + i * np.tanh(affine(p["g"], h, x))
    h = o * np.tanh(c)
    return np.concatenate([c, h]), h


# Normalisation.


def layer_norm(p, z):
    z = z - z.mean()
    return p["alpha"] * z / np.sqrt((z * z).mean() + EPSILON) + p["beta"]


def layer_norm_rnn(p, s, x, t):
    h = np.tanh(layer_norm(p["norm"], p["W"] @ s + p["U"] @ x))
    return h, h


def layer_norm_gru(p, s, x, t):
    LN = p["norms"]
    zr = layer_norm(LN[0], p["W_zr"] @ s) + layer_norm(LN[1], p["U_zr"] @ x)
    z, r = np.split(sigmoid(zr), 2)
    reset = r * layer_norm(LN[3], p["W_n"] @ s)
    n = np.tanh(layer_norm(LN[2], p["U_n"] @ x) + reset)
    h = (1 - z) * n + z * s
    return h, h


def layer_norm_lstm(p, s, x, t):
    c, h = np.split(s, 2)
    LN, a = p["norms"], p["ifog"]
    a = layer_norm(LN[0], a["W"] @ h) + layer_norm(LN[1], a["U"] @ x) + a["b"]
    i, f, o, g = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(layer_norm(LN[2], c))
    return np.concatenate([c, h]), h


def batch_norm(gamma, z, statistics=None):
    """Over the rows of z, or by (mean, variance)."""
    if statistics is not None:
        return gamma * (z - statistics[0]) / np.sqrt(statistics[1] + EPSILON)
    z = z - z.mean(0)
    return gamma * z / np.sqrt((z * z).mean(0) + EPSILON)


def batch_norm_rnn(batch, frozen=None):
    """`frozen`: {"h": (mean, variance), "x": ...}, and then batch is 1."""
    frozen = frozen or {}

    def step(p, s, x, t):
        h, x = s.reshape(batch, -1), np.reshape(x, (batch, -1))
        a = batch_norm(p["norms"]["h"]["gamma"], h @ p["a"]["W"].T, frozen.get("h"))
        a = a + batch_norm(p["norms"]["x"]["gamma"], x @ p["a"]["U"].T, frozen.get("x"))
        h = np.tanh(a + p["a"]["b"])
        return h.ravel(), h.ravel() if frozen else h

    return step


def batch_norm_lstm(batch, frozen=None):
    frozen = frozen or {}

    def step(p, s, x, t):
        c, h = np.split(s, 2)
        c, h, x = (np.reshape(v, (batch, -1)) for v in (c, h, x))
        gamma = {name: p["norms"][name]["gamma"] for name in "hxc"}
        a = batch_norm(gamma["h"], h @ p["ifog"]["W"].T, frozen.get("h"))
        a = a + batch_norm(gamma["x"], x @ p["ifog"]["U"].T, frozen.get("x"))
        i, f, o, g = np.split(a + p["ifog"]["b"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(batch_norm(gamma["c"], c, frozen.get("c")))
        return np.concatenate([c.ravel(), h.ravel()]), h.ravel() if frozen else h

    return step


# Layers: p belongs to the step before, x is the layer.


def dense(phi, eps=None):
    def step(_, s, p, t):
        branch = phi(p["W"] @ s + p["b"])
        h = branch if eps is None else s + eps * branch
        return h, h

    return step


def batch_norm_dense(phi, batch):
    def step(_, s, p, t):
        z = s.reshape(batch, -1) @ p["W"].T
        h = phi(batch_norm(p["norm"]["gamma"], z) + p["b"])
        return h.ravel(), h

    return step


def layer_norm_dense(phi):
    def step(_, s, p, t):
        h = phi(layer_norm(p["norm"], p["W"] @ s))
        return h, h

    return step


def transformer_block(tokens, heads, causal):
    def step(_, s, p, t):
        h = s.reshape(tokens, -1)
        normed = np.array([layer_norm(p["LN_1"], token) for token in h])
        Q, K, V = (normed @ p[name].T for name in ("W_Q", "W_K", "W_V"))
        d = h.shape[1] // heads
        seen = np.zeros_like(h)
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            for i in range(tokens):
                last = i + 1 if causal else tokens
                w = np.exp(K[:last, own] @ Q[i, own] / np.sqrt(d))
                seen[i, own] = (w / w.sum()) @ V[:last, own]
        u = h + seen @ p["W_O"].T
        rows = []
        for token in u:
            hidden = gelu(p["W_1"] @ layer_norm(p["LN_2"], token) + p["b_1"])
            rows.append(token + p["W_2"] @ hidden + p["b_2"])
        return np.concatenate(rows), np.array(rows)

    return step


def attention(p, inputs, window, heads):
    """Outputs, (T, features), by looking back over the inputs themselves."""
    Q, K, V = (inputs @ p[name].T for name in ("W_Q", "W_K", "W_V"))
    d = Q.shape[1] // heads
    outputs = []
    for t in range(len(inputs)):
        back = slice(max(0, t - window + 1), t + 1)
        seen = []
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            w = np.exp(K[back, own] @ Q[t, own] / np.sqrt(d))
            seen.append((w / w.sum()) @ V[back, own])
        outputs.append(p["W_O"] @ np.concatenate(seen))
    return np.array(outputs), K, V


# The weights of a Flax module.


def parameters(module):
    """All variables of a module by name, as float64 arrays in nested dicts."""
    values = nnx.to_pure_dict(nnx.state(module))
    return jax.tree.map(lambda a: np.asarray(a, np.float64), values)


def scramble(module, seed):
    """Add noise to every weight in place, so that none is 0 or 1 any more."""
    rng = np.random.default_rng(seed)

    def noisy(a):
        return a + jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype)

    nnx.update(module, jax.tree.map(noisy, nnx.state(module, nnx.Param)))
    return module


def set_to(param, value):
    param.set_value(jnp.asarray(value, param.get_value().dtype))


# Laws that numbers are drawn from, after Kolmogorov and Smirnov.


def assert_normal(values, std):
    values = np.ravel(values) / std
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    # Which is weak on the scale: the mean square has the variance 2/n.
    assert abs((values**2).mean() - 1) < 5 * np.sqrt(2 / values.size)


def assert_uniform(values, low, high):
    law = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(np.ravel(values), law.cdf).pvalue > 1e-3


def assert_mean(values, expected, errors=4):
    """Within so many standard errors, as the values themselves tell them."""
    values = np.ravel(values)
    assert abs(values.mean() - expected) < errors * values.std() / values.size**0.5
