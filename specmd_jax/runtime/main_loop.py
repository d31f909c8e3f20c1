"""The main loop of the paper's Figure 2: what happens between a gate and the next layer.

Hits are computed while misses load, each miss as soon as it is there. At most `LANES` loads are
under way at a time, so that what is in transit is bounded, too.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.models import DecoderConfig, Gate
from specmd_jax.runtime.decisions import Decision, Decisions
from specmd_jax.runtime.fates import meet_fates
from specmd_jax.runtime.host_experts import HostExperts
from specmd_jax.runtime.link import Delivery, Link
from specmd_jax.runtime.pace import Pace
from specmd_jax.runtime.prefetch_loop import name_of
from specmd_jax.runtime.slots import Slots
from specmd_jax.runtime.store import ExpertStore
from specmd_jax.runtime.watchdog import Watching
from specmd_jax.runtime.waves import (
    Blocks,
    combine_now,
    compute_all_now,
    compute_arrived_now,
    compute_held_now,
    lay_out_now,
)
from specmd_jax.strategy import Strategy
from specmd_jax.types import ABSENT, Event

Result = TypeVar("Result")

LANES = 2  # demand loads in transit: one arrives while the other is computed


class MainLoop:
    """Serves gates.

    Attributes:
      stall_s: time that the device had nothing to compute because of the link.
      late_s: of this, for prefetches that were still on their way.
      rough: gates so far that missed something, or after which something was wanted.
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
        """
        self.stall_s, self.late_s, self.rough = 0.0, 0.0, 0
        self._config, self._lossy = config, strategy.open_loop
        self._routing = strategy.routing.choose is not None
        self._decisions, self._slots, self._store = decisions, slots, store
        self._link, self._watchdog, self._pace = link, watchdog, pace
        self._lanes, self._clock = lanes, clock
        self._host = HostExperts(config.activation, store)

    def serve(self, gate: Gate, event: Event) -> Float[Array, "T H"]:
        """Returns what the routed experts of a layer make of its tokens.

        Args:
          gate: of the layer.
          event: what it asks for.

        Raises:
          TransferFailed: an expert cannot be loaded.
          WatchdogFailed: prefetching failed.
        """
        flight = self._watchdog.hold()
        if event.layer == 0:
            self._decisions.begin_pass()  # no earlier: prefetches still belonged to the last one
        decision = self._decisions.serve(event, flight)
        self._slots.hold(np.asarray(decision.resident))
        self.rough += not decision.smooth
        return self._carry_out(gate, decision)

    @property
    def holds_all(self) -> bool:
        """Whether every expert is on the device; nothing can be missing from then on."""
        return bool((self._slots.tier != ABSENT).all())

    def on_slots(
        self, run: Callable[[Shaped[Array, "U page"], Int[np.ndarray, "L N"]], Result]
    ) -> Result | None:
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

    def _carry_out(self, gate: Gate, decision: Decision) -> Float[Array, "T H"]:
        event, served = decision.event, decision.served
        if self._lossy:
            gate = meet_fates(self._config, self._routing, gate, event, served)
        layer = int(event.layer)
        release = self._watchdog.release if decision.queued else None
        if decision.all_held:
            return self._compute_all(gate, decision, release)
        loads = _Loads(self._link, self._store, decision, self._lanes, release)
        blocks = lay_out_now(gate)
        hosted = self._host.begin(layer, blocks, np.asarray(served.plan.on_host))
        blocks = self._compute_held(blocks, decision, decision.held)
        if served.late.any():
            before = self.stall_s
            self._stall(blocks, self._watchdog.wait_landed)
            self.late_s += self.stall_s - before
            blocks = self._compute_held(blocks, decision, np.asarray(served.late))
        if loads:
            blocks = self._load(blocks, loads, decision)
        self._pace.layer_done(decision)
        return combine_now(self._host.merge(blocks, hosted), gate.weights)

    def _compute_all(
        self, gate: Gate, decision: Decision, release: Callable[[], None] | None
    ) -> Float[Array, "T H"]:
        """Computes a layer whose experts are all in slots, of one tier, in one program."""
        if release is not None:
            release()  # before the compute that prefetches hide behind
        layer, held = int(decision.event.layer), decision.held
        tier = int(decision.served.tier[held][0]) if held.any() else 0
        pages, packing = self._slots.pages(layer, tier), self._store.packings[tier]
        with self._slots.reading() as weights:
            activation = self._config.activation
            out = compute_all_now(packing, activation, gate, weights, pages, held)
        self._pace.compute(decision, held)
        self._pace.layer_done(decision)
        return out

    def _compute_held(
        self, blocks: Blocks, decision: Decision, experts: Bool[np.ndarray, " N"]
    ) -> Blocks:
        layer = int(decision.event.layer)
        for tier, packing in enumerate(self._store.packings):
            due = experts & (decision.served.tier == tier)
            if due.any():
                pages = self._slots.pages(layer, tier)
                with self._slots.reading() as weights:
                    activation = self._config.activation
                    blocks = compute_held_now(packing, activation, blocks, weights, pages, due)
        self._pace.compute(decision, experts)
        return blocks

    def _load(self, blocks: Blocks, loads: "_Loads", decision: Decision) -> Blocks:
        layer, served = int(decision.event.layer), decision.served
        while loads:
            expert, delivery = loads.first
            row = self._stall(blocks, delivery.wait)
            if not served.streamed[expert]:
                self._slots.fill(layer, expert, row)
            packing = self._store.packings[int(served.tier[expert])]
            blocks = compute_arrived_now(
                packing, self._config.activation, blocks, row, np.int32(expert)
            )
            jax.block_until_ready(blocks.out)  # what it arrived in is free for the next
            self._pace.compute(decision, np.arange(len(served.tier)) == expert)
            loads.go_on()
        return blocks

    def _stall(self, blocks: Blocks, wait: Callable[[], Result]) -> Result:
        """Waits, and counts from when all that is there has been computed."""
        jax.block_until_ready(blocks.out)
        begun = self._clock()
        result = wait()
        self.stall_s += self._clock() - begun
        return result


class _Loads:
    """The demand loads of a layer, in ascending expert, a few at a time on the link.

    As soon as the last of them is sent, prefetches may queue up behind it: before the compute that
    they hide behind.
    """

    def __init__(
        self,
        link: Link,
        store: ExpertStore,
        decision: Decision,
        lanes: int,
        all_sent: Callable[[], None] | None,
    ):
        self._link, self._store, self._lanes = link, store, lanes
        self._layer, self._tier = int(decision.event.layer), decision.served.tier
        self._all_sent = all_sent
        self._waiting: deque[int] = deque(np.flatnonzero(decision.served.loaded).tolist())
        self._sent: deque[tuple[int, Delivery]] = deque()
        self._send()

    def __bool__(self) -> bool:
        return bool(self._sent)

    @property
    def first(self) -> tuple[int, Delivery]:
        return self._sent[0]

    def go_on(self) -> None:
        """Leaves the first behind."""
        self._sent.popleft()
        self._send()

    def _send(self) -> None:
        while self._waiting and len(self._sent) < self._lanes:
            expert = self._waiting.popleft()
            copy = self._store[int(self._tier[expert]), self._layer, expert]
            delivery = Delivery(self._link, copy, name_of((self._layer, expert)))
            self._sent.append((expert, delivery))
        if self._all_sent is not None and not self._waiting:
            self._all_sent()
            self._all_sent = None
