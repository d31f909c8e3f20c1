"""Exactly what the target layer will demand: the bound on every predictor.

Names: D of the target event.

Source: the usual upper bar.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import Event
from specmd_jax.policies.base import UPCOMING, Prefetch, stateless_init, stateless_observe


def select(
    params: tuple, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    assert event.upcoming is not None
    return event.upcoming[ahead - 1].astype(jnp.int32)


policy = Prefetch(stateless_init, select, stateless_observe, reads=(UPCOMING,), doc=__doc__)
