"""Prefetch nothing: every load waits for its demand.

Source: MixtureCache (arXiv 2412.00099) and SpecMD configuration #4.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import Event
from specmd_jax.policies.base import Prefetch, stateless_init, stateless_observe


def select(
    params: tuple, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    return jnp.zeros(event.used.shape, jnp.int32)


policy = Prefetch(stateless_init, select, stateless_observe, doc=__doc__)
