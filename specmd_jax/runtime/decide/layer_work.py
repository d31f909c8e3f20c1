"""What a layer has to compute once its gate has chosen, and where the weights are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8

from specmd_jax.core.types import ABSENT, Event
from specmd_jax.runtime.decide.compiled_step import Fates
from specmd_jax.runtime.decide.decisions import Place


class Work(NamedTuple):
    """The experts of a layer, as numpy arrays."""

    event: Event  # as the routing policy left it
    tier: Int8[np.ndarray, " N"]  # of the copy that computes
    held: Bool[np.ndarray, " N"]  # computed from where they are: hits, and those that stand in
    late: Bool[np.ndarray, " N"]  # still on the link: one at most
    loaded: Bool[np.ndarray, " N"]
    on_host: Bool[np.ndarray, " N"]
    stand_in: Bool[np.ndarray, " N"]

    @property
    def smooth(self) -> bool:
        """Whether all that was asked for was there."""
        return not (self.event.used & (~self.held | self.stand_in)).any()

    def landed(self) -> "Work":
        """Returns the work once what was late is in its slot."""
        return self._replace(held=self.held | self.late, late=np.zeros_like(self.late))

    @property
    def all_held(self) -> bool:
        """Whether all that is computed is in slots, in one precision."""
        if self.loaded.any() or self.late.any() or self.on_host.any():
            return False
        tiers = self.tier[self.held]
        return bool((tiers == tiers[:1]).all())


def sure_work(event: Event, resident: Int8[np.ndarray, " N"], flight: Place | None) -> Work:
    """Returns the work where hits are used and misses loaded: before anything is decided.

    Args:
      event: what the gate asks for.
      resident: tiers of what is on the device or has a slot reserved, of the layer.
      flight: the copy on the link.
    """
    used, nobody = event.used, np.zeros_like(event.used)
    there = resident != ABSENT
    late = nobody
    if flight is not None and flight[0] == event.layer:
        late = used & (np.arange(len(used)) == flight[1])
    tier = np.zeros_like(resident)
    return Work(event, tier, used & there & ~late, late, used & ~there, nobody, nobody)


def work_of(fates: Fates) -> Work:
    """Returns the work that decisions leave."""
    event, served = fates
    held = np.asarray(served.used & ~served.loaded & ~served.late)
    masks = served.late, served.loaded, served.plan.on_host, served.plan.stand_in
    return Work(event, np.asarray(served.tier), held, *map(np.asarray, masks))
