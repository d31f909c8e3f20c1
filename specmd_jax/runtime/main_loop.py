"""The main loop of the paper's Figure 2: what happens between a gate and the next layer.

Hits are computed while misses load, each miss as soon as it is there. At most `LANES` loads are
under way at a time, so that what is in transit is bounded, too.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Shaped

from specmd_jax.models import DecoderConfig, Gate
from specmd_jax.runtime.carry import carry
from specmd_jax.runtime.decisions import Decisions, Place
from specmd_jax.runtime.demand import Asked, Moment, event_of, fetch
from specmd_jax.runtime.fates import meet_fates
from specmd_jax.runtime.hits import Hits, found_from_start
from specmd_jax.runtime.host_experts import HostExperts
from specmd_jax.runtime.link import Link
from specmd_jax.runtime.loads import Loads, missing
from specmd_jax.runtime.memory import Memory
from specmd_jax.runtime.pace import Pace
from specmd_jax.runtime.slots import Slots
from specmd_jax.runtime.steps import Decision
from specmd_jax.runtime.store import ExpertStore
from specmd_jax.runtime.walk import Walk
from specmd_jax.runtime.watchdog import Watching
from specmd_jax.runtime.waves import (
    Blocks,
    How,
    Way,
    combine_now,
    compute_arrived_now,
    compute_held_now,
    lay_out_now,
)
from specmd_jax.runtime.work import Work, sure_work, work_of
from specmd_jax.static import Static
from specmd_jax.strategy import Strategy
from specmd_jax.types import Event
from specmd_kernels import Implementation

Result = TypeVar("Result")

LANES = 2  # demand loads in transit: one arrives while the other is computed


class MainLoop:
    """Serves gates.

    Attributes:
      stall_s: time that the device had nothing to compute because of the link.
      late_s: of this, for prefetches that were still on their way.
      apart: whether a pass is computed in parts and rehearsed, see `OffloadedModel.go_apart`.
      rough: gates so far that missed something, or after which something was wanted.
      compute_by: how the experts of each tier are read and computed.
    """

    def __init__(
        self,
        config: DecoderConfig,
        strategy: Strategy,
        decisions: Decisions,
        slots: Slots,
        store: ExpertStore,
        link: Link,
        watchdog: Watching,
        pace: Pace,
        *,
        lanes: int = LANES,
        clock: Callable[[], float] = time.perf_counter,
        implementation: Implementation | None = None,
    ):
        """Takes what it works with.

        Args:
          config: of the decoder.
          strategy: whose decisions these are.
          decisions: about loads and evictions.
          slots: on the device.
          store: on the host.
          link: between the two.
          watchdog: that prefetches.
          pace: is told of all that is computed.
          lanes: loads in transit at a time.
          clock: for stalls.
          implementation: of the experts' kernel.
        """
        self.stall_s, self.late_s, self.rough = 0.0, 0.0, 0
        self.apart = False
        self._config, self._lossy = config, strategy.open_loop
        self._routing = strategy.routing.choose is not None
        self._prefetches = strategy.prefetches
        self._one_tier = len(store.packings) == 1
        self._plain = self._one_tier and not self._routing
        self._hits = Hits(decisions, store.shape[1], strategy.reads)
        self._everyone = jnp.ones(store.shape[1], bool)
        self.compute_by = [
            Static(Way(one, config.activation, implementation)) for one in store.packings
        ]
        self._decisions, self._slots, self._store = decisions, slots, store
        self._link, self._watchdog, self._pace = link, watchdog, pace
        self._lanes, self._clock = lanes, clock
        self._host = HostExperts(config.activation, store)

    def serve(self, walk: Walk, gate: Gate, asked: Asked, moment: Moment) -> None:
        """Has the routed experts of a layer computed, and the walk go on with them.

        Args:
          walk: which is at the gate of the layer.
          gate: the gate.
          asked: what it chose, its ids on the host.
          moment: when it did.

        Raises:
          TransferFailed: an expert cannot be loaded.
          WatchdogFailed: prefetching failed.
        """
        flight = self._watchdog.hold()
        if flight is None and self._nothing_wanted and self._found(asked.ids, walk.layer):
            self._go_held(walk, gate, 0, self._everyone)
            self._hits.note(asked, moment)
            self._pace.compute_held(lambda: self._sure_work(self._event(asked, moment), None))
            return
        if self._decisions.sure:
            self._serve_sure(walk, gate, asked, moment, flight)
        else:
            self._serve_decided(walk, gate, asked, moment, flight)

    def _serve_sure(
        self, walk: Walk, gate: Gate, asked: Asked, moment: Moment, flight: Place | None
    ) -> None:
        """Serves a gate whose misses are loaded: they are sent for before all else."""
        absent = missing(self._slots.there[walk.layer], np.asarray(asked.ids))
        loads = self._loads(walk.layer, absent, np.zeros(absent.shape, np.int8))
        self._hits.settle()
        event = self._event(asked, moment)
        work = self._sure_work(event, flight)
        self._carry_out(walk, gate, work, loads, partial(self._decide, event, flight))

    def _serve_decided(
        self, walk: Walk, gate: Gate, asked: Asked, moment: Moment, flight: Place | None
    ) -> None:
        """Serves a gate of which a decision says what is computed."""
        self._hits.settle()
        decision = self._decide(self._event(asked, moment), flight)
        assert decision.fates is not None
        if self._lossy:
            gate = meet_fates(self._config, self._routing, gate, *decision.fates)
        work = work_of(decision.fates)
        loads = self._loads(walk.layer, work.loaded, work.tier)
        self._carry_out(walk, gate, work, loads, lambda: decision)

    def serve_hits(self, asked: Asked, moment: Moment) -> int:
        """Serves the layers of a pass up to the first that needs a decision, and says how many.

        Args:
          asked: by all of them.
          moment: of the first.
        """
        if self.holds_all:
            self._hits.note(asked, moment)
            return len(asked.ids)
        count = self._found(asked.ids)  # waits for the pass
        if self._nothing_wanted and count == len(asked.ids):
            self._hits.note(asked, moment)
            return count
        (asked,) = fetch([asked])
        if self._nothing_wanted:
            if count:
                self._hits.note(asked.of(slice(count)), moment)
            return count
        self._hits.settle()
        return self._decisions.try_hits(self._hits.events(asked, moment), count)

    def settle(self, *, if_due: bool = False) -> None:
        """Has everything counted that was served.

        Args:
          if_due: only if there is much of it.
        """
        if self._hits.due or not if_due:
            self._hits.settle()

    def warm(self, lookahead: int) -> None:
        """Has compiled what hits come to, however late in a run they do.

        Args:
          lookahead: layers that the gates foresee.
        """
        self._hits.warm(self._config.spec.shape, lookahead)

    @property
    def _nothing_wanted(self) -> bool:
        """Whether a gate that finds all it asks for needs no decision."""
        return not self.apart and self._plain and (not self._prefetches or self.holds_all)

    def _found(self, ids: Int[Array | np.ndarray, "layers T K"], layer: int = 0) -> int:
        return found_from_start(self._slots.there, np.asarray(ids), layer)

    def _event(self, asked: Asked, moment: Moment) -> Event:
        return event_of(self._hits.events(fetch([asked])[0], moment), 0)

    def _sure_work(self, event: Event, flight: Place | None) -> Work:
        return sure_work(event, self._slots.tier[int(event.layer)], flight)

    def _decide(self, event: Event, flight: Place | None) -> Decision:
        """Has an event decided, and those that leave the cache out of their slots."""
        decision = self._decisions.serve(event, flight)
        self._slots.hold(np.asarray(decision.resident))
        return decision

    @property
    def holds_all(self) -> bool:
        """Whether every expert is on the device; nothing can be missing from then on."""
        return bool(self._slots.there.all())

    def on_slots(self, run: Callable[[Memory, Int[np.ndarray, "L N"]], Result]) -> Result | None:
        """Returns what `run` makes of the slots; None, and it is not run, if one is being filled.

        Args:
          run: is given the memory of all slots, and the slot of each expert.

        Raises:
          WatchdogFailed: prefetching failed.
        """
        if self._watchdog.hold() is not None:
            return None
        with self._slots.reading() as weights:
            return run(weights, self._slots.first_pages)

    def _loads(
        self, layer: int, experts: Bool[np.ndarray, " N"], tier: Int8[np.ndarray, " N"]
    ) -> Loads:
        return Loads(self._link, self._store, layer, experts, tier, self._lanes)

    def _carry_out(
        self, walk: Walk, gate: Gate, work: Work, loads: Loads, decide: Callable[[], Decision]
    ) -> None:
        """Computes a layer, what it misses being on its way.

        Who prefetches decides before the compute that prefetches hide behind, everybody else
        while the device computes.
        """
        decision = None
        if self._prefetches:
            decision = decide()
            if decision.queued:
                loads.then(self._watchdog.release)
        if work.all_held and not self.apart:
            tier = int(work.tier[work.held][0]) if work.held.any() else 0
            self._go_held(walk, gate, tier, work.held)
            self._note(work, decision or decide())
            self._pace.compute_held(lambda: work)
            return
        blocks = lay_out_now(gate)
        hosted = self._host.begin(walk.layer, blocks, work.on_host)
        blocks = self._compute_held(blocks, work, work.held)
        decision = decision or decide()
        self._note(work, decision)
        if work.late.any():
            before = self.stall_s
            self._stall(blocks, self._watchdog.wait_landed)
            self.late_s += self.stall_s - before
            blocks = self._compute_held(blocks, work, work.late)
        streamed = np.asarray(decision.streamed)
        joined = self._one_tier and hosted is None and not (self.apart or work.event.prefill)
        while loads and not (joined and loads.last):
            blocks = self._compute_next(blocks, loads, work, streamed)
        if loads:
            self._go_last(walk, gate, blocks, loads, work, streamed)
            return
        self._pace.layer_done(work)
        if self.apart:
            self._rehearse(walk, gate, blocks)
        walk.go(gate, combine_now(self._host.merge(blocks, hosted), gate.weights))

    def _rehearse(self, walk: Walk, gate: Gate, blocks: Blocks) -> None:
        """Has compiled what a layer comes to whose experts are in slots, all or all but one."""
        for tier in range(len(self.compute_by)):
            self._go_held(walk.aside(), gate, tier, self._everyone)
        if self._one_tier:
            row = carry(self._store[0, walk.layer, 0])
            walk.aside().go_last(gate, self.compute_by[0], blocks, row, np.int32(0))

    def _note(self, work: Work, decision: Decision) -> None:
        self.rough += not work.smooth or bool(decision.queued)

    def _go_held(
        self, walk: Walk, gate: Gate, tier: int, due: Bool[Array | np.ndarray, " N"]
    ) -> None:
        """Computes a layer whose experts are all in slots, of one tier, and what follows it."""
        pages = self._slots.pages(walk.layer, tier)
        with self._slots.reading() as weights:
            walk.go_held(gate, self.compute_by[tier], weights, pages, due)

    def _compute_held(self, blocks: Blocks, work: Work, experts: Bool[np.ndarray, " N"]) -> Blocks:
        layer = int(work.event.layer)
        for tier, how in enumerate(self.compute_by):
            due = experts & (work.tier == tier)
            if due.any():
                pages = self._slots.pages(layer, tier)
                with self._slots.reading() as weights:
                    blocks = compute_held_now(how, blocks, weights, pages, due)
        self._pace.compute(work, experts)
        return blocks

    def _compute_next(
        self, blocks: Blocks, loads: Loads, work: Work, streamed: Bool[np.ndarray, " N"]
    ) -> Blocks:
        """Computes the next expert as soon as it has arrived."""
        expert, delivery = loads.first
        row, how = self._stall(blocks, delivery.wait), self._how(work, expert)
        blocks = compute_arrived_now(how, blocks, row, np.int32(expert))
        self._keep(work, expert, row, streamed)
        jax.block_until_ready(blocks.rows.out)  # what it arrived in is free for the next
        self._pace.compute(work, np.arange(len(work.tier)) == expert)
        loads.go_on()
        return blocks

    def _go_last(
        self,
        walk: Walk,
        gate: Gate,
        blocks: Blocks,
        loads: Loads,
        work: Work,
        streamed: Bool[np.ndarray, " N"],
    ) -> None:
        """Computes the last expert of a layer, and what follows it: the link idles until then."""
        expert, delivery = loads.first
        row, how = self._stall(blocks, delivery.wait), self._how(work, expert)
        self._pace.compute(work, np.arange(len(work.tier)) == expert)
        self._pace.layer_done(work)
        walk.go_last(gate, how, blocks, row, np.int32(expert))
        self._keep(work, expert, row, streamed)

    def _how(self, work: Work, expert: int) -> How:
        return self.compute_by[int(work.tier[expert])]

    def _keep(
        self, work: Work, expert: int, row: Shaped[Array, " P"], streamed: Bool[np.ndarray, " N"]
    ) -> None:
        if not streamed[expert]:
            self._slots.fill(int(work.event.layer), expert, row)

    def _stall(self, blocks: Blocks, wait: Callable[[], Result]) -> Result:
        """Waits, and counts from when all that is there has been computed."""
        jax.block_until_ready(blocks.rows.out)
        begun = self._clock()
        result = wait()
        self.stall_s += self._clock() - begun
        return result
