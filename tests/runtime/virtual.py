"""A time of its own for the runtime: computing moves a clock, and so does waiting.

The loops, the link and the slots are the real ones; only the watchdog is asked at the gates, rather
than being a thread, what it has begun in the meantime.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from specmd_jax.policies.prefetch_guard import Outlook
from specmd_jax.runtime.decide.layer_work import LayerWork
from specmd_jax.runtime.gates.gate_events import GatePosition
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.transfer.link import ThrottledLink
from specmd_jax.runtime.transfer.prefetch_queue import Prefetched, PrefetchLoop
from specmd_jax.simulator.timeline import Costs


class Clock:
    """Time in ticks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, ticks: float) -> None:
        self.now += ticks


class TickingLink(ThrottledLink):
    """A link on which every copy takes the same whole number of ticks."""

    def __init__(self, load: int, nbytes: int, clock: Clock):
        super().__init__(nbytes / load, 0.0, clock, clock.sleep)

    @property
    def free_at(self) -> float:
        return self._free_at


class VirtualCompute:
    """Moves the clock by the costs of a replay."""

    def __init__(self, costs: Costs, num_layers: int, clock: Clock):
        self._costs, self._num_layers, self._clock = costs, num_layers, clock
        self.passes: list[float] = []  # ticks of each
        self.number = -1

    def begin_pass(self, tokens: int) -> None:
        self.number += 1
        self._begun, self._layer = self._clock.now, 0

    def gate_fires(self) -> None:
        self._clock.sleep(int(self._costs.attention[self.number]))
        self._gate = self._clock.now

    def compute(self, work: LayerWork, experts: np.ndarray) -> None:
        for expert in np.flatnonzero(experts).tolist():
            self._clock.sleep(self.ticks(work, expert))

    def ticks(self, work: LayerWork, expert: int) -> int:
        tokens = 1 if work.stand_in[expert] else int(work.event.routed[expert])
        arithmetic = tokens * int(self._costs.expert_per_1024) >> 10
        return max(int(self._costs.expert_memory[work.tier[expert]]), arithmetic)

    def compute_resident(self, work: Callable[[], LayerWork]) -> None:
        self.compute(work(), work().resident)
        self.layer_done(work())

    def layer_done(self, work: LayerWork) -> None:
        ticks = 0
        for expert in np.flatnonzero(work.on_host):
            arithmetic = int(work.event.routed[expert]) * int(self._costs.host_per_1024) >> 10
            ticks += max(int(self._costs.host_memory), arithmetic)
        self._clock.now = max(self._clock.now, self._gate + ticks)
        self._clock.sleep(int(self._costs.shared[self.number]))
        self._layer += 1

    @property
    def now(self) -> float:
        return self._clock.now

    def end_pass(self) -> None:
        self._clock.sleep(int(self._costs.head[self.number]))
        self.passes.append(self._clock.now - self._begun)


class PunctualWatchdog:
    """Begins, when it is resident, whatever it would have begun since it was released."""

    def __init__(self, prefetch: PrefetchLoop, link: TickingLink, clock: Clock):
        self._prefetch, self._link, self._clock = prefetch, link, clock
        self._released_at: float | None = None
        self._flights: list[tuple[Prefetched, float]] = []

    def hold(self) -> tuple[int, int] | None:
        now = self._clock.now
        while self._released_at is not None and self._begins() < now:
            begins, self._clock.now = self._begins(), self._begins()
            started = self._prefetch.start_next()
            self._clock.now = now
            if started is None:
                break
            self._flights.append((started, self._link.free_at))
            assert begins < now
        self._released_at = None
        self._land(now)
        return self._flights[-1][0].place if self._flights else None

    def _begins(self) -> float:
        assert self._released_at is not None
        return max(self._released_at, self._link.free_at)

    def _land(self, until: float) -> None:
        for flight, due in [pair for pair in self._flights if pair[1] <= until]:
            self._prefetch.fill(flight.place, flight.delivery.wait())
            self._flights.remove((flight, due))

    def release(self) -> None:
        self._released_at = self._clock.now

    def claim(self) -> "_Claim":
        return _Claim(*self._flights.pop(), self._clock)

    def close(self) -> None:
        self.hold()


class ExactEstimator:
    """Expects of the link what the costs of a replay will make come."""

    def __init__(self, costs: Costs, num_layers: int, observer: VirtualCompute, link: TickingLink):
        self._costs, self._num_layers, self._observer, self._link = (
            costs,
            num_layers,
            observer,
            link,
        )

    def at_gate(self, position: GatePosition, stalled: float) -> None:
        self._now = self._observer.now

    def served(self) -> None: ...

    def skip(self) -> None: ...

    def outlook(self, work: LayerWork) -> Outlook:
        costs, number, load = self._costs, self._observer.number, int(self._costs.load[0, 0])
        free = max(self._link.free_at - self._now, 0)
        busy = free - load * int(work.loaded.sum())  # the loads are on the link by now
        done = sum(
            self._observer.ticks(work, one) for one in np.flatnonzero(work.resident).tolist()
        )
        for one in [*np.flatnonzero(work.late).tolist(), *np.flatnonzero(work.loaded).tolist()]:
            busy += load * int(work.loaded[one])
            done = max(done, busy) + self._observer.ticks(work, one)
        last = int(work.event.layer) == self._num_layers - 1
        after = int(costs.shared[number]) + (int(costs.head[number]) if last else 0)
        window = done + after + int(costs.attention[number + last])
        return Outlook(np.asarray(window - free, np.int32), np.asarray(load, np.int32))


class _Claim:
    """A copy that arrives at its time."""

    def __init__(self, flight: Prefetched, due: float, clock: Clock):
        self._flight, self._due, self._clock = flight, due, clock

    def wait(self) -> jax.Array:
        self._clock.now = max(self._clock.now, self._due)
        return self._flight.delivery.wait()


def stage(
    costs: Costs, num_layers: int, nbytes: int
) -> tuple[RunOptions, TickingLink, VirtualCompute]:
    """Returns a time in which everything takes what a replay says, and its link."""
    clock = Clock()
    link = TickingLink(int(costs.load[0, 0]), nbytes, clock)
    observer = VirtualCompute(costs, num_layers, clock)

    def watchdog(prefetch: PrefetchLoop) -> PunctualWatchdog:
        return PunctualWatchdog(prefetch, link, clock)

    def estimator(*_: Any) -> ExactEstimator:
        return ExactEstimator(costs, num_layers, observer, link)

    return (
        RunOptions(watchdog, observer, clock, estimator, lanes=1 << 20, whole_passes=False),
        link,
        observer,
    )
