"""Least frequently and recently used: fewest uses per event of age leave first.

Score: uses / max(events since the last use, 1).

Source: the LFRU of vLLM's expert cache (PR 37190) and of arXiv 2608.07911: frequency / age.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import fixed
from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.base import Eviction
from specmd_jax.policies.eviction import lfu
from specmd_jax.policies.eviction.lfu import LfuState


def score(params: tuple, state: LfuState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    # What was used at this very event is pinned, or ranked by a bypass: it counts as one event old.
    age = jnp.maximum(event.clock - cache.last_used, 1)
    return fixed(state.uses.astype(jnp.float32) / age.astype(jnp.float32), 16)


policy = Eviction(lfu.init, score, lfu.update, doc=__doc__)
