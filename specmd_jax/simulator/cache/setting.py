"""What stays the same from event to event, and the arithmetic of sizes and pools."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.arrays import row, total, with_row
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import Strategy, StrategyParams


class CacheConfig(NamedTuple):
    """What stays the same from event to event."""

    strategy: Strategy  # static
    shape: ModelShape  # static
    params: StrategyParams
    capacity: Int[Array, " W"]  # units of each pool
    units: Int[Array, "L Q"]  # size of one copy, by layer and tier


def size_of(
    setting: CacheConfig, layer: Int[Array, ""], mask: Bool[Array, " N"], tier: Int8[Array, " N"]
) -> Int[Array, ""]:
    """Returns the units that the experts in `mask` of `layer` take at their tiers.

    Args:
      mask: experts of `layer`.
      tier: of each expert's copy; ABSENT counts as tier 0.
    """
    sizes = row(setting.units, layer)
    if sizes.shape[0] == 1:
        return total(mask) * sizes[0]
    return total(jnp.where(mask, sizes[jnp.maximum(tier, 0)], 0))


def sizes(units: Int[Array, "L Q"], tier: Int8[Array, "L N"]) -> Int[Array, "L N"]:
    """Returns the units of each copy; those of tier 0 where there is none."""
    if units.shape[1] == 1:
        return jnp.broadcast_to(units, tier.shape)
    return jnp.take_along_axis(units, jnp.maximum(tier, 0).astype(jnp.int32), axis=1)


def add_to_pool(
    values: Int[Array, " W"], layer: Int[Array, ""], amount: Int[Array, ""]
) -> Int[Array, " W"]:
    """Returns `values` with `amount` more in the pool that `layer` draws on."""
    if values.shape[0] == 1:
        return values + amount
    return with_row(values, layer, row(values, layer) + amount)
