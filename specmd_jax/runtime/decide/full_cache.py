"""What was asked of a cache that holds every expert: a sum, for nobody leaves it any more."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from specmd_jax.core.types import CacheState, Event, ModelShape
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.state import SimState


class FullCacheCounts(NamedTuple):
    """Demands that found all they asked for."""

    number: Int[np.ndarray, " L"]  # of experts, by layer
    used: Bool[np.ndarray, "L N"]  # in any of them
    prefill_number: Int[np.ndarray, " L"]  # of these, in passes of prefill
    prefill_used: Bool[np.ndarray, "L N"]  # used there first of all

    @classmethod
    def nothing(cls, shape: ModelShape) -> "FullCacheCounts":
        """Returns no demand."""
        layers, experts, _ = shape
        number, used = np.zeros(layers, np.int32), np.zeros((layers, experts), bool)
        return cls(number, used, number, used)

    def and_of(self, events: Event, number: int) -> "FullCacheCounts":
        """Returns these and the first `number` of some stacked events."""
        layers, used, prefill = (
            np.asarray(part)[:number] for part in (events.layer, events.used, events.prefill)
        )
        more = FullCacheCounts(*(part.copy() for part in self))
        experts = used.sum(axis=1, dtype=np.int32)
        np.add.at(more.number, layers, experts)
        np.add.at(more.prefill_number, layers, np.where(prefill, experts, 0))
        early = used & prefill[:, None]  # all of these events are of one phase
        np.logical_or.at(more.prefill_used, layers, early & ~self.used[layers])
        np.logical_or.at(more.used, layers, used)
        return more

    def told(self, state: SimState) -> SimState:
        """Returns a state that knows of them: all but the recency of those who cannot leave.

        Args:
          state: of numpy arrays.
        """
        cache = state.cache
        counts = _with_hits(state.counts, self.number, cache, self.used)
        prefill = _with_hits(state.prefill, self.prefill_number, cache, self.prefill_used)
        if cache.speculative is not None:
            cache = cache._replace(speculative=cache.speculative & ~self.used)
        cache = cache._replace(seen=cache.seen | self.used)
        return state._replace(cache=cache, counts=counts, prefill=prefill)


def _with_hits(
    counts: Counts,
    number: Int[np.ndarray, " L"],
    cache: CacheState,
    used: Bool[np.ndarray, "L N"],
) -> Counts:
    """Returns the counts with some hits more, some of them on what a prefetch brought."""
    foreseen = np.int32(0)
    if cache.speculative is not None:
        foreseen = (cache.speculative & used).sum(axis=1, dtype=np.int32)
    return counts._replace(
        accesses=counts.accesses + number,
        hits=counts.hits + number,
        prefetch_used=counts.prefetch_used + foreseen,
    )
