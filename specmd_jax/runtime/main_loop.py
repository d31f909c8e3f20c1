"""The main loop of the paper's Figure 2: what happens between a gate and the next layer.

Hits are computed while misses load, each miss as soon as it is there. At most `lanes` loads are
under way at a time, so that what is in transit is bounded, too.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int, Int8

from specmd_jax.core.types import Event
from specmd_jax.models import DecoderConfig
from specmd_jax.policies.strategy import Strategy
from specmd_jax.runtime.clock import Pace
from specmd_jax.runtime.compute import Computing
from specmd_jax.runtime.decide.applied_choice import meet_fates
from specmd_jax.runtime.decide.compiled_step import Decision
from specmd_jax.runtime.decide.decisions import Place
from specmd_jax.runtime.decide.hit_backlog import Hits, found_from_start
from specmd_jax.runtime.decide.layer_work import Work, sure_work, work_of
from specmd_jax.runtime.forward.pass_state import Walk
from specmd_jax.runtime.gates.gate_events import Moment, event_of
from specmd_jax.runtime.gates.message import Form, Messages
from specmd_jax.runtime.offload.ffn import combine_now
from specmd_jax.runtime.offload.host_ffn import HostExperts
from specmd_jax.runtime.offload.pages import Memory
from specmd_jax.runtime.transfer.demand_loads import Loads, missing
from specmd_jax.runtime.transfer.estimate import Expecting
from specmd_jax.runtime.transfer.prefetch_queue import ExpertCache
from specmd_jax.runtime.transfer.watchdog import Watching

Result = TypeVar("Result")


class MainLoop:
    """Serves gates.

    Attributes:
      apart: whether a pass is computed in parts and rehearsed, see `OffloadedModel.go_apart`.
      rough: gates so far that missed something, or after which something was wanted.
    """

    def __init__(
        self,
        config: DecoderConfig,
        strategy: Strategy,
        form: Form,
        cache: ExpertCache,
        watchdog: Watching,
        computing: Computing,
        pace: Pace,
        expecting: Expecting,
        *,
        lanes: int,
    ):
        """Takes what it works with.

        Args:
          config: of the decoder.
          strategy: whose decisions these are.
          form: of the gates' messages.
          cache: of experts.
          watchdog: that prefetches.
          computing: of experts on the device.
          pace: is told of all that is computed.
          expecting: of the link; asked if there is a guard.
          lanes: loads in transit at a time.
        """
        self.apart, self.rough = False, 0
        self._config, self._form, self._lossy = config, form, strategy.open_loop
        self._routing = strategy.routing.choose is not None
        self._prefetches = strategy.prefetches
        self._one_tier = len(cache.store.packings) == 1
        self._plain = self._one_tier and not self._routing
        self._hits = Hits(cache.decisions, form, strategy.reads)
        self._cache, self._decisions, self._slots = cache, cache.decisions, cache.slots
        self._watchdog, self._lanes = watchdog, lanes
        self._computing, self._pace = computing, pace
        self._expecting = expecting if strategy.guard else None
        self._host = HostExperts(config.activation, cache.store)

    def serve(self, walk: Walk, message: Int[np.ndarray, "1 T M"], moment: Moment) -> None:
        """Has the routed experts of a layer computed, and the walk go on with them.

        Args:
          walk: which is at the gate of the layer.
          message: of the gate, on the host.
          moment: when it chose.

        Raises:
          TransferFailed: an expert cannot be loaded.
          WatchdogFailed: prefetching failed.
        """
        flight = self._watchdog.hold()
        if self._expecting is not None:
            self._expecting.at_gate(moment, self._computing.stall_s)
        ids = self._form.ids(message)
        if flight is None and self._nothing_wanted and self._found(ids, walk.layer):
            self._computing.go_held(walk)
            self._hits.note(message, moment)
            self._pace.compute_held(lambda: self._sure_work(self._event(message, moment), None))
            return
        if self._decisions.sure:
            self._serve_sure(walk, message, moment, flight)
        else:
            self._serve_decided(walk, message, moment, flight)

    def _serve_sure(
        self, walk: Walk, message: Int[np.ndarray, "1 T M"], moment: Moment, flight: Place | None
    ) -> None:
        """Serves a gate whose misses are loaded: they are sent for before all else."""
        absent = missing(self._slots.there[walk.layer], self._form.ids(message))
        loads = self._loads(walk.layer, absent, np.zeros(absent.shape, np.int8))
        self._hits.settle()
        event = self._event(message, moment)
        work = self._sure_work(event, flight)
        self._carry_out(walk, work, loads, partial(self._decide, event, flight))

    def _serve_decided(
        self, walk: Walk, message: Int[np.ndarray, "1 T M"], moment: Moment, flight: Place | None
    ) -> None:
        """Serves a gate of which a decision says what is computed."""
        self._hits.settle()
        decision = self._decide(self._event(message, moment), flight)
        assert decision.fates is not None
        if self._lossy:
            walk.choose(meet_fates(self._config, self._routing, walk.gate, *decision.fates))
        work = work_of(decision.fates)
        loads = self._loads(walk.layer, work.loaded, work.tier)
        self._carry_out(walk, work, loads, lambda: decision)

    def serve_hits(self, messages: Messages, moment: Moment) -> int:
        """Serves the layers of a pass up to the first that needs a decision, and says how many.

        Args:
          messages: of all of them.
          moment: of the first.
        """
        if self._expecting is not None:
            self._expecting.look_away()
        if self.holds_all:
            self._hits.note(messages, moment)
            return len(messages)
        here = np.asarray(messages)  # waits for the pass
        count = self._found(self._form.ids(here))
        if self._nothing_wanted:
            if count:
                self._hits.note(here[:count], moment)
            return count
        self._hits.settle()
        return self._decisions.try_hits(self._hits.events(here, moment), count)

    def settle(self, *, if_due: bool = False) -> None:
        """Has everything counted that was served.

        Args:
          if_due: only if there is much of it.
        """
        if self._hits.due or not if_due:
            self._hits.settle()

    def warm(self) -> None:
        """Has compiled what hits come to, however late in a run they do."""
        self._hits.warm(self._config.spec.num_moe_layers)

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
        with self._slots.reading() as memory:
            return run(memory, self._slots.first_pages)

    @property
    def _nothing_wanted(self) -> bool:
        """Whether a gate that finds all it asks for needs no decision."""
        return not self.apart and self._plain and (not self._prefetches or self.holds_all)

    def _found(self, ids: Int[np.ndarray, "layers T K"], layer: int = 0) -> int:
        return found_from_start(self._slots.there, ids, layer)

    def _event(self, message: Int[np.ndarray, "1 T M"], moment: Moment) -> Event:
        return event_of(self._hits.events(message, moment), 0)

    def _sure_work(self, event: Event, flight: Place | None) -> Work:
        return sure_work(event, self._slots.tier[int(event.layer)], flight)

    def _decide(self, event: Event, flight: Place | None) -> Decision:
        """Has an event decided, and those that leave the cache out of their slots."""
        outlook = None
        if self._expecting is not None:
            outlook = self._expecting.outlook(self._sure_work(event, flight))
        decision = self._decisions.serve(event, flight, outlook)
        self._slots.hold(np.asarray(decision.resident))
        return decision

    def _loads(
        self, layer: int, experts: Bool[np.ndarray, " N"], tier: Int8[np.ndarray, " N"]
    ) -> Loads:
        cache = self._cache
        return Loads(cache.link, cache.store, layer, experts, tier, self._lanes)

    def _carry_out(
        self, walk: Walk, work: Work, loads: Loads, decide: Callable[[], Decision]
    ) -> None:
        """Computes a layer, what it misses being on its way.

        Who prefetches decides before the compute that prefetches hide behind, everybody else
        while the device computes.
        """
        if work.late.any():
            claim = self._watchdog.claim()
            if claim is None:
                work = work.landed()
            else:
                loads.lead(int(np.flatnonzero(work.late)[0]), claim)
        decision = None
        if self._prefetches:
            decision = decide()
            if decision.queued:
                loads.then(self._watchdog.release)
        if work.all_held and not self.apart:
            tier = int(work.tier[work.held][0]) if work.held.any() else 0
            self._computing.go_held(walk, tier, work.held)
            self._note(work, decision or decide())
            self._pace.compute_held(lambda: work)
            return
        hosted = self._host.begin(walk.layer, walk.blocks, work.on_host)
        self._computing.held(walk, work)
        decision = decision or decide()
        self._note(work, decision)
        joined = self._one_tier and hosted is None and not (self.apart or work.event.prefill)
        if self._stream(walk, work, loads, np.asarray(decision.streamed), joined):
            return
        self._pace.layer_done(work)
        if self.apart:
            self._computing.rehearse(walk)
        blocks = self._host.merge(walk.blocks, hosted)
        walk.go(combine_now(blocks, walk.gate.weights))

    def _stream(
        self, walk: Walk, work: Work, loads: Loads, streamed: Bool[np.ndarray, " N"], joined: bool
    ) -> bool:
        """Computes experts as they arrive; returns whether the walk has gone on with the last.

        Args:
          walk: which is at the gate of the layer.
          work: of the layer.
          loads: on their way.
          streamed: which are not retained.
          joined: whether what follows the last is computed with it.
        """
        while loads:
            expert, last = loads.expert, loads.last
            row = self._computing.stall(walk, loads.wait, late=bool(work.late[expert]))
            if last and self._expecting is not None:
                self._expecting.served()
            arrived = work, expert, row, not streamed[expert]
            if last and joined:
                self._computing.go_last(walk, *arrived)
                return True
            self._computing.arriving(walk, *arrived)
            loads.go_on()
        return False

    def _note(self, work: Work, decision: Decision) -> None:
        self.rough += not work.smooth or bool(decision.queued)
