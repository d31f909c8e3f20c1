"""Computes the experts of a layer: those in slots at once, the others as they arrive."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from specmd_jax.core.interned import Interned
from specmd_jax.runtime.clock import ComputeObserver
from specmd_jax.runtime.decide.layer_work import LayerWork
from specmd_jax.runtime.forward.pass_state import PassState
from specmd_jax.runtime.offload.ffn import (
    FfnSpec,
    InRow,
    InSlots,
    arrive_now,
    compute_resident_now,
)
from specmd_jax.runtime.offload.store import to_device
from specmd_jax.runtime.transfer.prefetch_queue import ExpertCache

Result = TypeVar("Result")
Experts = Bool[Array | np.ndarray, " N"]


class Computing:
    """Has the blocks of a layer computed, and keeps what arrives.

    Attributes:
      stall_s: time that the device had nothing to compute because of the link.
      late_s: of this, for prefetches that were still on their way.
    """

    def __init__(
        self,
        cache: ExpertCache,
        ffns: Sequence[Interned[FfnSpec]],
        observer: ComputeObserver,
        clock: Callable[[], float],
    ):
        """Has computed nothing yet.

        Args:
          cache: of experts.
          ffns: how those of each tier are read and computed.
          observer: is told of all that is computed.
          clock: for stalls, in seconds.
        """
        self.stall_s, self.late_s = 0.0, 0.0
        self._slots, self._store, self._ffns = cache.slots, cache.store, ffns
        self._observer, self._clock = observer, clock
        self._all_experts = jnp.ones(cache.store.shape[1], bool)

    def run_resident(self, state: PassState, tier: int = 0, due: Experts | None = None) -> None:
        """Computes a layer whose experts are all in slots, of one tier, and what follows it.

        Args:
          state: which stands at the gate of the layer.
          tier: of the copies.
          due: which have blocks to compute; None: whoever has some.
        """
        pages = self._slots.pages(state.layer, tier)
        due = self._all_experts if due is None else due
        with self._slots.reading() as memory:
            state.advance(InSlots(memory, pages, due), self._ffns[tier])

    def compute_resident(self, state: PassState, work: LayerWork) -> None:
        """Computes the experts of a layer that are in slots."""
        for tier, ffn in enumerate(self._ffns):
            due = work.resident & (work.tier == tier)
            if due.any():
                pages = self._slots.pages(state.layer, tier)
                with self._slots.reading() as memory:
                    state.blocks = compute_resident_now(
                        ffn, state.blocks, InSlots(memory, pages, due)
                    )
        self._observer.compute(work, work.resident)

    def compute_arrived(
        self, state: PassState, work: LayerWork, expert: int, row: Array, keep: bool
    ) -> None:
        """Computes an expert in the row in which it arrived, and is done with the row.

        Args:
          state: which stands at the gate of the layer.
          work: of the layer.
          expert: its number.
          row: of its weights.
          keep: whether it has a slot, to which it is written.
        """
        ffn = self._ffns[int(work.tier[expert])]
        begin = ffn, state.blocks, InRow(row, np.int32(expert))
        if keep:
            run = partial(arrive_now, *begin)
            state.blocks = self._slots.change(state.layer, expert, run)
        else:
            state.blocks, _ = arrive_now(*begin, None, None)
        jax.block_until_ready(state.blocks.rows.out)  # what it arrived in is free for the next
        self._observer.compute(work, _alone(work, expert))

    def run_last_load(
        self, state: PassState, work: LayerWork, expert: int, row: Array, keep: bool
    ) -> None:
        """Computes the last expert to arrive, and what follows the layer; see `compute_arrived`.

        Only then is it written to its slot: the gate that follows does not wait for that, and the
        program is one for slots of any number.

        Args:
          state: which stands at the gate of the layer.
          work: of the layer.
          expert: its number.
          row: of its weights.
          keep: whether it has a slot.
        """
        self._observer.compute(work, _alone(work, expert))
        self._observer.layer_done(work)
        layer = state.layer
        state.advance(InRow(row, np.int32(expert)), self._ffns[int(work.tier[expert])])
        if keep:
            self._slots.fill(layer, expert, row)

    def stall(self, state: PassState, wait: Callable[[], Result], late: bool) -> Result:
        """Waits, and counts from when all that is there has been computed.

        Args:
          state: which stands at the gate of a layer.
          wait: for what its experts need next.
          late: whether that is a prefetch.
        """
        jax.block_until_ready(state.blocks.rows.out)
        begun = self._clock()
        result = wait()
        waited = self._clock() - begun
        self.stall_s += waited
        self.late_s += waited if late else 0.0
        return result

    def warm_up(self, state: PassState) -> None:
        """Has compiled what a layer comes to whose experts are in slots, all or all but one."""
        for tier in range(len(self._ffns)):
            self.run_resident(state.scratch_copy(), tier)
        if len(self._ffns) == 1:
            row = to_device(self._store[0, state.layer, 0])
            state.scratch_copy().advance(InRow(row, np.int32(0)), self._ffns[0])


def _alone(work: LayerWork, expert: int) -> Bool[np.ndarray, " N"]:
    return np.arange(len(work.tier)) == expert
