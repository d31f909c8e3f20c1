"""What may not leave: experts in use, experts named for a layer to come, the copy in flight."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.arrays import row, total, with_row
from specmd_jax.core.types import ABSENT, CacheState, Flight
from specmd_jax.simulator.cache.setting import CacheConfig, size_of

Pins = list[tuple[Int[Array, ""], Bool[Array, " N"]]]  # layers, each with its pinned experts


def unpinned(
    setting: CacheConfig,
    cache: CacheState,
    pins: Pins,
    flight: Flight | None,
    layer: Int[Array, ""],
) -> Bool[Array, "L N"]:
    """Returns the copies in the pool of `layer` that may leave.

    Args:
      pins: layers, and their experts that may not leave.
      flight: the copy on the link, which may not either; None: there is no link.
    """
    pinned = jnp.zeros(cache.tier.shape, bool)
    for pinned_layer, mask in pins:
        pinned = with_row(pinned, pinned_layer, mask)
    candidates = (cache.tier != ABSENT) & ~pinned
    own = jnp.arange(cache.tier.shape[0])[:, None]
    if setting.strategy.scope == "layer":
        candidates = candidates & (own == layer)
    if flight is not None:
        expert = jnp.arange(cache.tier.shape[1])[None, :]
        candidates = candidates & ~((own == flight.layer) & (expert == flight.expert))
    return candidates


def pinned_size(
    setting: CacheConfig,
    cache: CacheState,
    pins: Pins,
    flight: Flight | None,
    layer: Int[Array, ""],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns units and number of the pinned copies in the pool of `layer`.

    Args:
      pins: layers, and their experts that may not leave.
      flight: the copy on the link, which may not either; None: there is no link.
    """
    held, kept = jnp.int32(0), jnp.int32(0)
    elsewhere = jnp.bool_(True)  # is the copy in flight outside all these rows?
    for pinned_layer, mask in pins:
        tier = row(cache.tier, pinned_layer)
        mask = (mask | in_flight(flight, pinned_layer, tier)) & (tier != ABSENT)
        if setting.strategy.scope == "layer":
            mask = mask & (pinned_layer == layer)
        held = held + size_of(setting, pinned_layer, mask, tier)
        kept = kept + total(mask)
        if flight is not None:
            elsewhere = elsewhere & (flight.layer != pinned_layer)
    if flight is not None and setting.strategy.scope == "global":
        alone = elsewhere & (flight.layer >= 0)
        size = setting.units[flight.layer, jnp.maximum(cache.tier[flight.layer, flight.expert], 0)]
        held = held + jnp.where(alone, size, 0)
        kept = kept + alone
    return held, kept


def in_flight(
    flight: Flight | None, layer: Int[Array, ""], tier: Int8[Array, " N"]
) -> Bool[Array, " N"]:
    """Returns where in `layer` the copy on the link is."""
    if flight is None:
        return jnp.zeros(tier.shape, bool)
    return (flight.layer == layer) & (jnp.arange(tier.shape[0]) == flight.expert)
