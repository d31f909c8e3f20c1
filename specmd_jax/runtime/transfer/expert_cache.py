"""The parts of a run's cache, which the main loop and the prefetch loop share."""

from typing import NamedTuple

from specmd_jax.runtime.decide.decisions import Decisions
from specmd_jax.runtime.offload.slots import Slots
from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.transfer.link import Link


class ExpertCache(NamedTuple):
    """Experts on the device, where they come from, and who decides which."""

    decisions: Decisions
    slots: Slots
    store: ExpertStore
    link: Link
