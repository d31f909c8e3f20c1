"""Reuse distances under event-atomic LRU: one pass over a trace gives the hits at every capacity.

An LRU stack orders the experts by last use; inside one event the higher expert id lies nearer
the top, since the lowest leaves first. An access hits a cache of C slots exactly if its expert
lies among the top C just before the event (Mattson et al. 1970, made atomic per event).
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from specmd_jax.traces.analysis.accesses import Accesses, accesses, previous_use
from specmd_jax.traces.trace import Trace

Scope = Literal["global", "layer"]


class ReuseProfile(NamedTuple):
    """Histogram of reuse distances for W pools: one over all layers, or one a layer."""

    distances: Int[np.ndarray, "W S"]  # uses whose expert lay at depth s, 1 = top; s < S
    accesses: Int[np.ndarray, " W"]  # all uses, compulsory ones included
    largest_event: Int[np.ndarray, " W"]  # most experts that one event demands


def reuse_profile(trace: Trace, scope: Scope = "global") -> ReuseProfile:
    """Measure how deep in the LRU stack each demanded expert lies, counted before its event.

    First uses have no distance; they are in `accesses` only. O(A log A) for A accesses.
    """
    layers, experts = trace.shape.num_layers, trace.num_experts
    pools = 1 if scope == "global" else layers
    demand = accesses(trace)
    pool = demand.item // experts if scope == "layer" else np.zeros_like(demand.item)
    if scope == "layer":
        demand, pool = _layer_by_layer(demand, pool, layers)
    distance = stack_distances(demand)
    width = layers * experts // pools + 1
    reused = distance > 0
    flat = np.bincount(pool[reused] * width + distance[reused], minlength=pools * width)
    return ReuseProfile(
        flat.reshape(pools, width),
        np.bincount(pool, minlength=pools),
        _largest_event(demand, pool, pools),
    )


def exact_from(profile: ReuseProfile) -> int:
    """Give the least total capacity, in slots, from which the curves are exact.

    A pool that cannot hold one event's demand keeps what was resident and then the lowest ids,
    which no stack describes; such prefill passes need the simulator.
    """
    pools = len(profile.largest_event)
    later = np.arange(pools)  # remainder slots go to the first pools: pool w needs w more
    return int(((profile.largest_event - 1) * pools + later + 1).max())


def hit_curve(profile: ReuseProfile) -> Float[np.ndarray, " C"]:
    """Give the LRU hit rate at every capacity 0, 1, ..., all experts, in slots.

    Capacity is shared out as evenly as whole slots allow, remainders to the first pools. Exact
    from `exact_from(profile)` on; below it the values only show the trend.
    """
    pools, width = profile.distances.shape
    hits_at = profile.distances.cumsum(1)
    capacity = np.arange(pools * (width - 1) + 1)
    quota = capacity[:, None] // pools + (np.arange(pools) < capacity[:, None] % pools)
    hits = hits_at[np.arange(pools), quota].sum(1)
    return hits / max(profile.accesses.sum(), 1)


def miss_curve(profile: ReuseProfile) -> Float[np.ndarray, " C"]:
    """Give the LRU miss ratio at every capacity, see `hit_curve`."""
    return 1 - hit_curve(profile)


def stack_distances(demand: Accesses) -> Int[np.ndarray, " A"]:
    """Give the LRU depth of each access, the top being 1; 0 marks a first use.

    With s the previous use of an item, its depth is the number of distinct items used from s up
    to its event: those accesses whose own previous use lies before s, less the s that do
    because they precede s themselves.
    """
    previous = previous_use(demand.item)
    reused = np.flatnonzero(previous >= 0)
    following = np.full(previous.size, -1, np.int64)
    following[previous[reused]] = reused
    # First uses, then the others by previous use: ascending, without a sort.
    by_previous = np.concatenate([np.flatnonzero(previous < 0), following[following >= 0]])
    # An event is atomic. Its members, put in descending order, do not count each other.
    descending = by_previous[::-1]
    sequence = descending[np.argsort(demand.event[descending], kind="stable")]
    place = np.empty_like(sequence)
    place[sequence] = np.arange(place.size)
    smaller = np.empty_like(sequence)
    smaller[sequence] = _smaller_before(place[by_previous])
    return np.where(previous >= 0, smaller - previous, 0)


def _smaller_before(place: Int[np.ndarray, " A"]) -> Int[np.ndarray, " A"]:
    """Count, at each place of a permutation, the smaller values at earlier places.

    `place` lists where the values stand, smallest first. A merge sort read backwards: halving
    the places from the top, every value in a right half gains the smaller ones of its left half.
    """
    size = len(place)
    place, slot = place.astype(np.int32), np.arange(size, dtype=np.int32)
    count = np.zeros(size, np.int32)
    for bit in reversed(range(max(size - 1, 0).bit_length())):
        half = 1 << bit
        start = slot & -(2 * half)  # of the group that is split
        right = (place & half) != 0
        lefts = np.cumsum(~right, dtype=np.int32) - ~right
        lefts -= start >> 1  # earlier groups are whole: half of each went left
        count += right * lefts
        target = np.where(right, slot + half - lefts, start + lefts)
        place, count = _scatter(place, target), _scatter(count, target)
    return count


def _scatter(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    moved = np.empty_like(values)
    moved[target] = values
    return moved


def _layer_by_layer(
    demand: Accesses, layer: np.ndarray, layers: int
) -> tuple[Accesses, np.ndarray]:
    """Put the layers one after the other: they share no items, so none adds to another's depth."""
    order = np.argsort(layer, kind="stable")
    passes = demand.event.max(initial=0) // layers + 1
    event = layer * passes + demand.event // layers
    return Accesses(event[order], demand.item[order]), layer[order]


def _largest_event(demand: Accesses, pool: np.ndarray, pools: int) -> np.ndarray:
    _, first, size = np.unique(demand.event, return_index=True, return_counts=True)
    largest = np.zeros(pools, np.int64)
    np.maximum.at(largest, pool[first], size)
    return largest
