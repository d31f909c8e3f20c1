"""The prefetch loop of the paper's Figure 2: called after a gate, it has what comes next queued.

The queue is what the decisions named and did not find, nearest layer first and in order of score;
it is replaced at every gate, so that no entry outlives the gate it was queued for.
"""

from typing import NamedTuple

from jaxtyping import Array, Shaped

from specmd_jax.runtime.decide.decisions import Decisions, Place
from specmd_jax.runtime.offload.slots import Slots
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.transfer.link import Delivery, Link


class ExpertCache(NamedTuple):
    """Experts on the device, where they come from, and who decides which: for both loops."""

    decisions: Decisions
    slots: Slots
    store: ExpertStore
    link: Link


class Prefetched(NamedTuple):
    """An expert on its way to a slot."""

    place: Place
    delivery: Delivery


class PrefetchLoop:
    """The prefetch queue, and what starting its first entry takes."""

    def __init__(self, cache: ExpertCache):
        self._cache = cache

    def start_next(self) -> Prefetched | None:
        """Sends the first of the queue, evicting if need be; None if there is none, or no room."""
        decisions, slots, store, link = self._cache
        place = decisions.start_next()
        if place is None:
            return None
        slots.hold(decisions.resident)
        expert = store[int(decisions.resident[place]), *place]
        return Prefetched(place, Delivery(link, expert, name_of(place)))

    def fill(self, place: Place, row: Shaped[Array, " P"]) -> None:
        """Writes an expert that has landed into its slot."""
        self._cache.slots.fill(*place, row)


def name_of(place: Place) -> str:
    """Returns what messages call an expert."""
    layer, expert = place
    return f"expert {expert} of layer {layer}"
