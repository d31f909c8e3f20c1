"""Load at the highest precision; a tier lower for the least important experts, and under pressure.

Low importance is the bottom share of the gate weights. Pressure is an event that does not fit:
every load then drops a tier, and another, until it does.

Plan: at the least tier b at which the event fits, and at b + 1 for the floor(low |D|) experts of
least gate weight.

Source: SpecMD 3.1.2 and 5.4, "Fetch-priority (int8:4:2)", bottom 60th percentile.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import ranks, total
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import GATE, LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all


class FetchPriorityParams(NamedTuple):
    low: Float[Array, ""] | float = 0.6  # share of the demand that counts as unimportant


def plan(params: FetchPriorityParams, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    demanded = total(event.used)
    num_low = jnp.floor(params.low * demanded.astype(jnp.float32)).astype(jnp.int32)
    unimportant = importance_rank(event) >= demanded - num_low
    last = row.units.shape[0] - 1
    held = total(jnp.where(row.hit, row.units[jnp.maximum(row.tier, 0)], 0))

    tier = jnp.minimum(last, last + unimportant)
    for base in reversed(range(last)):
        wanted = jnp.minimum(last, base + unimportant)
        fits = held + total(jnp.where(row.missing, row.units[wanted], 0)) <= row.capacity
        tier = jnp.where(fits, wanted, tier)
    return load_all(row)._replace(tier=tier.astype(jnp.int8))


def importance_rank(event: Event) -> Int[Array, " N"]:
    """Returns the place of each demanded expert by falling gate weight; ties: lower expert."""
    return ranks(jnp.where(event.used, event.gate, -1))


policy = Miss(plan, FetchPriorityParams(), reads=(GATE,), lossless=False, doc=__doc__)
