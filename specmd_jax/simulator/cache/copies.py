"""The copies on the device: an empty cache, a warm one, and the exchange of victims for loads."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.arrays import row, total, with_row
from specmd_jax.core.types import ABSENT, CacheState, ModelShape
from specmd_jax.simulator.cache.ranking import Victims
from specmd_jax.simulator.cache.setting import CacheConfig, add_to_pool, size_of


def empty_cache(
    shape: ModelShape,
    num_pools: int,
    next_use: Int[Array, "L N"] | None = None,
    prefetches: bool = True,
) -> CacheState:
    """Returns a cold cache; `next_use` is each expert's first demand, if a policy reads it.

    Args:
      num_pools: W, one or a pool for each layer.
      next_use: event of each expert's first demand; None: no policy reads it.
      prefetches: whether prefetched copies are to be told from others.
    """
    size = (shape.num_layers, shape.num_experts)
    no, none = jnp.zeros(size, bool), jnp.zeros(num_pools, jnp.int32)
    return CacheState(
        tier=jnp.full(size, ABSENT, jnp.int8),
        last_used=jnp.full(size, -1, jnp.int32),
        next_use=next_use,
        speculative=no if prefetches else None,
        seen=no,
        evicted=no,
        occupied=none,
        copies=none,
        broken=jnp.bool_(False),
    )


def warm(cache: CacheState, resident: Bool[Array, "L N"], units: Int[Array, "L Q"]) -> CacheState:
    """Returns `cache` with copies of `resident` at tier 0; the caller sees to it that they fit."""
    taken = jnp.sum(jnp.where(resident, units[:, :1], 0), axis=1, dtype=jnp.int32)
    copies = jnp.sum(resident, axis=1, dtype=jnp.int32)
    if cache.one_pool:
        taken, copies = total(taken)[None], total(copies)[None]
    tier = jnp.where(resident, 0, ABSENT).astype(jnp.int8)
    return cache._replace(tier=tier, occupied=taken, copies=copies)


def exchange(
    setting: CacheConfig,
    cache: CacheState,
    layer: Int[Array, ""],
    victims: Victims,
    inserted: Bool[Array, " N"],
    tier: Int8[Array, " N"],
) -> CacheState:
    """Returns `cache` after the victims left and `inserted` came to `layer` at `tier`.

    Args:
      victims: which leave, with the units that they free.
      inserted: experts of `layer` that come, and `tier` the tier of each.
    """
    remaining = jnp.where(victims.chosen, jnp.int8(ABSENT), cache.tier)
    occupied = size_of(setting, layer, inserted, tier) - victims.units
    copies = total(inserted) - victims.copies
    return cache._replace(
        tier=with_row(remaining, layer, jnp.where(inserted, tier, row(remaining, layer))),
        evicted=cache.evicted | victims.chosen,
        occupied=add_to_pool(cache.occupied, layer, occupied),
        copies=add_to_pool(cache.copies, layer, copies),
        broken=cache.broken | victims.broken,
    )
