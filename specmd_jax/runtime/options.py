"""The time in which a run takes place: the machine's own, or another."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from specmd_jax.runtime.clock import ComputeObserver, RealTime
from specmd_jax.runtime.transfer.estimate import LinkEstimator, WindowEstimator
from specmd_jax.runtime.transfer.link import Link
from specmd_jax.runtime.transfer.prefetch_queue import PrefetchLoop
from specmd_jax.runtime.transfer.watchdog import Watchdog, Watching

# Demand loads in transit: one arrives while another is computed. Of small experts it takes more of
# them for the link to stay busy while the host decides.
FEWEST_LANES, MOST_LANES = 2, 4
IN_TRANSIT_BYTES = 64 << 20


@dataclass(frozen=True)
class RunOptions:
    """Who acts in the time of a run, and what it has room for."""

    watchdog: Callable[[PrefetchLoop], Watching] = Watchdog
    observer: ComputeObserver = field(default_factory=RealTime)
    clock: Callable[[], float] = time.perf_counter
    estimator: Callable[[Link, int, Callable[[], float]], WindowEstimator] = LinkEstimator
    lanes: int | None = None  # demand loads on the link at a time; None: by their size
    whole_passes: bool = True  # whether passes may be dispatched whole

    def lanes_of(self, nbytes: int) -> int:
        """Returns how many demand loads there may be in transit, if an expert has so many bytes."""
        if self.lanes is not None:
            return self.lanes
        return min(max(IN_TRANSIT_BYTES // nbytes, FEWEST_LANES), MOST_LANES)


def drained(whole_passes: bool = True) -> RunOptions:
    """Returns a time in which every prefetch lands before the next gate."""
    return RunOptions(watchdog=partial(Watchdog, drained=True), whole_passes=whole_passes)
