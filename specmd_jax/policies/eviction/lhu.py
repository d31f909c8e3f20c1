"""Least high-precision used: fewest uses at the highest precision in the running request.

Score: the number of events of this request that used the expert at the highest precision.

Source: HOBBIT (arXiv 2411.01433), sequence-level cache; SpecMD configuration #3.
"""

import jax.numpy as jnp

from specmd_jax.core.arrays import row, with_row
from specmd_jax.core.types import CacheState, Event, Outcome
from specmd_jax.policies.base import Eviction
from specmd_jax.policies.eviction import lfu
from specmd_jax.policies.eviction.lfu import LfuState


def begin(params: tuple, state: LfuState, event: Event) -> LfuState:
    return LfuState(jnp.where(event.fresh, 0, state.uses))


def update(
    params: tuple, state: LfuState, cache: CacheState, event: Event, outcome: Outcome
) -> LfuState:
    uses = row(state.uses, outcome.layer) + outcome.high
    return LfuState(with_row(state.uses, outcome.layer, uses))


policy = Eviction(lfu.init, lfu.score, update, begin=begin, doc=__doc__)
