"""Random: a hash of (seed, event, layer, expert) decides; any run can be repeated.

Score: hash(seed, event, layer, expert).

Source: the usual lower bar. Hashing makes it depend on the trace alone, a stack policy.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import hash_uniform
from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.base import Eviction, stateless_init, stateless_update


class RandomParams(NamedTuple):
    seed: Int[Array, ""] | int = 0


def score(params: RandomParams, state: tuple, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    num_layers, num_experts = cache.tier.shape
    layer, expert = jnp.arange(num_layers)[:, None], jnp.arange(num_experts)[None, :]
    drawn = hash_uniform(params.seed, event.clock, layer, expert)
    return (drawn >> 2).astype(jnp.int32)


policy = Eviction(stateless_init, score, stateless_update, RandomParams(), doc=__doc__)
