"""Computes the experts of a layer: those in slots at once, the others as they arrive."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from specmd_jax.core.interned import Static
from specmd_jax.models.config import Activation
from specmd_jax.runtime.clock import Pace
from specmd_jax.runtime.decide.layer_work import Work
from specmd_jax.runtime.forward.pass_state import Walk
from specmd_jax.runtime.offload.ffn import How, Way, arrive_now, compute_held_now
from specmd_jax.runtime.offload.slots import Slots
from specmd_jax.runtime.offload.store import ExpertStore, to_device
from specmd_kernels import Implementation

Result = TypeVar("Result")
Experts = Bool[Array | np.ndarray, " N"]


class Computing:
    """Has the blocks of a walk computed, and keeps what arrives.

    Attributes:
      by: how the experts of each tier are read and computed.
      stall_s: time that the device had nothing to compute because of the link.
      late_s: of this, for prefetches that were still on their way.
    """

    def __init__(
        self,
        slots: Slots,
        store: ExpertStore,
        activation: Activation,
        pace: Pace,
        clock: Callable[[], float] = time.perf_counter,
        implementation: Implementation | None = None,
    ):
        """Has computed nothing yet.

        Args:
          slots: on the device.
          store: on the host.
          activation: of the experts.
          pace: is told of all that is computed.
          clock: for stalls.
          implementation: of the experts' kernel.
        """
        self.by: list[How] = [
            Static(Way(one, activation, implementation)) for one in store.packings
        ]
        self.stall_s, self.late_s = 0.0, 0.0
        self._slots, self._store, self._pace, self._clock = slots, store, pace, clock
        self._everyone = jnp.ones(store.shape[1], bool)

    def go_held(self, walk: Walk, tier: int = 0, due: Experts | None = None) -> None:
        """Computes a layer whose experts are all in slots, of one tier, and what follows it.

        Args:
          walk: which stands at the gate of the layer.
          tier: of the copies.
          due: which have blocks to compute; None: whoever has some.
        """
        pages = self._slots.pages(walk.layer, tier)
        due = self._everyone if due is None else due
        with self._slots.reading() as memory:
            walk.go_held(self.by[tier], memory, pages, due)

    def held(self, walk: Walk, work: Work) -> None:
        """Computes the experts of a layer that are in slots."""
        for tier, how in enumerate(self.by):
            due = work.held & (work.tier == tier)
            if due.any():
                pages = self._slots.pages(walk.layer, tier)
                with self._slots.reading() as memory:
                    walk.blocks = compute_held_now(how, walk.blocks, memory, pages, due)
        self._pace.compute(work, work.held)

    def arriving(self, walk: Walk, work: Work, expert: int, row: Array, keep: bool) -> None:
        """Computes an expert in the row in which it arrived, and is done with the row.

        Args:
          walk: which stands at the gate of the layer.
          work: of the layer.
          expert: its number.
          row: of its weights.
          keep: whether it has a slot, to which it is written.
        """
        how = self.by[int(work.tier[expert])]
        begin = how, walk.blocks, row, np.int32(expert)
        if keep:
            run = partial(arrive_now, *begin)
            walk.blocks = self._slots.change(walk.layer, expert, run)
        else:
            walk.blocks, _ = arrive_now(*begin, None, None)
        jax.block_until_ready(walk.blocks.rows.out)  # what it arrived in is free for the next
        self._pace.compute(work, _alone(work, expert))

    def go_last(self, walk: Walk, work: Work, expert: int, row: Array, keep: bool) -> None:
        """Computes the last expert of a layer to arrive, and what follows it; see `arriving`.

        Only then is it written to its slot: the gate that follows does not wait for that, and the
        program is one for slots of any number.
        """
        self._pace.compute(work, _alone(work, expert))
        self._pace.layer_done(work)
        layer = walk.layer
        walk.go_last(self.by[int(work.tier[expert])], row, np.int32(expert))
        if keep:
            self._slots.fill(layer, expert, row)

    def stall(self, walk: Walk, wait: Callable[[], Result], late: bool) -> Result:
        """Waits, and counts from when all that is there has been computed.

        Args:
          walk: which stands at the gate of a layer.
          wait: for what its experts need next.
          late: whether that is a prefetch.
        """
        jax.block_until_ready(walk.blocks.rows.out)
        begun = self._clock()
        result = wait()
        waited = self._clock() - begun
        self.stall_s += waited
        self.late_s += waited if late else 0.0
        return result

    def rehearse(self, walk: Walk) -> None:
        """Has compiled what a layer comes to whose experts are in slots, all or all but one."""
        for tier in range(len(self.by)):
            self.go_held(_aside(walk), tier)
        if len(self.by) == 1:
            row = to_device(self._store[0, walk.layer, 0])
            _aside(walk).go_last(self.by[0], row, np.int32(0))


def _alone(work: Work, expert: int) -> Bool[np.ndarray, " N"]:
    return np.arange(len(work.tier)) == expert


def _aside(walk: Walk) -> Walk:
    """Returns a walk as it came to its gate: what it computes and where it goes changes nothing."""
    aside = walk.aside()
    aside.choose(walk.gate)
    return aside
