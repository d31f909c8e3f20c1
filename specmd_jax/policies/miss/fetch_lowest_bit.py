"""Load every missing expert at the lowest precision there is.

Plan: every miss at the last tier.

Source: SpecMD 3.1.2, "Fetch-lowest-bit".
"""

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all


def plan(params: tuple, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    everything = load_all(row)
    return everything._replace(tier=everything.tier + (row.units.shape[0] - 1))


policy = Miss(plan, prefetch_last_tier=True, lossless=False, doc=__doc__)
