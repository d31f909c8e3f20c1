"""Mattson's stack under the set semantics of docs/semantics.md: one walk, every capacity.

A policy that ranks by the trace alone keeps nested caches: what C slots hold, C + 1 hold too. One
stack then stands for all capacities, and the place of a copy in it is the smallest capacity that
lacks it. When an expert comes to the top, one copy is pushed down from place to place: at each the
one that ranks lower goes on, which is what a cache of just that size evicts.

Compiled by numba. Experts are numbered layer * N + expert, and places are counted from 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from specmd_jax.simulator.engines.native import native

PINNED = np.int64(1) << np.int64(62)  # above every rank: a copy in use


class Stack(NamedTuple):
    """The stacks of all pools and what was counted so far; W pools of at most S copies."""

    cells: Int[np.ndarray, "W S"]  # expert at each place
    ranks: Int[np.ndarray, "W S"]  # its rank; for a ranking by recency alone, of its last use
    size: Int[np.ndarray, " W"]
    unsorted: Int[np.ndarray, " W"]  # places from the top that may stand out of rank
    place: Int[np.ndarray, " M"]  # of each of the M = L * N experts; S: not in the stack
    place_before: Int[np.ndarray, " M"]  # when the pass began
    last_used: Int[np.ndarray, " M"]  # event; -1: never
    hits_at: Int[np.ndarray, "L S"]  # demands that found their expert at that place
    collided: Int[np.ndarray, "L D"]  # collisions, as steps up and down over capacities
    grown: Int[np.ndarray, "L D"]  # copies that pools gained, likewise
    demanded: Int[np.ndarray, "L G"]  # events that demanded so many experts
    compulsory: Int[np.ndarray, " L"]
    chosen: Int[np.ndarray, " N"]  # scratch: the experts of the event, ascending
    nearest: Int[np.ndarray, " N"]  # the same by place,
    depth: Int[np.ndarray, " N"]  # and those places
    top: Int[np.ndarray, " N"]


def empty_stack(num_layers: int, num_experts: int, by_layer: bool) -> Stack:
    """Returns the stacks before the first event.

    Args:
      by_layer: a pool for each layer, not one over all.
    """
    cells = num_layers * num_experts
    pools, most = (num_layers, num_experts) if by_layer else (1, cells)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    return Stack(
        cells=np.zeros((pools, most), np.int32),
        ranks=zeros(pools, most),
        size=zeros(pools),
        unsorted=zeros(pools),
        place=np.full(cells, most, np.int32),
        place_before=np.full(cells, most, np.int32),
        last_used=zeros(cells) - 1,
        hits_at=zeros(num_layers, most),
        collided=zeros(num_layers, most + 2),
        grown=zeros(num_layers, most + 2),
        demanded=zeros(num_layers, num_experts + 1),
        compulsory=zeros(num_layers),
        chosen=np.zeros(num_experts, np.int32),
        nearest=np.zeros(num_experts, np.int32),
        depth=np.zeros(num_experts, np.int32),
        top=np.zeros(num_experts, np.int32),
    )


@native
def walk(
    stack: Stack,
    first_event: int,
    used: Bool[np.ndarray, "E N"],
    scores: Int[np.ndarray, "E M"],
    scored: bool,
) -> None:
    """Serves some events, in order, and changes `stack` in place.

    Args:
      first_event: the number of the first, from the beginning of the trace; the first of a pass.
      used: what each event demands; layers follow each other, pass by pass.
      scores: what each expert is worth at each event, before it is served; lowest leaves first.
      scored: False: `scores` is empty, and recency alone ranks.
    """
    num_layers, num_experts = stack.demanded.shape[0], used.shape[1]
    for row in range(used.shape[0]):
        event = first_event + row
        layer = event % num_layers
        pool = layer if stack.cells.shape[0] > 1 else 0
        if layer == 0:
            stack.place_before[:] = stack.place
        many = _find(stack, layer, used[row])
        stack.demanded[layer, many] += 1
        if many == 0:
            continue
        if scored:
            _rank(stack, pool, many, scores[row], num_experts)
        size = stack.size[pool]
        for i in range(many):
            size += _bring_up(stack, pool, stack.nearest[i], size)
        if size > stack.size[pool]:  # pools of more slots than were taken hold more copies
            stack.grown[layer, stack.size[pool] + 1] += 1
            stack.grown[layer, size + 1] -= 1
            stack.size[pool] = size
        _order_top(stack, pool, many, event, num_experts)
        if not scored:
            _find_unsorted(stack, pool, many)


@native
def _find(stack: Stack, layer: int, used: Bool[np.ndarray, " N"]) -> int:
    """Counts what the event finds at each capacity, sorts its experts by place; how many it has."""
    absent, many = stack.cells.shape[1], 0
    for expert in range(used.size):
        if not used[expert]:
            continue
        cell = layer * used.size + expert
        place, before = stack.place[cell], stack.place_before[cell]
        if place < absent:
            stack.hits_at[layer, place] += 1
            if before < place:  # capacities before + 1 .. place held it when the pass began
                stack.collided[layer, before + 1] += 1
                stack.collided[layer, place + 1] -= 1
        else:
            stack.compulsory[layer] += 1
        stack.chosen[many] = cell
        at = many
        while at > 0 and stack.depth[at - 1] > place:
            stack.depth[at], stack.nearest[at] = stack.depth[at - 1], stack.nearest[at - 1]
            at -= 1
        stack.depth[at], stack.nearest[at] = place, cell
        many += 1
    return many


@native
def _rank(
    stack: Stack, pool: int, many: int, scores: Int[np.ndarray, " M"], num_experts: int
) -> None:
    """Ranks the copies that stand in the way: by score, then last use, then expert."""
    cells, ranks = stack.cells[pool], stack.ranks[pool]
    for at in range(min(stack.size[pool], stack.depth[many - 1])):
        cell = cells[at]
        recency = stack.last_used[cell] * num_experts + cell % num_experts
        ranks[at] = (np.int64(scores[cell]) << 31) + recency
    stack.unsorted[pool] = stack.size[pool]


@native
def _bring_up(stack: Stack, pool: int, cell: int, size: int) -> int:
    """Brings an expert to the top of its stack; 1 if the stack has grown by it."""
    cells, ranks = stack.cells[pool], stack.ranks[pool]
    place, grown = stack.place[cell], 0
    if place == cells.size:
        place, grown = size, 1
    if place > 0:
        carried, lowest = cells[0], ranks[0]
        loose = min(place, stack.unsorted[pool])
        for at in range(1, loose):
            if ranks[at] < lowest:
                cells[at], carried = carried, cells[at]
                ranks[at], lowest = lowest, ranks[at]
                stack.place[cells[at]] = at
        for at in range(max(loose, 1), place):  # in order of rank: each gives way to the next
            cells[at], carried = carried, cells[at]
            ranks[at], lowest = lowest, ranks[at]
            stack.place[cells[at]] = at
        cells[place], ranks[place] = carried, lowest
        stack.place[carried] = place
    cells[0], ranks[0] = cell, PINNED
    stack.place[cell] = 0
    return grown


@native
def _order_top(stack: Stack, pool: int, many: int, event: int, num_experts: int) -> None:
    """Orders what was just demanded as pools too small for all of it keep it.

    Such a pool keeps what it hit, then the loads in ascending expert as long as they fit.
    """
    cells, ranks = stack.cells[pool], stack.ranks[pool]
    hit, load = 0, 0
    for slots in range(many):  # a pool of slots + 1 keeps one more than one of `slots`
        cell = -1
        if hit < many and stack.depth[hit] == slots:
            if stack.place[stack.nearest[hit]] >= 0:
                cell = stack.nearest[hit]
            hit += 1
        if cell < 0:
            while stack.place[stack.chosen[load]] < 0:
                load += 1
            cell = stack.chosen[load]
        stack.top[slots] = cell
        stack.place[cell] = -1  # taken
    for at in range(many):
        cell = stack.top[at]
        cells[at] = cell
        stack.place[cell] = at
        stack.last_used[cell] = event
        ranks[at] = event * num_experts + cell % num_experts


@native
def _find_unsorted(stack: Stack, pool: int, many: int) -> None:
    """Finds how far from the top a copy may outrank one above it; below, recency is the order."""
    ranks = stack.ranks[pool]
    last, lowest = 0, ranks[0]
    for at in range(1, min(stack.unsorted[pool] + many, stack.size[pool])):
        if ranks[at] < lowest:
            lowest = ranks[at]
        else:
            last = at
    stack.unsorted[pool] = last + 1
