"""The main loop of the paper's Figure 2: what happens between a gate and the next layer.

Hits are computed while misses load, each miss as soon as it is there. At most `lanes` loads are
under way at a time, so that what is in transit is bounded, too.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int, Int8

from specmd_jax.core.interned import Interned
from specmd_jax.core.types import Event
from specmd_jax.models import DecoderConfig
from specmd_jax.policies.strategy import Strategy
from specmd_jax.runtime.compute import Computing
from specmd_jax.runtime.decide.applied_choice import apply_outcome
from specmd_jax.runtime.decide.compiled_step import Decision
from specmd_jax.runtime.decide.decisions import Place
from specmd_jax.runtime.decide.hit_backlog import HitBacklog, found_from_start
from specmd_jax.runtime.decide.layer_work import LayerWork, fixed_work, work_of
from specmd_jax.runtime.forward.pass_state import PassState
from specmd_jax.runtime.forward.segments import ExpertsOut
from specmd_jax.runtime.gates.gate_events import GatePosition, event_of
from specmd_jax.runtime.gates.message import MessageLayout, Messages
from specmd_jax.runtime.offload.ffn import FfnSpec, combine_now
from specmd_jax.runtime.offload.host_ffn import HostExperts
from specmd_jax.runtime.offload.pages import Memory
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.transfer.demand_loads import DemandLoads, missing
from specmd_jax.runtime.transfer.estimate import WindowEstimator
from specmd_jax.runtime.transfer.prefetch_queue import ExpertCache, PrefetchLoop
from specmd_jax.runtime.transfer.watchdog import Watching

Result = TypeVar("Result")


class Run(NamedTuple):
    """What the loops of a run share; made anew when a model is reset."""

    config: DecoderConfig
    strategy: Strategy
    layout: MessageLayout  # of what the gates say
    ffns: tuple[Interned[FfnSpec], ...]  # how the experts of each tier are read and computed
    cache: ExpertCache
    options: RunOptions


class MainLoop:
    """Serves gates.

    Attributes:
      split: whether a pass is computed in small steps, see `OffloadedModel.split_next_pass`.
      num_interrupted: gates so far that missed something, or after which something was wanted.
      watchdog: that prefetches meanwhile.
      computing: of experts on the device.
    """

    def __init__(self, run: Run):
        """Has served nothing yet."""
        strategy, cache, options = run.strategy, run.cache, run.options
        self.split, self.num_interrupted = False, 0
        self.watchdog: Watching = options.watchdog(PrefetchLoop(cache))
        self.computing = Computing(cache, run.ffns, options.observer, options.clock)
        self._config, self._layout, self._lossy = run.config, run.layout, strategy.open_loop
        self._routing = strategy.routing.choose is not None
        self._prefetches = strategy.prefetches
        self._one_tier = len(cache.store.packings) == 1
        self._plain = self._one_tier and not self._routing
        self._hits = HitBacklog(cache.decisions, run.layout, strategy.reads)
        self._cache, self._decisions, self._slots = cache, cache.decisions, cache.slots
        self._lanes = options.lanes_of(max(packing.nbytes for packing in cache.store.packings))
        self._observer = options.observer
        self._estimator: WindowEstimator | None = None
        if strategy.guard:
            self._estimator = options.estimator(cache.link, cache.store.shape[0], options.clock)
        self._host = HostExperts(run.config.activation, cache.store)

    def serve(
        self, state: PassState, message: Int[np.ndarray, "1 T M"], position: GatePosition
    ) -> None:
        """Has the routed experts of a layer computed, and the pass go on with them.

        Args:
          state: which is at the gate of the layer.
          message: of the gate, on the host.
          position: when it chose.

        Raises:
          TransferFailed: an expert cannot be loaded.
          WatchdogFailed: prefetching failed.
        """
        flight = self.watchdog.hold()
        if self._estimator is not None:
            self._estimator.at_gate(position, self.computing.stall_s)
        ids = self._layout.ids(message)
        if flight is None and self._nothing_wanted and self._found(ids, state.layer):
            self.computing.run_resident(state)
            self._hits.note(message, position)
            self._observer.compute_resident(
                lambda: self._fixed_work(self._event(message, position), None)
            )
            return
        if self._decisions.demand_is_fixed:
            self._serve_fixed(state, message, position, flight)
        else:
            self._serve_decided(state, message, position, flight)

    def _serve_fixed(
        self,
        state: PassState,
        message: Int[np.ndarray, "1 T M"],
        position: GatePosition,
        flight: Place | None,
    ) -> None:
        """Serves a gate whose misses are loaded: they are sent for before all else."""
        absent = missing(self._slots.there[state.layer], self._layout.ids(message))
        loads = self._demand_loads(state.layer, absent, np.zeros(absent.shape, np.int8))
        self._hits.settle()
        event = self._event(message, position)
        work = self._fixed_work(event, flight)
        self._execute(state, work, loads, partial(self._decide, event, flight))

    def _serve_decided(
        self,
        state: PassState,
        message: Int[np.ndarray, "1 T M"],
        position: GatePosition,
        flight: Place | None,
    ) -> None:
        """Serves a gate of which a decision says what is computed."""
        self._hits.settle()
        decision = self._decide(self._event(message, position), flight)
        assert decision.outcome is not None
        if self._lossy:
            state.choose(apply_outcome(self._config, self._routing, state.gate, *decision.outcome))
        work = work_of(decision.outcome)
        loads = self._demand_loads(state.layer, work.loaded, work.tier)
        self._execute(state, work, loads, lambda: decision)

    def serve_hits(self, messages: Messages, position: GatePosition) -> int:
        """Serves the layers of a pass up to the first that needs a decision, and says how many.

        Args:
          messages: of all of them.
          position: of the first.
        """
        if self._estimator is not None:
            self._estimator.skip()
        if self.holds_all:
            self._hits.note(messages, position)
            return len(messages)
        here = np.asarray(messages)  # waits for the pass
        count = self._found(self._layout.ids(here))
        if self._nothing_wanted:
            if count:
                self._hits.note(here[:count], position)
            return count
        self._hits.settle()
        return self._decisions.try_hits(self._hits.events(here, position), count)

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
        if self.watchdog.hold() is not None:
            return None
        with self._slots.reading() as memory:
            return run(memory, self._slots.first_pages)

    @property
    def _nothing_wanted(self) -> bool:
        """Whether a gate that finds all it asks for needs no decision."""
        return not self.split and self._plain and (not self._prefetches or self.holds_all)

    def _found(self, ids: Int[np.ndarray, "layers T K"], layer: int = 0) -> int:
        return found_from_start(self._slots.there, ids, layer)

    def _event(self, message: Int[np.ndarray, "1 T M"], position: GatePosition) -> Event:
        return event_of(self._hits.events(message, position), 0)

    def _fixed_work(self, event: Event, flight: Place | None) -> LayerWork:
        return fixed_work(event, self._slots.tier[int(event.layer)], flight)

    def _decide(self, event: Event, flight: Place | None) -> Decision:
        """Has an event decided, and those that leave the cache out of their slots."""
        outlook = None
        if self._estimator is not None:
            outlook = self._estimator.outlook(self._fixed_work(event, flight))
        decision = self._decisions.serve(event, flight, outlook)
        self._slots.hold(np.asarray(decision.resident))
        return decision

    def _demand_loads(
        self, layer: int, experts: Bool[np.ndarray, " N"], tier: Int8[np.ndarray, " N"]
    ) -> DemandLoads:
        cache = self._cache
        return DemandLoads(cache.link, cache.store, layer, experts, tier, self._lanes)

    def _execute(
        self, state: PassState, work: LayerWork, loads: DemandLoads, decide: Callable[[], Decision]
    ) -> None:
        """Computes a layer, what it misses being on its way.

        Who prefetches decides before the compute that prefetches hide behind, everybody else
        while the device computes.
        """
        if work.late.any():
            claim = self.watchdog.claim()
            if claim is None:
                work = work.landed()
            else:
                loads.lead(int(np.flatnonzero(work.late)[0]), claim)
        decision = None
        if self._prefetches:
            decision = decide()
            if decision.queued:
                loads.then(self.watchdog.release)
        if work.all_resident and not self.split:
            tier = int(work.tier[work.resident][0]) if work.resident.any() else 0
            self.computing.run_resident(state, tier, work.resident)
            self._note(work, decision or decide())
            self._observer.compute_resident(lambda: work)
            return
        hosted = self._host.begin(state.layer, state.blocks, work.on_host)
        self.computing.compute_resident(state, work)
        decision = decision or decide()
        self._note(work, decision)
        joined = self._one_tier and hosted is None and not (self.split or work.event.prefill)
        if self._stream(state, work, loads, np.asarray(decision.streamed), joined):
            return
        self._observer.layer_done(work)
        if self.split:
            self.computing.warm_up(state)
        blocks = self._host.merge(state.blocks, hosted)
        state.advance(ExpertsOut(combine_now(blocks, state.gate.weights)))

    def _stream(
        self,
        state: PassState,
        work: LayerWork,
        loads: DemandLoads,
        streamed: Bool[np.ndarray, " N"],
        joined: bool,
    ) -> bool:
        """Computes experts as they arrive; returns whether the pass has gone on with the last.

        Args:
          state: which is at the gate of the layer.
          work: of the layer.
          loads: on their way.
          streamed: which are not retained.
          joined: whether what follows the last is computed with it.
        """
        while loads:
            expert, last = loads.expert, loads.last
            row = self.computing.stall(state, loads.wait, late=bool(work.late[expert]))
            if last and self._estimator is not None:
                self._estimator.served()
            arrived = work, expert, row, not streamed[expert]
            if last and joined:
                self.computing.run_last_load(state, *arrived)
                return True
            self.computing.compute_arrived(state, *arrived)
            loads.advance()
        return False

    def _note(self, work: LayerWork, decision: Decision) -> None:
        self.num_interrupted += not work.all_hit or bool(decision.queued)
