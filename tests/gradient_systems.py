"""A tanh network with a readout, and its gradients by hand, in NumPy."""

import jax.numpy as jnp
import numpy as np

N, D, M = 3, 2, 2


def network(params, h, x):
    """h' = tanh(W h + U x + b), y = C h'."""
    h = jnp.tanh(params["W"] @ h + params["U"] @ x + params["b"])
    return h, params["C"] @ h


def parameters(seed=1):
    """Random ones; W is far from normal."""
    rng = np.random.default_rng(seed)
    W = 0.4 * rng.standard_normal((N, N)) + 1.5 * np.eye(N, k=1)
    U, C = rng.standard_normal((N, D)), rng.standard_normal((M, N))
    return {"W": W, "U": U, "b": 0.1 * rng.standard_normal(N), "C": C}


def run(params, h, inputs):
    """States (T+1, N)."""
    states = [h]
    for x in inputs:
        states.append(np.tanh(params["W"] @ states[-1] + params["U"] @ x + params["b"]))
    return np.array(states)


def paths(params, states, inputs, d, e):
    """Follow what the loss reads at each t, d (T+1, N) and e (T, M), back to each s.

    Returns the parts of the gradient by lag, {name: (T, ...)}, the cotangents carried
    from t, (T, T+1, N) with [t - 1, s], and the sum of these with d itself, (T+1, N).
    """
    T = len(inputs)
    parts = {name: np.zeros((T, *a.shape)) for name, a in params.items()}
    carried = np.zeros((T, T + 1, N))
    for t in range(1, T + 1):
        carried[t - 1, t] = d[t]
        parts["C"][0] += np.outer(e[t - 1], states[t])
        delta = d[t] + params["C"].T @ e[t - 1]
        for k in range(t):
            s = t - k
            u = (1 - states[s] ** 2) * delta
            parts["W"][k] += np.outer(u, states[s - 1])
            parts["U"][k] += np.outer(u, inputs[s - 1])
            parts["b"][k] += u
            delta = params["W"].T @ u
            carried[t - 1, s - 1] = delta
    total = carried.sum(0)
    total[0] += d[0]
    return parts, carried, total


def flat_parts(parts):
    """(T, P), all parameters of each lag in one row."""
    return np.concatenate([a.reshape(len(a), -1) for a in parts.values()], axis=1)


def target_loss(target, trajectory):
    """Of the last state."""
    return 0.5 * jnp.sum((trajectory.states[-1] - target) ** 2)


def labels_loss(labels, trajectory):
    """Of all outputs."""
    return 0.5 * jnp.sum((trajectory.outputs - labels) ** 2)


def mixed_loss(data, trajectory):
    """Of all states, all outputs and the carry."""
    weights, labels = data
    read = jnp.sum(weights * trajectory.states) + jnp.sum(trajectory.carry**3)
    return read + labels_loss(labels, trajectory)


def direct(kind, params, states, data):
    """What each loss reads by itself: d (T+1, N) and e (T, M)."""
    d, e = np.zeros_like(states), np.zeros((len(states) - 1, M))
    outputs = states[1:] @ params["C"].T
    if kind == "last":
        d[-1] = states[-1] - data
    elif kind == "outputs":
        e = outputs - data
    elif kind == "mixed":
        d = data[0].copy()
        d[-1] += 3 * states[-1] ** 2
        e = outputs - data[1]
    else:
        d = data
    return d, e


LOSSES = {"last": target_loss, "outputs": labels_loss, "mixed": mixed_loss}


def data_of(kind, T, seed=5):
    """Numbers that a loss of this kind compares with."""
    rng = np.random.default_rng(seed)
    states, labels = rng.standard_normal((T + 1, N)), rng.standard_normal((T, M))
    table = {"last": states[0], "outputs": labels, "mixed": (states, labels)}
    return table.get(kind, states)


def network_free(h, x):
    """A step that has no parameters."""
    return jnp.tanh(h) + x, None
