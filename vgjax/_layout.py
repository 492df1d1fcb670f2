"""A carry as one flat vector, and what of it is no part of the vector.

The *state* is the flat form of the floating leaves, in `jax.flatten_util.ravel_pytree`
order; a complex leaf counts as its real part, then its imaginary part. All else
(clocks, flags, keys) are *passengers*: they travel along, and are not differentiated.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vgjax import _checks
from vgjax._typing import Carry

_SCALARS = (bool, int, float, complex)


class Point(NamedTuple):
    """Where a trajectory is."""

    state: Array  # (N,)
    passengers: tuple  # arrays


class Layout(NamedTuple):
    """How a PyTree of arrays lies in a flat vector; hashable."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @property
    def N(self) -> int:
        """How many numbers the vector has."""
        return sum(map(_size, self.shapes, self.dtypes))

    def flatten(self, leaves: list) -> Point:
        """Put arrays, in the order of the PyTree, into a vector and passengers."""
        parts, passengers = [], []
        for leaf, dtype in zip(leaves, self.dtypes, strict=True):
            if _is_complex(dtype):
                parts += [jnp.real(leaf).ravel(), jnp.imag(leaf).ravel()]
            elif _is_floating(dtype):
                parts.append(leaf.ravel())
            else:
                passengers.append(leaf)
        state = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        return Point(state, tuple(passengers))

    def unflatten(self, state: Array, passengers: Any) -> Any:
        """Return the PyTree again."""
        leaves, at, passengers = [], 0, iter(passengers)
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size = _size(shape, dtype)
            part = state[at : at + size]
            at += size
            if _is_complex(dtype):
                real, imaginary = part.reshape(2, *shape)
                leaves.append(jax.lax.complex(real, imaginary))
            else:
                numbers = _is_floating(dtype)
                leaves.append(part.reshape(shape) if numbers else next(passengers))
        return jax.tree.unflatten(self.structure, leaves)


def layout_of(tree: Any) -> Layout:
    """Return how a PyTree of arrays, or of what has shape and dtype, is laid out."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = tuple(tuple(leaf.shape) for leaf in leaves)
    return Layout(structure, shapes, tuple(leaf.dtype for leaf in leaves))


def checked_carry(carry: Carry) -> tuple[Layout, list]:
    """Return the layout and the leaves of a carry, refused where it has no state."""
    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        name = f"carry{jax.tree_util.keystr(path)}"
        leaf = _strong(_checks.array(leaf, name))
        if _is_inexact(leaf.dtype):
            _checks.any_floating(leaf, name)
        leaves.append(leaf)
    layout = layout_of(jax.tree.unflatten(jax.tree.structure(carry), leaves))
    parts = sorted({_part_dtype(d) for d in layout.dtypes if _is_inexact(d)}, key=str)
    if leaves and not parts:
        found = " and ".join(sorted({str(d) for d in layout.dtypes}))
        msg = (
            f"Argument `carry` must hold floating numbers, the state, but has only "
            f"{found}."
        )
        raise TypeError(msg)
    if len(parts) > 1:
        found = " and ".join(str(d) for d in parts)
        msg = f"Argument `carry` must have leaves of one dtype, but has {found}."
        raise TypeError(msg)
    if layout.N == 0:
        msg = "Argument `carry` must hold at least one number, but is empty."
        raise ValueError(msg)
    return layout, leaves


def kept(layout: Layout, new: Any) -> list:
    """Return the leaves of the carry that a step returns, refused unless it fits."""
    after = jax.tree.structure(new)
    if after != layout.structure:
        msg = (
            f"Argument `step` must return a carry of the structure it is given, "
            f"{layout.structure}, but returns {after}."
        )
        raise ValueError(msg)
    leaves = []
    flat = jax.tree_util.tree_leaves_with_path(new)
    for (path, leaf), shape, dtype in zip(
        flat, layout.shapes, layout.dtypes, strict=True
    ):
        is_scalar = isinstance(leaf, _SCALARS)
        leaf = jnp.asarray(leaf, dtype if is_scalar else None)
        if leaf.shape != shape or leaf.dtype != dtype:
            msg = (
                f"Argument `step` must return a carry of the shapes and dtypes it is "
                f"given, but carry{jax.tree_util.keystr(path)} goes in as "
                f"{dtype}{list(shape)} and comes out as "
                f"{leaf.dtype}{list(leaf.shape)}.{_advice(shape, dtype, leaf)}"
            )
            raise ValueError(msg)
        leaves.append(_strong(leaf))
    return leaves


def _strong(leaf: Array) -> Array:
    """Fix the dtype of a Python number, which else follows its neighbours."""
    return jax.lax.convert_element_type(leaf, leaf.dtype) if _is_weak(leaf) else leaf


def _advice(shape: tuple, dtype: Any, now: Array) -> str:
    if now.shape != shape:
        grew = now.ndim == len(shape) + 1 and now.shape[1:] == shape
        return (
            " One trajectory is stepped at a time: for a batch write jax.vmap."
            if grew
            else ""
        )
    if not (_is_floating(dtype) and _is_floating(now.dtype)):
        return ""
    return (
        f" Give `carry` and `inputs` the dtype that the cell computes in, {now.dtype}, "
        f"or build the cell for {dtype}: nnx.SimpleCell computes in float32 unless "
        f"it is given dtype=, the other cells follow dtype= and param_dtype=."
    )


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    if not _is_inexact(dtype):
        return 0
    return math.prod(shape) * (2 if _is_complex(dtype) else 1)


def _part_dtype(dtype: Any) -> np.dtype:
    return jnp.finfo(dtype).dtype


def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


def _is_floating(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _is_weak(leaf: Array) -> bool:
    return getattr(leaf, "weak_type", False)  # arrays of keys do not say
