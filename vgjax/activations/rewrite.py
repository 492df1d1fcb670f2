"""The derivatives of any function, without the losses of its activations or with them.

Both transformations read the program that JAX traces and run it again with some of its
steps exchanged, inside `jit`, `scan`, `while_loop`, `cond` and `checkpoint` too. Other
steps that hold programs (`custom_vjp`, `custom_vmap`, `custom_linear_solve`,
`shard_map`) run as they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import primitives

from vgjax.activations import functions

__all__ = ["exact", "plain"]


def __dir__() -> list[str]:
    return __all__


OURS = {
    primitives.tanh_p: functions.tanh,
    primitives.logistic_p: functions.sigmoid,
    primitives.erf_p: functions.erf,
    primitives.expm1_p: functions.expm1,
}
INNER = {
    primitives.jit_p: ["jaxpr"],
    primitives.closed_call_p: ["call_jaxpr"],
    primitives.scan_p: ["jaxpr"],
    primitives.while_p: ["cond_jaxpr", "body_jaxpr"],
    primitives.cond_p: ["branches"],
}


def exact(fn: Callable[..., Any]) -> Callable[..., Any]:
    r"""Return the same function with derivatives that do not vanish too early.

    Where `fn` applies the primitives tanh, logistic, erf and expm1, the derivatives,
    first and second, are those of `vgjax.activations`.

    Args:
      fn: any function of PyTrees of arrays that JAX can trace.

    Returns:
      A function of the same arguments and values. It is not jitted, and `fn` is traced
      at each call: put `jax.jit` around it.

    Raises:
      TypeError: `fn` is not callable.

    Notes:
      What `fn` computes is kept, so a difference that cancels stays one: the derivative
      of ``1 + tanh(x)``, which cancels nothing, becomes right, but `jax.nn.gelu` has
      0 for x < -5 as a factor in its formula. Functions with a derivative of their own
      (`jax.custom_jvp`, `jax.custom_vjp`) keep it. Derivatives taken inside `fn` are
      part of its program already, and stay what they are. Half precision is computed in
      float32, as JAX does on a CPU; complex numbers keep JAX's derivatives.

    Examples:
      >>> import jax
      >>> from vgjax import activations
      >>> print(f"{jax.grad(activations.exact(jax.nn.tanh))(20.0):.1e}")
      1.7e-17
    """
    return _rewritten(fn, _exact_step)


def plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with derivatives as autodiff takes them by itself.

    A `jax.custom_jvp` whose value is computed with the primitives tanh, logistic, erf
    or expm1, such as those of `vgjax.activations`, is differentiated through them.
    All others (`jax.nn.relu`, `jax.numpy.logaddexp`) keep their rules.

    Args:
      fn: any function of PyTrees of arrays that JAX can trace.

    Returns:
      A function of the same arguments and values. It is not jitted, and `fn` is traced
      at each call: put `jax.jit` around it.

    Raises:
      TypeError: `fn` is not callable.

    Notes:
      A `jax.custom_vjp` keeps its rule whatever it holds: most are there to have
      another derivative than that of their value.

    Examples:
      >>> import jax
      >>> from vgjax import activations
      >>> print(f"{jax.grad(activations.plain(activations.tanh))(20.0):.1e}")
      0.0e+00
    """
    return _rewritten(fn, _plain_step)


def _exact_step(eqn: core.JaxprEqn, values: list) -> Any:
    """The results of one step of a program, or None where it is to run as it is."""
    ours = OURS.get(eqn.primitive)
    # `accuracy` asks for another approximation than the default.
    if ours is None or eqn.params.get("accuracy") is not None:
        return None
    (x,) = values
    if x.dtype in (jnp.bfloat16, jnp.float16):
        return ours(x.astype(jnp.float32)).astype(x.dtype)
    return ours(x) if x.dtype in (jnp.float32, jnp.float64) else None


def _plain_step(eqn: core.JaxprEqn, values: list) -> Any:
    if eqn.primitive is not primitives.custom_jvp_call_p:
        return None
    inner = eqn.params["call_jaxpr"]
    if not _holds(inner.jaxpr):
        return None
    return _run(inner.jaxpr, inner.consts, values, _plain_step)


def _rewritten(fn: Callable, rule: Callable) -> Callable:
    if not callable(fn):
        msg = f"Argument `fn` must be callable, but is {type(fn).__name__}."
        raise TypeError(msg)

    # updated=(): the attributes of a module are not to become those of a function.
    @functools.wraps(fn, updated=())
    def rewritten(*args, **kwargs):
        program, out = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        leaves = jax.tree.leaves((args, kwargs))
        results = _run(program.jaxpr, program.consts, leaves, rule)
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return rewritten


def _run(
    jaxpr: core.Jaxpr, consts: Sequence, arguments: Sequence, rule: Callable
) -> list:
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, map(jnp.asarray, arguments), strict=True)

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        with eqn.ctx.manager:
            results = _step(jaxpr, eqn, [read(atom) for atom in eqn.invars], rule)
        known |= zip(eqn.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _step(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, values: list, rule: Callable) -> list:
    results = rule(eqn, values)
    if results is None and any(map(_holds, core.jaxprs_in_params(eqn.params))):
        if eqn.primitive is primitives.remat_p:
            inner = eqn.params["jaxpr"]
            options = {name: eqn.params[name] for name in ("prevent_cse", "policy")}
            again = jax.checkpoint(lambda *xs: _run(inner, [], xs, rule), **options)
            results = again(*values)
        else:
            names = INNER.get(eqn.primitive, [])
            inner = {name: _remade(eqn.params[name], rule) for name in names}
            eqn = eqn.replace(params=eqn.params | inner)
    if results is None:
        given = {
            atom: value
            for atom, value in zip(eqn.invars, values, strict=True)
            if not isinstance(atom, core.Literal)
        }
        # How parameters are bound differs between versions of JAX: let it do that.
        alone = jaxpr.replace(
            constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn]
        )
        results = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _remade(programs: Any, rule: Callable) -> Any:
    """One program or a tuple of them, run by the rule and traced again."""

    def again(program):
        def run(*xs):
            return _run(program.jaxpr, program.consts, xs, rule)

        return jax.make_jaxpr(run)(*program.in_avals)

    return jax.tree.map(again, programs)


def _holds(jaxpr: core.Jaxpr) -> bool:
    """Whether there is an activation in it, at any depth."""
    found = any(eqn.primitive in OURS for eqn in jaxpr.eqns)
    return found or any(map(_holds, core.subjaxprs(jaxpr)))
