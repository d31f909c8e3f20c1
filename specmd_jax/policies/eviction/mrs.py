"""Minus recent score: an exponential average of each expert's router probability, top ones only.

Score: S, and at each event of the layer S <- alpha TopP(s) + (1 - alpha) S, s the router's
probabilities.

Source: HybriMoE (arXiv 2504.05897), S = a TopP(s) + (1 - a) S, evicting the lowest S.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import fixed, ranks, row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import PROBS, Eviction


class MrsParams(NamedTuple):
    alpha: Float[Array, ""] | float = 0.5  # weight of the newest score, in (0, 1]
    top_p: Int[Array, ""] | int = 12  # experts that score at all


class MrsState(NamedTuple):
    average: Int[Array, "L N"]


def init(params: MrsParams, shape: ModelShape) -> MrsState:
    return MrsState(zeros(shape))


def score(params: MrsParams, state: MrsState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    return state.average


def update(
    params: MrsParams, state: MrsState, cache: CacheState, event: Event, outcome: Outcome
) -> MrsState:
    if not outcome.demand:
        return state
    assert event.probs is not None
    scored = jnp.where(ranks(event.probs) < params.top_p, event.probs, 0)
    kept = fixed((1 - params.alpha) * row(state.average, event.layer).astype(jnp.float32), 0)
    average = kept + fixed(params.alpha * scored.astype(jnp.float32), 0)
    return MrsState(with_row(state.average, event.layer, average))


policy = Eviction(init, score, update, MrsParams(), reads=(PROBS,), doc=__doc__)
