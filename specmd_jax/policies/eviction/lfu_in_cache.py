"""LFU that forgets: uses since the copy was inserted.

Score: the number of events that used the expert since its copy was inserted.

Source: the LFU of libCacheSim and of MoE-Infinity's visit counts (arXiv 2401.14361).
"""

import jax.numpy as jnp

from specmd_jax.core.arrays import row, with_row
from specmd_jax.core.types import CacheState, Event, Outcome
from specmd_jax.policies.base import Eviction
from specmd_jax.policies.eviction import lfu
from specmd_jax.policies.eviction.lfu import LfuState


def update(
    params: tuple, state: LfuState, cache: CacheState, event: Event, outcome: Outcome
) -> LfuState:
    before = jnp.where(outcome.inserted, 0, row(state.uses, outcome.layer))
    return LfuState(with_row(state.uses, outcome.layer, before + outcome.used))


policy = Eviction(lfu.init, lfu.score, update, doc=__doc__)
