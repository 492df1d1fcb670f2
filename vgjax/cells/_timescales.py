"""Many time scales: leaks, delays, clocks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from vgjax import _checks
from vgjax._linalg import matmul
from vgjax.activations import tanh
from vgjax.cells._cell import (
    Affine,
    Cell,
    Constant,
    fan_in_matrix,
    input_matrix,
    passes_on,
    recurrent_matrix,
)
from vgjax.cells._plain import plain_affine
from vgjax.cells._registry import zoo

__all__ = ["Clockwork", "Dilated", "Leaky", "Skip"]


@zoo("leaky", checked="log(1 - 1/tau) at W = 0")
class Leaky(Cell):
    r"""Leaky integrator: $h_t = (1 - \alpha) h_{t-1} + \alpha \tanh(a_t)$.

    $a_t = W h_{t-1} + U x_t + b$ and $\alpha = 1/\tau$, one for each unit.
    $J_t = \mathrm{diag}(1 - \alpha) + \mathrm{diag}(\alpha \tanh'(a_t)) W$; for W = 0
    unit i forgets at the rate $\log(1 - 1/\tau_i)$, -inf for $\tau_i = 1$.

    Args:
      time_constants: tau in steps, a scalar or (features,); at least 1.
      log_uniform: (low, high) in steps: log tau is drawn evenly between their logs.
        Default, where no time constants are given: (1, 100).
      recurrence: as for `Recurrent`.

    Raises:
      ValueError, TypeError: an argument is not as said here, or both
        `time_constants` and `log_uniform` are given.

    Source:
      Jaeger, Lukosevicius, Popovici & Siewert, Neural Netw. 20, 335 (2007); Goodfellow
      et al., Deep Learning (2016), 10.9.2.
    """

    @passes_on(recurrent_matrix)
    def make(
        self,
        key: Array,
        *,
        time_constants: float | Array | Sequence[float] | None = None,
        log_uniform: tuple[float, float] | None = None,
        **recurrence: Any,
    ):
        keys = jax.random.split(key)
        if time_constants is None:
            tau = self._drawn(keys[1], log_uniform)
        elif log_uniform is None:
            tau = self._given(time_constants)
        else:
            msg = (
                f"Argument `log_uniform` must be None where `time_constants` is given, "
                f"but is {log_uniform!r}."
            )
            raise ValueError(msg)
        self.tau = Constant(tau)
        self.a = plain_affine(keys[0], self, None, recurrence)

    def _drawn(self, key: Array, bounds: tuple[float, float] | None) -> Array:
        bounds = (1.0, 100.0) if bounds is None else bounds
        largest = float(jnp.finfo(self.dtype).max)
        real = np.shape(bounds) == (2,) and np.asarray(bounds).dtype.kind in "iuf"
        if not (real and 1 <= bounds[0] <= bounds[1] <= largest):
            msg = (
                f"Argument `log_uniform` must be (low, high) with 1 <= low <= high, "
                f"finite in {self.dtype}, but is {bounds!r}."
            )
            raise ValueError(msg)
        u = jax.random.uniform(key, (self.features,), self.dtype)
        low, high = (jnp.log(jnp.asarray(b, self.dtype)) for b in bounds)
        return jnp.exp(low + (high - low) * u)

    def _given(self, tau: Any) -> Array:
        tau = _checks.array(tau, "time_constants")
        if jnp.issubdtype(tau.dtype, jnp.complexfloating):
            _checks.real_floating(tau, "time_constants")
        tau = tau.astype(self.dtype)
        if tau.ndim > 0:
            _checks.shape(tau, "time_constants", "features", features=self.features)
        fits = (tau >= 1) & (tau < jnp.inf)
        if not isinstance(tau, Tracer) and not bool(jnp.all(fits)):
            msg = (
                f"Argument `time_constants` must be finite and at least 1 step, "
                f"but they go from {float(tau.min()):g} to {float(tau.max()):g}."
            )
            raise ValueError(msg)
        return jnp.broadcast_to(tau, (self.features,))

    def advance(self, carry, x):
        """``h = (1 - alpha) h + alpha tanh(W h + U x + b)``."""
        tau = self.tau[...]
        # Not 1 - 1 / tau, which has lost digits where tau is near 1.
        h = (tau - 1) / tau * carry + tanh(self.a(carry, x)) / tau
        return h, h


@zoo("skip", checked="companion blocks; tanh of W + V at d = 1")
class Skip(Cell):
    r"""A connection through time beside that of one step.

    $h_t = \tanh(W h_{t-1} + V h_{t-d} + U x_t + b)$. The carry holds the last d states,
    newest first, (d, features), and the state has d features numbers. With
    $S = \mathrm{diag}(\tanh')$, $J_t$ has the blocks [S W, 0, ..., 0, S V] in its first
    row and the identity below its diagonal; for d = 1 it is S (W + V).

    Args:
      delay: d, at least 1.
      recurrence: as for `Recurrent`; W and V are drawn alike and divided by sqrt(2).

    Source:
      Lin, Horne, Tino & Giles, IEEE Trans. Neural Netw. 7, 1329 (1996); Goodfellow et
      al., Deep Learning (2016), 10.9.1.
    """

    @passes_on(recurrent_matrix)
    def make(self, key: Array, *, delay: int = 4, **recurrence: Any):
        self.delay = _checks.integer(delay, "delay", 1)
        keys = jax.random.split(key)
        self.a = plain_affine(keys[0], self, None, recurrence)
        V = recurrent_matrix(keys[1], self.features, self.dtype, **recurrence)
        self.V = nnx.Param(V / 2**0.5)
        self.a.W = nnx.Param(self.a.W[...] / 2**0.5)

    def advance(self, carry, x):
        """``h = tanh(W h_(t-1) + V h_(t-d) + U x + b)``."""
        h = tanh(self.a(carry[0], x) + matmul(self.V[...], carry[-1]))
        return jnp.concatenate([h[None], carry[:-1]]), h

    def first_carry(self):
        """Zeros, (delay, features): the last states, newest first."""
        return self.zeros(self.delay, self.features)


@zoo("dilated", checked="equations in NumPy")
class Dilated(Cell):
    r"""Layers whose recurrence skips 1, 2, 4, ... steps.

    $h^l_t = \tanh(W_l h^l_{t-d_l} + U_l h^{l-1}_t + b_l)$ with $h^0_t = x_t$; the
    output is the last layer's. The carry is a tuple of arrays (d_l, features), each
    layer's last states, newest first; the state has features times the sum of all d_l
    numbers. A gradient crosses t steps of layer l by t/d_l products with W_l.

    Args:
      features: size of each layer.
      dilations: (d_1, d_2, ...), each at least 1.
      recurrence: as for `Recurrent`.

    Source:
      Chang et al., Dilated recurrent neural networks, NeurIPS (2017), eq. 1 and 2.
    """

    @passes_on(recurrent_matrix)
    def make(
        self, key: Array, *, dilations: Sequence[int] = (1, 2, 4), **recurrence: Any
    ):
        self.dilations = whole_numbers(dilations, "dilations")
        keys = jax.random.split(key, len(self.dilations))
        first = plain_affine(keys[0], self, None, recurrence)
        rest = [self._layer(k, recurrence) for k in keys[1:]]
        self.layers = nnx.List([first, *rest])

    def _layer(self, key: Array, recurrence: dict[str, Any]) -> Affine:
        keys = jax.random.split(key)
        N = self.features
        W = recurrent_matrix(keys[0], N, self.dtype, **recurrence)
        U = fan_in_matrix(keys[1], (N, N), self.dtype)
        return Affine(W, U, self.zeros(N))

    def advance(self, carry, x):
        """``h_l = tanh(W_l h_l,(t-d_l) + U_l h_(l-1) + b_l)``, layer by layer."""
        new, h = [], x
        for layer, past in zip(self.layers, carry, strict=True):
            h = tanh(layer(past[-1], h))
            new.append(jnp.concatenate([h[None], past[:-1]]))
        return tuple(new), h

    def first_carry(self):
        """Zeros, an array (d_l, features) for each layer."""
        return tuple(self.zeros(d, self.features) for d in self.dilations)


@zoo("clockwork", checked="equations in NumPy; which rows wait")
class Clockwork(Cell):
    r"""Modules that move only when their clock ticks, slower ones driving faster.

    The units fall into modules of equal size with periods $T_1 < T_2 < \dots$. At step
    t (from 0) the modules with $t \bmod T_i = 0$ take
    $h_t = \tanh(W h_{t-1} + U x_t + b)$, the others keep $h_{t-1}$; module i hears
    module j only if $T_j \ge T_i$, so W is block upper triangular. The carry is
    (h, t), with t a whole number and no part of the state. Rows of $J_t$ are those of
    $\mathrm{diag}(\tanh'(a_t)) W$ for units that move and of I for those that wait.

    Args:
      features: a multiple of the number of periods.
      periods: (T_1, T_2, ...) in steps, ascending, each at least 1.
      gain: entries of a row of W are N(0, gain^2/n), with n those that are not removed;
        above 0.

    Source:
      Koutnik, Greff, Gomez & Schmidhuber, ICML (2014), eq. 3-5; Goodfellow et al.,
      Deep Learning (2016), 10.9.3.
    """

    def make(
        self, key: Array, *, periods: Sequence[int] = (1, 2, 4, 8), gain: float = 1.0
    ):
        self.periods = whole_numbers(periods, "periods")
        if any(b <= a for a, b in zip(self.periods, self.periods[1:], strict=False)):
            msg = f"Argument `periods` must be ascending, but is {self.periods}."
            raise ValueError(msg)
        _checks.multiple(self.features, "features", len(self.periods), "periods")
        _checks.positive(gain, "gain")
        keys = jax.random.split(key)
        N, of_unit = self.features, self._periods_of_units()
        heard = of_unit[:, None] <= of_unit[None, :]
        W = jax.random.normal(keys[0], (N, N), self.dtype)
        count = heard.sum(1).astype(self.dtype)
        std = jnp.asarray(gain, self.dtype) / jnp.sqrt(count)
        self.a = Affine(
            jnp.where(heard, W * std[:, None], 0),
            input_matrix(keys[1], self),
            self.zeros(N),
        )
        self.heard = Constant(heard.astype(self.dtype))

    def _periods_of_units(self) -> Array:
        each = self.features // len(self.periods)
        return jnp.repeat(jnp.asarray(self.periods, jnp.int32), each)

    def advance(self, carry, x):
        """``h = tanh(W h + U x + b)`` where the clock ticks, h elsewhere."""
        h, t = carry
        # Masked here too, lest training grow back what was removed.
        W = self.a.W[...] * self.heard[...]
        a = matmul(W, h) + matmul(self.a.U[...], x) + self.a.b[...]
        ticks = t % self._periods_of_units() == 0
        h = jnp.where(ticks, tanh(a), h)
        return (h, t + 1), h

    def first_carry(self):
        """(h, t): zeros, (features,), and the clock at 0, int32."""
        return self.zeros(self.features), jnp.zeros((), jnp.int32)


def whole_numbers(values: Any, name: str) -> tuple[int, ...]:
    """Return a sequence of whole numbers, each at least 1 and at least one of them."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        msg = (
            f"Argument `{name}` must be a sequence of at least one whole number, "
            f"but is {values!r}."
        )
        raise ValueError(msg)
    return tuple(
        _checks.integer(v, f"{name}[{i}]", 1, 2**31 - 1) for i, v in enumerate(values)
    )
