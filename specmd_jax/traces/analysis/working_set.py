"""How many experts a stretch of passes needs, and how often a cache turns over within one pass."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces.analysis.accesses import accesses, previous_use
from specmd_jax.traces.trace import Trace


def working_set(trace: Trace, window: int = 1) -> Int[np.ndarray, " P"]:
    """Count the distinct (layer, expert) pairs used in each pass and the window - 1 before it.

    Denning's working set (1968), with a pass as the unit of time.
    """
    if window < 1:
        raise InputError(f"a window of {window} passes is empty: give 1 or more")
    step, following = _uses(trace)
    passes = trace.num_passes
    leaves = np.minimum(step + window, following)
    change = np.bincount(step, minlength=passes) - np.bincount(leaves, minlength=passes)[:passes]
    return change.cumsum()


def mean_working_set(trace: Trace, windows: Sequence[int]) -> Float[np.ndarray, " W"]:
    """Give the mean of `working_set` over all passes, for several windows."""
    return np.array([working_set(trace, window).mean() for window in windows])


def cycles(shape: ModelShape, capacity: int) -> float:
    """Give how many decode passes' experts a cache of `capacity` slots holds: C / (L k).

    Up to (L - 1) / L a global LRU hits nothing on decode: the other layers evict all that a layer
    used before its turn comes again. From 1 on it holds all that the last pass used.
    """
    return capacity / (shape.num_layers * shape.top_k)


def _uses(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """The pass of each use, and of the next use of the same expert (the trace's end if none)."""
    demand = accesses(trace)
    step = demand.event // trace.shape.num_layers
    previous = previous_use(demand.item)
    again = previous >= 0
    following = np.full(step.size, trace.num_passes, np.int64)
    following[previous[again]] = step[again]
    return step, following
