"""Records of a run: equal stretches of steps whose growth is summed up and averaged."""

import jax.numpy as jnp
from jax import Array

from vgjax._tolerances import FEWEST_RECORDS, LONGEST_RECORD, MOST_BATCHES


def records(T: int, burn_in: int, c: int, mask: Array | None) -> tuple[Array, Array]:
    """Return times in records of c steps, (records, c), and whether they are taken.

    Records of the burn-in end with it, and are filled up at the beginning; those after
    are filled up at the end, where also the steps go that are masked.
    """
    steps, n = jnp.arange(T, dtype=jnp.int32), T
    if mask is not None:
        steps = jnp.argsort(~mask, stable=True).astype(jnp.int32)
        n = jnp.sum(mask, dtype=jnp.int32)
    before, after = -(-burn_in // c) * c, -(-(T - burn_in) // c) * c
    places = jnp.arange(before + after, dtype=jnp.int32) - (before - burn_in)
    places = places.reshape(-1, c)
    return steps[jnp.clip(places, 0, T - 1)], (places >= 0) & (places < n)


def record_length(T: int, qr_every: int) -> int:
    wished = min(max(T // FEWEST_RECORDS, 1), LONGEST_RECORD)
    return qr_every * max(wished // qr_every, 1)


def error_by_batch_means(growth: Array, counts: Array) -> Array:
    """(k,) standard error of the mean growth per step, from batches of records.

    That of a ratio of two sums, as the last batch may be shorter.
    """
    R, k = growth.shape
    batch = -(-R // MOST_BATCHES)
    fill = -R % batch
    sums = jnp.pad(growth, ((0, fill), (0, 0))).reshape(-1, batch, k).sum(1)
    steps = jnp.pad(counts, (0, fill)).reshape(-1, batch).sum(1)
    n = jnp.sum(steps > 0).astype(growth.dtype)
    steps = steps.astype(growth.dtype)
    mean = sums.sum(0) / steps.sum()
    off = jnp.sum((sums - steps[:, None] * mean[None, :]) ** 2, axis=0)
    error = jnp.sqrt(off * n / (n - 1)) / steps.sum()
    return jnp.where(n > 1, error, jnp.nan)
