"""HOBBIT's mix of recency, frequency, high-precision use and layer distance.

Score: w_lru R / p + w_lfu F / p + w_lhu H / p + w_fld (L - (l_c - l) mod L) / L, with p the passes
of the running request, R the one of them of the last use, F the uses and H those at the highest
precision.

Source: HOBBIT, Eq. 3 (arXiv 2411.01433; MoE-APEX at ASPLOS '26). Counts are per request.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import fixed, row, share, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction

Weight = Float[Array, ""] | float


class HobbitParams(NamedTuple):
    w_lru: Weight = 0.25
    w_lfu: Weight = 0.25
    w_lhu: Weight = 0.25
    w_fld: Weight = 0.25


class HobbitState(NamedTuple):
    started: Int[Array, ""]  # first pass of the running request
    uses: Int[Array, "L N"]  # F
    high_uses: Int[Array, "L N"]  # H


def init(params: HobbitParams, shape: ModelShape) -> HobbitState:
    return HobbitState(jnp.int32(0), zeros(shape), zeros(shape))


def begin(params: HobbitParams, state: HobbitState, event: Event) -> HobbitState:
    def reset(values):
        return jnp.where(event.fresh, 0, values)

    started = jnp.where(event.fresh, event.step, state.started)
    return HobbitState(started, reset(state.uses), reset(state.high_uses))


def score(
    params: HobbitParams, state: HobbitState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    num_layers = cache.tier.shape[0]
    passes = event.step - state.started + 1
    last_pass = jnp.maximum(cache.last_used // num_layers - state.started + 1, 0)
    behind = (event.layer - jnp.arange(num_layers, dtype=jnp.int32)) % num_layers
    return (
        fixed(params.w_lru * share(last_pass, passes), 20)
        + fixed(params.w_lfu * share(state.uses, passes), 20)
        + fixed(params.w_lhu * share(state.high_uses, passes), 20)
        + fixed(params.w_fld * share(num_layers - behind, num_layers), 20)[:, None]
    )


def update(
    params: HobbitParams, state: HobbitState, cache: CacheState, event: Event, outcome: Outcome
) -> HobbitState:
    layer = outcome.layer
    return state._replace(
        uses=with_row(state.uses, layer, row(state.uses, layer) + outcome.used),
        high_uses=with_row(state.high_uses, layer, row(state.high_uses, layer) + outcome.high),
    )


policy = Eviction(
    init, score, update, HobbitParams(), begin=begin, weights=HobbitParams._fields, doc=__doc__
)
