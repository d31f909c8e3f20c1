"""One event, in masks over (layer, expert): nothing is sorted, looked up or scattered.

That is what makes it a kernel: every step is elementwise or a minimum, so the whole cache stays
in registers. Rows are [1 N]; masks that are carried are int32, since loops carry no booleans.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Real

from specmd_kernels.cache_sim.policy import SimCounts, SimOutcome, SimView

PHASE = 8  # columns of the counts: the fields of SimCounts, and two to spare
COLUMNS = 2 * PHASE  # of all passes, and of those marked alone


class Cache(NamedTuple):
    """What is carried from event to event, beside the policy's state."""

    resident: Int[Array, "L N"]
    last_used: Int[Array, "L N"]
    evicted: Int[Array, "L N"]  # in this pass
    copies: Int[Array, ""]
    counts: Int[Array, "L columns"]


def empty(layers: int, experts: int) -> Cache:
    """Returns a cold cache."""
    none = jnp.zeros((layers, experts), jnp.int32)
    return Cache(none, none - 1, none, jnp.int32(0), jnp.zeros((layers, COLUMNS), jnp.int32))


def packed(gate: Int[Array, "P L N"], marked: Bool[Array, " P"] | None) -> Int[Array, "P L N"]:
    """Returns rows for `serve`: weights below 2**30, and below them the mark of their pass."""
    if marked is None:
        return gate << 1
    return (gate << 1) | jnp.where((gate > 0) & marked[:, None, None], 1, 0)


def serve(
    score: Callable[[SimView], Real[Array, "L N"] | None],
    cache: Cache,
    capacity: Int[Array, ""],
    clock: Int[Array, ""],
    num_layers: int,
    event: Int[Array, "1 N"],
) -> tuple[Cache, SimView, SimOutcome]:
    """Returns the cache after an event, and what the policy's update is to be told.

    Args:
      cache: before the event.
      capacity: slots.
      clock: of the event.
      gate: of the layer; positive where an expert is used.
      score: of the policy.
      num_layers: of the model; the cache may have more rows.
      event: what is asked for, see `packed`.
    """
    step, layer = jax.lax.div(clock, num_layers), jax.lax.rem(clock, num_layers)
    here = jax.lax.broadcasted_iota(jnp.int32, cache.resident.shape, 0) == layer
    marks = jnp.where(layer == 0, 0, cache.evicted)

    def row(plane: Int[Array, "L N"]) -> Int[Array, "1 N"]:
        return jnp.sum(jnp.where(here, plane, 0), axis=0, keepdims=True, dtype=jnp.int32)

    gate, marked = event >> 1, jnp.max(event & 1)
    used = gate > 0
    present = row(cache.resident) > 0
    hit, missing = used & present, used & ~present
    accesses, hits = total(used), total(hit)
    misses, room = accesses - hits, capacity - hits
    view = SimView(cache.resident > 0, cache.last_used, clock, step, layer, used, gate)
    candidates = view.resident & ~(here & hit)
    fits = misses <= room
    needed = jnp.where(fits, jnp.maximum(cache.copies + misses - capacity, 0), 0)
    left = _without_lowest(score(view), cache.last_used, candidates, needed)
    victims = candidates & ((left == 0) | ~fits)
    retained = _first(missing, misses - jnp.minimum(misses, room))
    gone = jnp.where(fits, needed, cache.copies - hits)

    resident = jnp.where(victims, 0, jnp.where(here & retained, 1, cache.resident))
    last_used = jnp.where(here & used, clock, cache.last_used)
    counted = SimCounts(
        accesses,
        hits,
        collisions=total(missing & (row(marks) > 0)),
        compulsory=total(missing & (row(cache.last_used) < 0)),
        streamed=misses - total(retained),
        evictions=gone,
    )
    after = Cache(
        resident,
        last_used,
        jnp.where(victims, 1, marks),
        cache.copies - gone + total(retained),
        _add(cache.counts, layer, counted, marked),
    )
    view = view._replace(resident=resident > 0, last_used=last_used)
    return after, view, SimOutcome(hit, retained, victims)


def total(mask: Bool[Array, "rows columns"]) -> Int[Array, ""]:
    """Returns how many are marked."""
    return jnp.sum(jnp.where(mask, 1, 0), dtype=jnp.int32)


def _without_lowest(
    score: Real[Array, "L N"] | None,
    last_used: Int[Array, "L N"],
    candidates: Bool[Array, "L N"],
    needed: Int[Array, ""],
) -> Int[Array, "L N"]:
    """Returns the candidates without the `needed` lowest, found one after the other."""
    rows, columns = last_used.shape
    place = jax.lax.broadcasted_iota(jnp.int32, (rows, columns), 0) * columns
    place = place + jax.lax.broadcasted_iota(jnp.int32, (rows, columns), 1)
    keys = [last_used, place] if score is None else [score, last_used, place]

    def drop_one(_: Array, left: Int[Array, "L N"]) -> Int[Array, "L N"]:
        tied = left > 0
        for key in keys:
            tied = tied & (key == jnp.min(jnp.where(tied, key, _largest(key.dtype))))
        return jnp.where(tied, 0, left)

    return jax.lax.fori_loop(0, needed, drop_one, jnp.where(candidates, 1, 0))


def _largest(dtype: jnp.dtype) -> float | int:
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


def _first(missing: Bool[Array, "1 N"], surplus: Int[Array, ""]) -> Bool[Array, "1 N"]:
    """Returns the misses without the `surplus` of the highest ids; there rarely is any."""
    expert = jax.lax.broadcasted_iota(jnp.int32, missing.shape, 1)

    def drop_last(_: Array, left: Int[Array, "1 N"]) -> Int[Array, "1 N"]:
        return jnp.where(expert == jnp.max(jnp.where(left > 0, expert, -1)), 0, left)

    return jax.lax.fori_loop(0, surplus, drop_last, jnp.where(missing, 1, 0)) > 0


def _add(
    counts: Int[Array, "L columns"],
    layer: Int[Array, ""],
    counted: SimCounts,
    marked: Int[Array, ""],
) -> Int[Array, "L columns"]:
    here = jax.lax.broadcasted_iota(jnp.int32, counts.shape, 0) == layer
    column = jax.lax.broadcasted_iota(jnp.int32, counts.shape, 1)
    for index, value in enumerate(counted):
        counts = counts + jnp.where(here & (column == index), value, 0)
        counts = counts + jnp.where(here & (column == PHASE + index), value * marked, 0)
    return counts
