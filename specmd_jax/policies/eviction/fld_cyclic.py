"""Farthest layer distance around the pass: the layer just finished is the farthest of all.

Score: -((l - l_c) mod L), with l the layer of the copy and l_c the one being served.

Source: HOBBIT's (l_i - l_c) mod L (arXiv 2411.01433); the other reading of SpecMD 3.1.3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.base import Eviction, stateless_init, stateless_update


def score(params: tuple, state: tuple, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    num_layers, num_experts = cache.tier.shape
    ahead = (jnp.arange(num_layers, dtype=jnp.int32) - event.layer) % num_layers
    return jnp.broadcast_to(-ahead[:, None], (num_layers, num_experts))


policy = Eviction(stateless_init, score, stateless_update, doc=__doc__)
