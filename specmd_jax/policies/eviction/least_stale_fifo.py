"""Least-Stale read as two plain queues: stale before current, each by (layer, expert).

Score: l N + expert, and L N more if current.

Source: SpecMD 4.2, reading R1: the two heaps of the paper taken literally.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.eviction.least_stale import LeastStaleParams, LeastStaleState, current
from specmd_jax.policies.eviction.least_stale import policy as least_stale


def score(
    params: LeastStaleParams, state: LeastStaleState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    position = jnp.arange(cache.tier.size, dtype=jnp.int32).reshape(cache.tier.shape)
    return jnp.where(current(state, event), cache.tier.size, 0) + position


policy = least_stale._replace(score=score, distinct=False, fused=False, doc=__doc__)
