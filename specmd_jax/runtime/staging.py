"""The time in which a run takes place: the machine's own, or another."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from specmd_jax.runtime.experience import Expecting, Experience
from specmd_jax.runtime.link import Link
from specmd_jax.runtime.pace import Pace, RealTime
from specmd_jax.runtime.prefetch_loop import PrefetchLoop
from specmd_jax.runtime.watchdog import Watchdog, Watching

LANES = 2  # demand loads in transit: one arrives while the other is computed


@dataclass(frozen=True)
class Staging:
    """Who acts in the time of a run, and what it has room for."""

    watchdog: Callable[[PrefetchLoop], Watching] = Watchdog
    pace: Pace = field(default_factory=RealTime)
    clock: Callable[[], float] = time.perf_counter
    expecting: Callable[[Link, int, Callable[[], float]], Expecting] = Experience
    lanes: int = LANES  # demand loads on the link at a time
    hopes: bool = True  # whether passes may be dispatched whole


def drained(hopes: bool = True) -> Staging:
    """Returns a time in which every prefetch lands before the next gate."""
    return Staging(watchdog=partial(Watchdog, drained=True), hopes=hopes)
