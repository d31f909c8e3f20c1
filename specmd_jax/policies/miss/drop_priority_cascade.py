"""Full precision for the experts that carry most weight, low for the next, none for the rest.

Plan, with b the share of the gate weight before the expert: b <= high at tier 0, b <= low at tier
1, else dropped.

Source: SpecMD 5.4 names it; the rule is HOBBIT's token-level loader (arXiv 2411.01433), with its
thresholds for Mixtral on the gate weight accumulated before each expert.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from specmd_jax.core.arrays import sum_before, total
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import GATE, LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all


class CascadeParams(NamedTuple):
    high: Float[Array, ""] | float = 0.6  # share of the gate weight served at full precision
    low: Float[Array, ""] | float = 0.9  # share served at all


def plan(params: CascadeParams, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    gate = jnp.where(event.used, event.gate, 0)
    priority = jnp.where(event.used, event.gate, -1)
    before = sum_before(gate, priority).astype(jnp.float32)
    weight = total(gate).astype(jnp.float32)
    tier = jnp.where(before <= params.high * weight, 0, min(1, row.units.shape[0] - 1))
    dropped = row.missing & (before > params.high * weight) & (before > params.low * weight)
    return load_all(row)._replace(tier=tier.astype(jnp.int8), dropped=dropped)


policy = Miss(plan, CascadeParams(), reads=(GATE,), lossless=False, doc=__doc__)
