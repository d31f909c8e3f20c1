"""LFU that forgets: uses since the copy was inserted; eviction resets the count.

Source: the LFU of libCacheSim and of MoE-Infinity's visit counts (arXiv 2401.14361).
"""

import jax.numpy as jnp

from specmd_jax.eviction import lfu
from specmd_jax.eviction.lfu import LfuState
from specmd_jax.types import CacheState, Event, Outcome


def update(
    params: tuple, state: LfuState, cache: CacheState, event: Event, outcome: Outcome
) -> LfuState:
    remembered = LfuState(jnp.where(outcome.evicted, 0, state.uses))
    return lfu.update(params, remembered, cache, event, outcome)


policy = lfu.policy._replace(update=update, doc=__doc__)