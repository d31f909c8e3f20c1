"""Least frequently used: fewest demand uses since the beginning, kept through evictions.

Score: the number of events that used the expert.

Source: "perfect" LFU; SpecMD appendix B counts "over the whole inference history".
"""

from typing import NamedTuple

from jaxtyping import Array, Int

from specmd_jax.core.arrays import row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction


class LfuState(NamedTuple):
    uses: Int[Array, "L N"]


def init(params: tuple, shape: ModelShape) -> LfuState:
    return LfuState(zeros(shape))


def score(params: tuple, state: LfuState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    return state.uses


def update(
    params: tuple, state: LfuState, cache: CacheState, event: Event, outcome: Outcome
) -> LfuState:
    uses = row(state.uses, outcome.layer) + outcome.used
    return LfuState(with_row(state.uses, outcome.layer, uses))


policy = Eviction(init, score, update, fused=True, doc=__doc__)
