"""S3-FIFO: a small FIFO queue on probation, a main one for what was used again, and ghosts.

Score: q (t + 1) + (event of entering the queue), t the event. In the small queue q is 0 where it
is over its `ratio` of the cache, else 4, and 5 for what was used more than once; in the main queue
q is the uses, at most 3, and one more where the small queue is over.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023; here for sets:
the victims of one event are ranked together, then the queues move.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.arrays import of_pool, row, shares_pool, total, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction

NO_GHOST = -1
MAX_USES = 3


class S3FifoParams(NamedTuple):
    ratio: Float[Array, ""] | float = 0.1  # share of the cache meant for the small queue


class S3FifoState(NamedTuple):
    main: Bool[Array, "L N"]  # in the main queue, else in the small one
    entered: Int[Array, "L N"]  # event at which the copy entered its queue
    uses: Int[Array, "L N"]  # since it entered, at most MAX_USES
    ghost: Int[Array, "L N"]  # ghosts its pool made before this one, NO_GHOST if it is none
    num_ghosts: Int[Array, "L 1"]  # ever made by the pool of each layer


def init(params: S3FifoParams, shape: ModelShape) -> S3FifoState:
    none = zeros(shape)
    return S3FifoState(zeros(shape, bool), none, none, none + NO_GHOST, none[:, :1])


def score(
    params: S3FifoParams, state: S3FifoState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    small, over = ~state.main, _small_is_over(params, state, cache)
    on_probation = jnp.where(over, 0, 4)
    queue = jnp.where(
        small,
        jnp.where(state.uses <= 1, on_probation, 5),
        state.uses + jnp.where(over, 1, 0),
    )
    return queue * (event.clock + 1) + state.entered


def _small_is_over(
    params: S3FifoParams, state: S3FifoState, cache: CacheState
) -> Bool[Array, "#L 1"]:
    in_small = jnp.sum((cache.tier >= 0) & ~state.main, axis=1, dtype=jnp.int32)
    if cache.one_pool:
        in_small = jnp.sum(in_small, keepdims=True, dtype=jnp.int32)
    share = params.ratio * cache.copies.astype(jnp.float32)
    return (in_small.astype(jnp.float32) > share)[:, None]


def update(
    params: S3FifoParams, state: S3FifoState, cache: CacheState, event: Event, outcome: Outcome
) -> S3FifoState:
    state = _remember_ghosts(state, cache, outcome)
    state = _pass_survivors(state, cache, event, outcome)
    return _enter(state, cache, event, outcome)


def _remember_ghosts(state: S3FifoState, cache: CacheState, outcome: Outcome) -> S3FifoState:
    gone = outcome.evicted & ~state.main
    made = jnp.where(shares_pool(cache, outcome.layer), total(gone), 0)
    return state._replace(
        ghost=jnp.where(gone, state.num_ghosts, state.ghost), num_ghosts=state.num_ghosts + made
    )


def _pass_survivors(
    state: S3FifoState, cache: CacheState, event: Event, outcome: Outcome
) -> S3FifoState:
    """Promotes or demotes the copies that the search for victims went over."""
    pool = (cache.tier >= 0) & shares_pool(cache, outcome.layer)
    pool = with_row(pool, outcome.layer, row(pool, outcome.layer) & ~outcome.inserted)
    gone_small, gone_main = outcome.evicted & ~state.main, outcome.evicted & state.main
    newest_small = jnp.max(jnp.where(gone_small, state.entered, -1))
    laps = jnp.max(jnp.where(gone_main, state.uses, -1))
    newest_main = jnp.max(jnp.where(gone_main & (state.uses == laps), state.entered, -1))

    promoted = pool & ~state.main & (state.uses > 1) & (state.entered < newest_small)
    times = jnp.where(laps >= 0, laps + (state.entered < newest_main), 0)
    passed = pool & state.main & (times > 0)
    uses = jnp.where(passed, jnp.maximum(state.uses - times, 0), state.uses)
    return state._replace(
        main=state.main | promoted,
        entered=jnp.where(promoted | passed, event.clock, state.entered),
        uses=jnp.where(promoted, 0, uses),
    )


def _enter(state: S3FifoState, cache: CacheState, event: Event, outcome: Outcome) -> S3FifoState:
    layer, inserted = outcome.layer, outcome.inserted
    copies = of_pool(cache.copies, layer)
    ghost = row(state.ghost, layer)
    returns = (ghost != NO_GHOST) & (row(state.num_ghosts, layer) - ghost <= copies)
    uses = jnp.where(inserted, 0, row(state.uses, layer))
    uses = jnp.where(outcome.found, jnp.minimum(uses + 1, MAX_USES), uses)
    return state._replace(
        main=with_row(state.main, layer, jnp.where(inserted, returns, row(state.main, layer))),
        entered=with_row(
            state.entered, layer, jnp.where(inserted, event.clock, row(state.entered, layer))
        ),
        uses=with_row(state.uses, layer, uses),
        ghost=with_row(state.ghost, layer, jnp.where(inserted, NO_GHOST, ghost)),
    )


policy = Eviction(init, score, update, S3FifoParams(), doc=__doc__)
