"""SIEVE: a FIFO queue whose hand passes over, once, what was used since it last came by.

Score: v n + (place - hand) mod n, with n the insertions so far, place the one of the copy, and v
whether it was used since the hand came by.

Source: Zhang et al., "SIEVE is simpler than LRU", NSDI 2024; here for sets of experts.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row, shares_pool, total, with_row, zeros
from specmd_jax.core.types import ABSENT, CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction


class SieveState(NamedTuple):
    number: Int[Array, "L N"]  # place in the order of insertion
    visited: Bool[Array, "L N"]
    next_number: Int[Array, ""]
    hand: Int[Array, " L"]  # number from which the next sweep starts; one for all, or a layer


def init(params: tuple, shape: ModelShape) -> SieveState:
    hand = jnp.zeros(shape.num_layers, jnp.int32)
    return SieveState(zeros(shape), zeros(shape, bool), jnp.int32(0), hand)


def score(params: tuple, state: SieveState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    return state.visited * state.next_number + _position(state)


def update(
    params: tuple, state: SieveState, cache: CacheState, event: Event, outcome: Outcome
) -> SieveState:
    swept = _sweep(state, cache, event, outcome)
    inserted = outcome.inserted.astype(jnp.int32)
    fresh = swept.next_number + jnp.cumsum(inserted) - 1
    number = jnp.where(outcome.inserted, fresh, row(swept.number, outcome.layer))
    visited = row(swept.visited, outcome.layer) & ~outcome.inserted | outcome.found
    return SieveState(
        with_row(swept.number, outcome.layer, number),
        with_row(swept.visited, outcome.layer, visited),
        swept.next_number + total(inserted),
        swept.hand,
    )


def _sweep(state: SieveState, cache: CacheState, event: Event, outcome: Outcome) -> SieveState:
    """Moves the hand past the evicted copies and clears the marks it passed."""
    gone = outcome.evicted
    worth = jnp.where(gone, score((), state, cache, event), -1)
    reached = jnp.max(worth)
    last = jnp.max(jnp.where(gone & (worth == reached), state.number, -1))
    farthest = jnp.max(jnp.where(gone, _position(state), -1))
    full_lap = jnp.any(gone & state.visited)
    pool = shares_pool(cache, outcome.layer)
    passed = pool & (full_lap | (_position(state) <= farthest))
    here = row(cache.tier, outcome.layer)
    remaining = with_row(cache.tier, outcome.layer, jnp.where(outcome.inserted, ABSENT, here)) >= 0
    newer = jnp.any(pool & remaining & (state.number > last))
    hand = jnp.where(newer, last + 1, 0)  # past the newest copy it starts from the oldest again
    return state._replace(
        visited=state.visited & ~passed,
        hand=jnp.where(pool[:, 0] & jnp.any(gone), hand, state.hand),
    )


def _position(state: SieveState) -> Int[Array, "L N"]:
    """Place in the queue counted from the hand."""
    return (state.number - state.hand[:, None]) % jnp.maximum(state.next_number, 1)


policy = Eviction(init, score, update, doc=__doc__)
