"""Replace a missing expert of middling score by a resident one of almost the same score.

Only experts within `alpha` of the best score left out may be replaced, and only by residents
within `alpha` below it; what finds no stand-in is loaded.

Plan, with s* the best score left out: a miss of s <= (1 + alpha) s* is replaced, by a resident of
s > (1 - alpha) s*; the highest of both first, one for one.

Source: Zhu et al. 2025 (arXiv 2508.18983), with their bound; alpha 0.25..0.35 there.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specmd_jax.core.arrays import ranks, total
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import PROBS, LayerView, Miss, MissPlan
from specmd_jax.policies.miss.fetch import load_all


class SubstituteParams(NamedTuple):
    alpha: Float[Array, ""] | float = 0.3  # tolerated relative gap in router probability


def plan(params: SubstituteParams, row: LayerView, event: Event, shape: ModelShape) -> MissPlan:
    probs = event.probs
    assert probs is not None
    scores = probs.astype(jnp.float32)
    best_left_out = jnp.max(jnp.where(event.used, -1, probs)).astype(jnp.float32)
    replaceable = row.missing & (scores <= (1 + params.alpha) * best_left_out)
    near = scores > (1 - params.alpha) * best_left_out
    return swap(row, event, replaceable, row.resident & ~event.used & near)


def swap(
    row: LayerView, event: Event, replaceable: Bool[Array, " N"], stand_ins: Bool[Array, " N"]
) -> MissPlan:
    """Returns the plan that replaces as many as can be, highest probability first on both sides."""
    probs = event.probs
    assert probs is not None
    count = jnp.minimum(total(replaceable), total(stand_ins))

    def highest(group):
        return group & (ranks(jnp.where(group, probs, -1)) < count)

    return load_all(row)._replace(substituted=highest(replaceable), stand_in=highest(stand_ins))


policy = Miss(plan, SubstituteParams(), reads=(PROBS,), lossless=False, doc=__doc__)
