"""Farthest layer distance: experts of the layers farthest from the running one leave first.

Score: -|l - l_c|, with l the layer of the copy and l_c the one being served.

Source: SpecMD 3.1.3 and appendix B, with the distance read as |layer - running layer|.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.base import Eviction, stateless_init, stateless_update


def score(params: tuple, state: tuple, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    num_layers, num_experts = cache.tier.shape
    distance = jnp.abs(jnp.arange(num_layers, dtype=jnp.int32) - event.layer)
    return jnp.broadcast_to(-distance[:, None], (num_layers, num_experts))


policy = Eviction(stateless_init, score, stateless_update, fused=True, doc=__doc__)
