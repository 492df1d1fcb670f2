"""Types that several modules speak of."""

from collections.abc import Callable
from typing import Any, TypeAlias

Carry: TypeAlias = Any
"""A PyTree of real floating arrays of one dtype: what a step passes on."""

Inputs: TypeAlias = Any
"""An array, or a PyTree of arrays, with time along the leading axis; or None."""

Step: TypeAlias = Callable[[Carry, Any], tuple[Carry, Any]]
"""``step(carry, x) -> (carry, y)``, the protocol of `jax.lax.scan`."""
