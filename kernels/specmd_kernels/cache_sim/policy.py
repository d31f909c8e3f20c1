"""What a policy is to the kernel: pure functions of a view of the cache, given by the caller."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int


class SimView(NamedTuple):
    """The cache at one event: layer `layer` of pass `step` asks for the experts in `used`."""

    resident: Bool[Array, "L N"]
    last_used: Int[Array, "L N"]  # event of last use, -1 before the first
    clock: Int[Array, ""]  # step * L + layer
    step: Int[Array, ""]
    layer: Int[Array, ""]
    used: Bool[Array, " N"]
    gate: Int[Array, " N"]  # gate weights, in fixed point; 0 where unused


class SimOutcome(NamedTuple):
    """What serving an event did."""

    found: Bool[Array, " N"]  # of the used, those that were resident
    inserted: Bool[Array, " N"]
    evicted: Bool[Array, "L N"]


class CachePolicy(NamedTuple):
    """Which copy leaves. Static: the functions are traced into the kernel.

    State is a pytree of arrays of one to three axes; those of three are kept in memory and must
    be read and written by slices.
    """

    init: Callable[[Any], Any]  # params -> state
    score: Callable[[Any, Any, SimView], Any] | None  # params, state, view -> [L N]; None: recency
    update: Callable[[Any, Any, SimView, SimOutcome], Any]  # -> state; the view is after the event


class SimCounts(NamedTuple):
    """Counts by layer; of evictions, the layer that was served."""

    accesses: Int[Array | np.ndarray, "*C L"]
    hits: Int[Array | np.ndarray, "*C L"]
    collisions: Int[Array | np.ndarray, "*C L"]  # misses on what was evicted in the same pass
    compulsory: Int[Array | np.ndarray, "*C L"]
    streamed: Int[Array | np.ndarray, "*C L"]  # loaded, and not retained
    evictions: Int[Array | np.ndarray, "*C L"]
