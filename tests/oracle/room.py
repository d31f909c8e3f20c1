"""Steps 5 and 6: what a demand pins, what it retains and what leaves for it."""

from copy import deepcopy
from dataclasses import replace

from tests.oracle.cache import Cache
from tests.oracle.data import Change, Copy


def forced(cache: Cache, wanted: Change) -> Change:
    """Returns what happens when every load has to be retained if that is possible at all."""
    unpinned = unpinned_copies(cache, wanted)
    free = cache.free(cache.pool_of(wanted.layer))
    units = {expert: cache.sizes[wanted.layer][tier] for expert, tier in wanted.inserted.items()}
    room = free + cache.taken_by(unpinned)
    if sum(units.values()) <= room:
        excess = sum(units.values()) - free
        leaving = take(cache.ranked(unpinned, wanted.now), excess, cache) if excess > 0 else []
        return replace(wanted, evicted=leaving)
    retained = {}
    for expert in sorted(units):
        if units[expert] > room:
            break
        room -= units[expert]
        retained[expert] = wanted.inserted[expert]
    return replace(wanted, inserted=retained, evicted=unpinned)


def bypassing(cache: Cache, wanted: Change) -> Change:
    """Returns what happens when a load must rank above what it would displace."""
    loads = {(wanted.layer, expert) for expert in wanted.inserted}
    candidates = [*unpinned_copies(cache, wanted), *loads]
    trial = deepcopy(cache)
    trial.serve(wanted)
    excess = -trial.free(trial.pool_of(wanted.layer))
    leaving = take(trial.ranked(candidates, wanted.now), excess, trial) if excess > 0 else []
    retained = {i: t for i, t in wanted.inserted.items() if (wanted.layer, i) not in leaving}
    evicted = [copy for copy in leaving if copy not in loads]
    return replace(wanted, inserted=retained, evicted=evicted)


def unpinned_copies(cache: Cache, wanted: Change) -> list[Copy]:
    """Returns the copies of the pool that are neither used by this demand nor in flight."""
    pinned = {(wanted.layer, expert) for expert in wanted.used} | {cache.in_flight}
    return [c for c in cache.copies(cache.pool_of(wanted.layer)) if c not in pinned]


def take(ranked: list[Copy], units: int, cache: Cache) -> list[Copy]:
    """Returns the first copies that together give at least so many units."""
    taken: list[Copy] = []
    while cache.taken_by(taken) < units:
        taken.append(ranked[len(taken)])
    return taken
