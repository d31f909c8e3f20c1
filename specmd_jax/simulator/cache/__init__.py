"""Serving one event, atomically: the piece that the simulator and the runtime share.

`demand` serves what a layer asks for, `demand_hits` the same where all of it is there; `prefetch`
lets in what was named for a layer to come. They follow docs/semantics.md, section 2, step by step.
"""

from specmd_jax.simulator.cache.copies import empty_cache, warm
from specmd_jax.simulator.cache.demand import DemandResult, demand, demand_hits, look_ahead
from specmd_jax.simulator.cache.prefetch import PrefetchResult, Targets, prefetch
from specmd_jax.simulator.cache.setting import CacheConfig
from specmd_jax.simulator.cache.victims import rank

__all__ = [
    "CacheConfig",
    "DemandResult",
    "PrefetchResult",
    "Targets",
    "demand",
    "demand_hits",
    "empty_cache",
    "look_ahead",
    "prefetch",
    "rank",
    "warm",
]
