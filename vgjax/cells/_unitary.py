"""Cells whose recurrent matrix is on, or set within, the unit circle by its form."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vgjax import _checks
from vgjax._linalg import matmul
from vgjax.cells._cell import Cell, Constant, input_matrix
from vgjax.cells._registry import zoo

__all__ = ["LRU", "Cayley", "Expm"]


class _Orthogonal(Cell):
    """``h = modReLU(W h + U x)`` with W orthogonal whatever the parameters."""

    def make(self, key: Array):
        keys = jax.random.split(key, 3)
        self.M = nnx.Param(self.skew(keys[0]))
        self.U = nnx.Param(input_matrix(keys[1], self))
        b = jax.random.uniform(keys[2], (self.features,), self.dtype, -0.01, 0.01)
        self.b = nnx.Param(b)

    def skew(self, key: Array) -> Array:
        """(N, N), of which what lies above the diagonal makes A = M - M^T."""
        raise NotImplementedError

    def W(self) -> Array:
        """(N, N), orthogonal to rounding."""
        raise NotImplementedError

    def A(self) -> Array:
        """(N, N), antisymmetric."""
        M = jnp.triu(self.M[...], 1)
        return M - M.T

    def advance(self, carry, x):
        """``h = modReLU(W h + U x)``."""
        z = matmul(self.W(), carry) + matmul(self.U[...], x)
        b = self.b[...]
        # Not sign(z) relu(|z| + b), whose derivative autodiff has as 0 at z = 0.
        h = jnp.where(jnp.abs(z) + b > 0, z + jnp.sign(z) * b, 0)
        return h, h

    def blocks(self, s: Array) -> Array:
        """Spread (N // 2,) numbers over the 2 x 2 blocks of an antisymmetric matrix."""
        N = self.features
        above = jnp.zeros((N // 2, 2), self.dtype).at[:, 0].set(s).ravel()
        return jnp.diag(above[: N - 1], 1)


@zoo("cayley", checked="W orthogonal; singular values 1 or 0")
class Cayley(_Orthogonal):
    r"""Orthogonal by the Cayley transform: $W = (I + A)^{-1} (I - A) D$.

    $h_t = \mathrm{modReLU}(W h_{t-1} + U x_t)$ with $A = M - M^T$, D diagonal of signs
    and $\mathrm{modReLU}(z) = \mathrm{sign}(z) \max(|z| + b, 0)$.
    $J_t = \mathrm{diag}(|z_t| + b > 0) W$: every singular value is 1 or 0.

    Args:
      negative: how many of the signs of D are -1, from 0 to features. An orthogonal
        matrix with the eigenvalue -1 needs some.

    Notes:
      W is made anew at each step, by a solve: O(N^3).

    Source:
      Helfrich, Willmott & Ye, ICML (2018), eq. 5 and sec. 4; M strictly upper
      triangular, 2 x 2 blocks ``tan(t/2)`` with t ~ U[0, pi/2]; b ~ U[-0.01, 0.01].
      modReLU: Arjovsky, Shah & Bengio, ICML (2016), eq. 8.
    """

    def make(self, key: Array, *, negative: int = 0):
        super().make(key)
        F = self.features
        negative = _checks.integer(negative, "negative", 0, F)
        signs = jnp.where(jnp.arange(F) < F - negative, 1, -1)
        self.D = Constant(signs.astype(self.dtype))

    def skew(self, key):
        """Blocks tan(t/2), t ~ U[0, pi/2]."""
        t = jax.random.uniform(
            key, (self.features // 2,), self.dtype, maxval=jnp.pi / 2
        )
        return self.blocks(jnp.tan(t / 2))

    def W(self):
        """``(I + A)^-1 (I - A) D``."""
        A = self.A()
        eye = jnp.eye(self.features, dtype=A.dtype)
        return jnp.linalg.solve(eye + A, eye - A) * self.D[...][None, :]


@zoo("expm", checked="W orthogonal; singular values 1 or 0")
class Expm(_Orthogonal):
    r"""Orthogonal by the exponential map: $W = \exp(A)$, $A = M - M^T$.

    $h_t = \mathrm{modReLU}(W h_{t-1} + U x_t)$, with
    $\mathrm{modReLU}(z) = \mathrm{sign}(z) \max(|z| + b, 0)$.
    $J_t = \mathrm{diag}(|z_t| + b > 0) W$: every singular value is 1 or 0.

    Notes:
      W is made anew at each step, by Pade's approximation: O(N^3).

    Source:
      Lezcano-Casado & Martinez-Rubio, ICML (2019), eq. 3; M strictly upper triangular,
      2 x 2 blocks U[-pi, pi] (Henaff, Szlam & LeCun, ICML (2016)); b ~ U[-0.01, 0.01].
      modReLU: Arjovsky, Shah & Bengio, ICML (2016), eq. 8.
    """

    def skew(self, key):
        """Blocks U[-pi, pi]."""
        shape = (self.features // 2,)
        return self.blocks(
            jax.random.uniform(key, shape, self.dtype, minval=-jnp.pi, maxval=jnp.pi)
        )

    def W(self):
        """``exp(A)``."""
        return jax.scipy.linalg.expm(self.A())


@zoo("lru", checked="|lambda|^t twice; E log|lambda| on the ring")
class LRU(Cell):
    r"""Linear recurrent unit: a complex diagonal, held within a ring.

    $h_t = \lambda \odot h_{t-1} + \gamma \odot (B x_t)$,
    $y_t = \mathrm{Re}(C h_t) + D x_t$, with $h \in \mathbb{C}^F$, F = features, and
    $\lambda = \exp(-e^\nu + i e^\theta)$. The carry is [Re h, Im h], (2, F), and the
    state 2F numbers. $J_t$ is made of blocks
    $[[\mathrm{Re}\lambda, -\mathrm{Im}\lambda], [\mathrm{Im}\lambda,
    \mathrm{Re}\lambda]]$: singular values of $\Phi(t, 0)$ are $|\lambda|^t$, each
    twice, whatever the inputs.

    Args:
      inputs: D, size of x and of y.
      r_min: inner radius, from 0. The default is what the paper takes for long inputs.
      r_max: outer radius, above `r_min`, at most 1.
      max_phase: arguments of lambda are drawn from [0, max_phase], radians; above 0.

    Source:
      Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu & De, ICML (2023), eq. 5-7 and
      lemma 3.2: $|\lambda|^2 \sim U[r_{min}^2, r_{max}^2]$,
      $\gamma = \sqrt{1 - |\lambda|^2}$, trained as logarithms.
    """

    def make(
        self,
        key: Array,
        *,
        r_min: float = 0.9,
        r_max: float = 0.999,
        max_phase: float = 2 * jnp.pi,
    ):
        inside = "a radius from 0 to 1"
        for name, r in {"r_min": r_min, "r_max": r_max}.items():
            _checks.number(r, name, inside, lambda r: 0 <= r <= 1)
        above = f"above `r_min`, {r_min!r}"
        _checks.number(r_max, "r_max", above, lambda r_max: r_max > r_min)
        _checks.positive(max_phase, "max_phase")
        # Python numbers: those of NumPy would make a float32 cell float64.
        r_min, r_max, max_phase = float(r_min), float(r_max), float(max_phase)
        keys = jax.random.split(key, 5)
        F, D, dtype = self.features, self.inputs, self.dtype
        u = jax.random.uniform(keys[0], (F,), dtype, minval=jnp.finfo(dtype).tiny)
        # Below 1, which rounding may reach for a narrow ring at the unit circle.
        square = u * (r_max**2 - r_min**2) + r_min**2
        log_radius = jnp.log(jnp.minimum(square, 1 - jnp.finfo(dtype).epsneg)) / 2
        phase = jax.random.uniform(keys[1], (F,), dtype, minval=jnp.finfo(dtype).tiny)
        self.log_nu = nnx.Param(jnp.log(-log_radius))
        self.log_theta = nnx.Param(jnp.log(max_phase * phase))
        self.log_gamma = nnx.Param(jnp.log(-jnp.expm1(2 * log_radius)) / 2)
        # (2, ...): real and imaginary parts, of variance 1/(2 D) and 1/F each.
        self.B = nnx.Param(
            jax.random.normal(keys[2], (2, F, D), dtype) * (2 * D) ** -0.5
        )
        self.C = nnx.Param(jax.random.normal(keys[3], (2, D, F), dtype) * F**-0.5)
        self.D = nnx.Param(jax.random.normal(keys[4], (D,), dtype))

    def advance(self, carry, x):
        """``h = lambda h + gamma B x``, in real numbers."""
        radius = jnp.exp(-jnp.exp(self.log_nu[...]))
        phase = jnp.exp(self.log_theta[...])
        a, b = radius * jnp.cos(phase), radius * jnp.sin(phase)
        gamma = jnp.exp(self.log_gamma[...])
        real, imag = carry
        B, C = self.B[...], self.C[...]
        real, imag = (
            a * real - b * imag + gamma * matmul(B[0], x),
            b * real + a * imag + gamma * matmul(B[1], x),
        )
        y = matmul(C[0], real) - matmul(C[1], imag) + self.D[...] * x
        return jnp.stack([real, imag]), y

    def first_carry(self):
        """Zeros, (2, features): real and imaginary parts."""
        return self.zeros(2, self.features)
