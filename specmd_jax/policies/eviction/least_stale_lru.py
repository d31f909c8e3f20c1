"""Least-Stale with recency inside each queue: stale before current, each by last use.

Without prefetching it is LRU, since every stale copy is older than every current one.

Score: 1 if current, 0 if stale; ties fall to recency.

Source: SpecMD 4.2, reading R2.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.eviction.least_stale import LeastStaleParams, LeastStaleState, current
from specmd_jax.policies.eviction.least_stale import policy as least_stale


def score(
    params: LeastStaleParams, state: LeastStaleState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    return current(state, event).astype(jnp.int32)


policy = least_stale._replace(score=score, distinct=False, fused=False, doc=__doc__)
