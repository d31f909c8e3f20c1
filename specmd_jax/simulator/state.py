"""What a cache, its policies and its link have come to between two events."""

from typing import NamedTuple

from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, State
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.timeline import Link


class Replay(NamedTuple):
    """The state between two passes: what a chunk of a trace hands to the next."""

    cache: CacheState
    eviction: State
    prefetch: State
    routing: State
    link: Link
    counts: Counts
    next_step: Int[Array, ""]
    guard: State = ()
