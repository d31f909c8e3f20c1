"""Letting in what was named for a layer to come."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Real

from specmd_jax.core.arrays import how_many_before, of_pool, row, total, with_row
from specmd_jax.core.types import ABSENT, CacheState, Event, Flight, Outcome, State
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.cache.copies import exchange
from specmd_jax.simulator.cache.pins import Pins, pinned_size, unpinned
from specmd_jax.simulator.cache.ranking import Victims, no_victims
from specmd_jax.simulator.cache.setting import CacheConfig, sizes
from specmd_jax.simulator.cache.victims import find_victims

Targets = list[tuple[Int[Array, ""], Int[Array, " N"]]]  # layers, nearest first, with priorities


class PrefetchResult(NamedTuple):
    """What became of one prefetch target."""

    queued: Bool[Array, " N"]  # named and absent
    started: Bool[Array, " N"]  # of these, let in
    last: Int[Array, ""]  # the expert let in last, if any was
    evictions: Int[Array, ""]


def prefetch(
    setting: CacheConfig,
    cache: CacheState,
    policy_state: State,
    event: Event,
    flight: Flight | None,
    targets: Targets,
    ahead: int,
    limit: Int[Array, ""] | int,
    score: Real[Array, "L N"] | None,
) -> tuple[CacheState, State, PrefetchResult]:
    """Lets in what was named for the layer `ahead` of the event's, as far as there is room.

    Args:
      targets: layer and priorities of every target of this event, nearest first.
      limit: how many transfers there is time for.
      score: of `rank`, before the first target changed anything.
    """
    layer, priority = targets[ahead - 1]
    tier = row(cache.tier, layer)
    tier_in = setting.units.shape[1] - 1 if setting.strategy.miss.prefetch_last_tier else 0
    size = setting.units[layer, tier_in]
    selected = priority > 0
    queued = selected & (tier == ABSENT)
    pins: Pins = [(event.layer, event.used), *((target, worth > 0) for target, worth in targets)]
    held, _ = pinned_size(setting, cache, pins, flight, layer)
    shielded = _shield(setting, cache, policy_state, event, pins, flight, layer)
    held = held + shielded.units
    capacity, occupied = of_pool(setting.capacity, layer), of_pool(cache.occupied, layer)
    room = jnp.maximum(capacity - held, 0) // size
    place = how_many_before(queued, priority)
    started = queued & (place < jnp.minimum(room, limit))

    candidates = unpinned(setting, cache, pins, flight, layer) & ~shielded.chosen
    needed = occupied + total(started) * size - capacity
    victims = find_victims(setting, cache, score, layer, candidates, needed)
    marked = _mark_prefetched(setting.strategy, cache, event, layer, selected & ~queued, started)
    new_tier = jnp.where(started, jnp.int8(tier_in), tier)
    after = exchange(setting, marked, layer, victims, started, new_tier)
    nobody = jnp.zeros_like(selected)
    outcome = Outcome(
        demand=False,
        layer=layer,
        step=event.step + (event.layer + ahead) // setting.shape.num_layers,
        used=nobody,
        found=nobody,
        high=nobody,
        selected=selected,
        inserted=started,
        evicted=victims.chosen,
    )
    policy_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, after, event, outcome
    )
    last = jnp.argmax(jnp.where(started, place, -1)).astype(jnp.int32)
    return after, policy_state, PrefetchResult(queued, started, last, victims.copies)


def _mark_prefetched(
    strategy: Strategy,
    cache: CacheState,
    event: Event,
    layer: Int[Array, ""],
    selected: Bool[Array, " N"],
    started: Bool[Array, " N"],
) -> CacheState:
    touched = jnp.zeros_like(started)
    if strategy.touch_on_prefetch_insert:
        touched = touched | started
    if strategy.touch_on_prefetch_hit:
        touched = touched | selected
    last_used = jnp.where(touched, event.clock, row(cache.last_used, layer))
    assert cache.speculative is not None
    speculative = row(cache.speculative, layer) | started
    return cache._replace(
        last_used=with_row(cache.last_used, layer, last_used),
        speculative=with_row(cache.speculative, layer, speculative),
    )


def _shield(
    setting: CacheConfig,
    cache: CacheState,
    policy_state: State,
    event: Event,
    pins: Pins,
    flight: Flight | None,
    layer: Int[Array, ""],
) -> Victims:
    """Returns the copies that the policy keeps from prefetches, beside the pinned ones."""
    shield = setting.strategy.eviction.shield
    if shield is None:
        return no_victims(setting.shape)
    kept = shield(setting.params.eviction, policy_state, cache, event)
    kept = kept & unpinned(setting, cache, pins, flight, layer)
    units = total(jnp.where(kept, sizes(setting.units, cache.tier), 0))
    return no_victims(setting.shape)._replace(chosen=kept, units=units)
