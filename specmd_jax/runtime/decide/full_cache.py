"""What was asked of a cache that holds every expert: a sum, for nobody leaves it any more."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.simulator.state import SimState


class FullCacheCounts(NamedTuple):
    """Demands that found all they asked for."""

    number: Int[np.ndarray, " L"]  # of experts, by layer
    used: Bool[np.ndarray, "L N"]  # in any of them

    @classmethod
    def nothing(cls, shape: ModelShape) -> "FullCacheCounts":
        """Returns no demand."""
        layers, experts, _ = shape
        return cls(np.zeros(layers, np.int32), np.zeros((layers, experts), bool))

    def and_of(self, events: Event, number: int) -> "FullCacheCounts":
        """Returns these and the first `number` of some stacked events."""
        layers, used = np.asarray(events.layer)[:number], np.asarray(events.used)[:number]
        more = FullCacheCounts(self.number.copy(), self.used.copy())
        np.add.at(more.number, layers, used.sum(axis=1, dtype=np.int32))
        np.logical_or.at(more.used, layers, used)
        return more

    def told(self, state: SimState) -> SimState:
        """Returns a state that knows of them: all but the recency of those who cannot leave.

        Args:
          state: of numpy arrays.
        """
        cache, counts = state.cache, state.counts
        foreseen = np.int32(0)
        if cache.speculative is not None:
            foreseen = (cache.speculative & self.used).sum(axis=1, dtype=np.int32)
            cache = cache._replace(speculative=cache.speculative & ~self.used)
        counts = counts._replace(
            accesses=counts.accesses + self.number,
            hits=counts.hits + self.number,
            prefetch_used=counts.prefetch_used + foreseen,
        )
        return state._replace(cache=cache._replace(seen=cache.seen | self.used), counts=counts)
