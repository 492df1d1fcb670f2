"""Cells of the zoo by name, and numbers read from one."""

import jax
import numpy as np

from vgjax import cells


def key(seed):
    return jax.random.key(seed)


def build(name, inputs, features, seed=1, **options):
    return cells.build(name, inputs, features, key=key(seed), **options)


def drawn(name, read, features=400, **options):
    """Numbers that `read` finds in one wide cell."""
    return np.asarray(read(build(name, 2, features, **options)), np.float64)
