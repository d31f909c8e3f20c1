"""Score-based: lowest mean gate weight over the last `window` events of the expert's layer.

Score: the sum over the last `window` events of the layer of the gate weight, 0 where not chosen.

Source: Zhu et al. 2025 (arXiv 2508.18983), Eq. 3; SpecMD's SB.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from specmd_jax.core.arrays import row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import GATE, Eviction

MAX_WINDOW = 32


class ScoreBasedParams(NamedTuple):
    window: Int[Array, ""] | int = 16  # events, 1..MAX_WINDOW


class ScoreBasedState(NamedTuple):
    recent: Int[Array, "L H N"]  # gate weights of the last H = MAX_WINDOW passes, a ring
    summed: Int[Array, "L N"]  # over the window: the mean, times a constant


def init(params: ScoreBasedParams, shape: ModelShape) -> ScoreBasedState:
    size = (shape.num_layers, MAX_WINDOW, shape.num_experts)
    return ScoreBasedState(jnp.zeros(size, jnp.int32), zeros(shape))


def score(
    params: ScoreBasedParams, state: ScoreBasedState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    return state.summed


def update(
    params: ScoreBasedParams,
    state: ScoreBasedState,
    cache: CacheState,
    event: Event,
    outcome: Outcome,
) -> ScoreBasedState:
    if not outcome.demand:
        return state
    newest, oldest = event.step % MAX_WINDOW, (event.step - params.window) % MAX_WINDOW
    size = (1, 1, state.recent.shape[2])
    leaving = lax.dynamic_slice(state.recent, (event.layer, oldest, 0), size)
    summed = row(state.summed, event.layer) + event.gate - leaving[0, 0]
    return ScoreBasedState(
        lax.dynamic_update_slice(state.recent, event.gate[None, None], (event.layer, newest, 0)),
        with_row(state.summed, event.layer, summed),
    )


policy = Eviction(init, score, update, ScoreBasedParams(), reads=(GATE,), doc=__doc__)
