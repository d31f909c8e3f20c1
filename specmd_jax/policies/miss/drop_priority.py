"""Load the missing experts that matter most, skip the others.

Plan: of the demand D, by falling gate weight, the first ceil(keep |D| / k) are loaded, the rest
dropped.

Source: SpecMD 3.1.2, "Drop priority"; ranks 1 and 2 are kept, as Skliar et al. found safe.
"""

from typing import NamedTuple

from jaxtyping import Array, Int

from specmd_jax.core.arrays import total
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import GATE, LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all
from specmd_jax.policies.miss.fetch_priority import importance_rank


class DropPriorityParams(NamedTuple):
    keep: Int[Array, ""] | int = 2  # experts of a token that are always fetched


def plan(params: DropPriorityParams, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    # In a pass of many tokens the same share of the demand is kept.
    kept = -(-params.keep * total(event.used) // shape.top_k)
    dropped = row.missing & (importance_rank(event) >= kept)
    return load_all(row)._replace(dropped=dropped)


policy = Miss(plan, DropPriorityParams(), reads=(GATE,), lossless=False, doc=__doc__)
