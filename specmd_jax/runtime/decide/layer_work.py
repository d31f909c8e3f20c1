"""What a layer has to compute once its gate has chosen, and where the weights are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8

from specmd_jax.core.types import ABSENT, Event
from specmd_jax.runtime.decide.compiled_step import MissOutcome
from specmd_jax.runtime.decide.decisions import Place


class LayerWork(NamedTuple):
    """The experts of a layer, as numpy arrays."""

    event: Event  # as the routing policy left it
    tier: Int8[np.ndarray, " N"]  # of the copy that computes
    resident: Bool[np.ndarray, " N"]  # computed from where they are: hits, and those that stand in
    late: Bool[np.ndarray, " N"]  # still on the link: one at most
    loaded: Bool[np.ndarray, " N"]
    on_host: Bool[np.ndarray, " N"]
    stand_in: Bool[np.ndarray, " N"]

    @property
    def all_hit(self) -> bool:
        """Whether all that was asked for was there."""
        return not (self.event.used & (~self.resident | self.stand_in)).any()

    def landed(self) -> "LayerWork":
        """Returns the work once what was late is in its slot."""
        return self._replace(resident=self.resident | self.late, late=np.zeros_like(self.late))

    @property
    def all_resident(self) -> bool:
        """Whether all that is computed is in slots, in one precision."""
        if self.loaded.any() or self.late.any() or self.on_host.any():
            return False
        tiers = self.tier[self.resident]
        return bool((tiers == tiers[:1]).all())


def fixed_work(event: Event, resident: Int8[np.ndarray, " N"], flight: Place | None) -> LayerWork:
    """Returns the work where hits are used and misses loaded: before anything is decided.

    Args:
      event: what the gate asks for.
      resident: tiers of what is on the device or has a slot reserved, of the layer.
      flight: the copy on the link.
    """
    used, no_experts = event.used, np.zeros_like(event.used)
    there = resident != ABSENT
    late = no_experts
    if flight is not None and flight[0] == event.layer:
        late = used & (np.arange(len(used)) == flight[1])
    tier = np.zeros_like(resident)
    return LayerWork(event, tier, used & there & ~late, late, used & ~there, no_experts, no_experts)


def work_of(outcome: MissOutcome) -> LayerWork:
    """Returns the work that decisions leave."""
    event, served = outcome
    resident = np.asarray(served.used & ~served.loaded & ~served.late)
    masks = served.late, served.loaded, served.plan.on_host, served.plan.stand_in
    return LayerWork(event, np.asarray(served.tier), resident, *map(np.asarray, masks))
