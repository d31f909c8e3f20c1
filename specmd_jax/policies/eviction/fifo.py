"""First in, first out: the copies that were inserted longest ago leave first, used or not.

Score: the event at which the copy was inserted.

Source: folklore; kept as the cheapest baseline, and because it is not a stack policy.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction


class FifoState(NamedTuple):
    inserted_at: Int[Array, "L N"]  # event, -1 for what was there from the start


def init(params: tuple, shape: ModelShape) -> FifoState:
    return FifoState(zeros(shape) - 1)


def score(params: tuple, state: FifoState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    return state.inserted_at


def update(
    params: tuple, state: FifoState, cache: CacheState, event: Event, outcome: Outcome
) -> FifoState:
    before = row(state.inserted_at, outcome.layer)
    after = jnp.where(outcome.inserted, event.clock, before)
    return FifoState(with_row(state.inserted_at, outcome.layer, after))


policy = Eviction(init, score, update, doc=__doc__)
