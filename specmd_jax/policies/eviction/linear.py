"""A weighted sum of recency, frequency, gate weight and layer nearness; all in [0, 1].

LRU is the corner (1, 0, 0, 0) and LFU is (0, 1, 0, 0), exactly, since ties fall to recency.
The family is smooth in its weights, so they can be tuned by gradient or by search.

Score: w_recency t_last / t + w_frequency uses / passes + w_gate (mean gate weight of 16 events) +
w_nearness (L - (l - l_c) mod L) / L, with t the event and t_last the one of the last use.

Source: this project.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import fixed, share
from specmd_jax.core.types import ONE, CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import GATE, Eviction
from specmd_jax.policies.eviction import lfu, score_based
from specmd_jax.policies.eviction.lfu import LfuState
from specmd_jax.policies.eviction.score_based import ScoreBasedParams, ScoreBasedState

Weight = Float[Array, ""] | float
WINDOW = 16  # events over which gate weights are averaged


class LinearParams(NamedTuple):
    w_recency: Weight = 1.0
    w_frequency: Weight = 0.0
    w_gate: Weight = 0.0
    w_nearness: Weight = 0.0


class LinearState(NamedTuple):
    frequency: LfuState
    gate: ScoreBasedState


def init(params: LinearParams, shape: ModelShape) -> LinearState:
    return LinearState(lfu.init((), shape), score_based.init(ScoreBasedParams(WINDOW), shape))


def score(
    params: LinearParams, state: LinearState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    num_layers = cache.tier.shape[0]
    ahead = (jnp.arange(num_layers, dtype=jnp.int32) - event.layer) % num_layers
    return (
        fixed(params.w_recency * share(cache.last_used + 1, event.clock + 1), 20)
        + fixed(params.w_frequency * share(state.frequency.uses, event.step + 1), 20)
        + fixed(params.w_gate * share(state.gate.summed, WINDOW * ONE), 20)
        + fixed(params.w_nearness * share(num_layers - ahead, num_layers), 20)[:, None]
    )


def update(
    params: LinearParams, state: LinearState, cache: CacheState, event: Event, outcome: Outcome
) -> LinearState:
    return LinearState(
        lfu.update((), state.frequency, cache, event, outcome),
        score_based.update(ScoreBasedParams(WINDOW), state.gate, cache, event, outcome),
    )


policy = Eviction(
    init, score, update, LinearParams(),
    reads=(GATE,), weights=LinearParams._fields, fused=True, doc=__doc__,
)  # fmt: skip
