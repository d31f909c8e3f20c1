"""Least-Stale: copies not touched in this pass leave first, processed layers before upcoming.

Stale copies of layers already passed go in layer order, then stale ones of layers to come,
farthest first; current copies only when nothing stale is left.

Score, with i = l N + expert: i if stale and l < l_c, 2 L N - 1 - i if stale and l >= l_c,
2 L N + i if current and l < l_c, else 3 L N + i. Current is what was used in this pass, or
selected for it or a later one.

Source: SpecMD 4.2, reading R3: fits "left", Figure 9 and A.3 of the paper.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import layers, positions, row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction


class LeastStaleParams(NamedTuple):
    protect_current_right: Bool[Array, ""] | bool = False  # from prefetches, never from demand


class LeastStaleState(NamedTuple):
    latest_pass: Int[Array, "L N"]  # in which it was used, or for which it was prefetched


def init(params: LeastStaleParams, shape: ModelShape) -> LeastStaleState:
    return LeastStaleState(zeros(shape) - 1)


def current(state: LeastStaleState, event: Event) -> Bool[Array, "L N"]:
    """Returns the experts used in this pass or selected for it or a later one."""
    return state.latest_pass >= event.step


def score(
    params: LeastStaleParams, state: LeastStaleState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    shape = ModelShape(*cache.tier.shape, top_k=0)
    position, many = positions(shape), cache.tier.size
    left = layers(shape) < event.layer
    stale_rank = jnp.where(left, position, 2 * many - 1 - position)
    current_rank = jnp.where(left, 2, 3) * many + position
    return jnp.where(current(state, event), current_rank, stale_rank)


def update(
    params: LeastStaleParams,
    state: LeastStaleState,
    cache: CacheState,
    event: Event,
    outcome: Outcome,
) -> LeastStaleState:
    before = row(state.latest_pass, outcome.layer)
    touched = outcome.used | outcome.selected
    after = jnp.where(touched, jnp.maximum(before, outcome.step), before)
    return LeastStaleState(with_row(state.latest_pass, outcome.layer, after))


def shield(
    params: LeastStaleParams, state: LeastStaleState, cache: CacheState, event: Event
) -> Bool[Array, "L N"]:
    right = layers(ModelShape(*cache.tier.shape, top_k=0)) > event.layer
    return current(state, event) & right & params.protect_current_right


policy = Eviction(
    init, score, update, LeastStaleParams(), shield=shield, distinct=True, fused=True, doc=__doc__
)
