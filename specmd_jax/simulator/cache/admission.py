"""Which loads are retained, and who leaves for them: forced admission and bypass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.arrays import of_pool, row, total, with_row
from specmd_jax.core.types import CacheState, Event, Flight, Outcome, State
from specmd_jax.simulator.cache.copies import exchange
from specmd_jax.simulator.cache.pins import Pins, pinned_size, unpinned
from specmd_jax.simulator.cache.ranking import Victims, no_victims
from specmd_jax.simulator.cache.setting import CacheConfig, size_of
from specmd_jax.simulator.cache.victims import find_victims, rank


class Claim(NamedTuple):
    """What an event's demand claims of the pool of its layer."""

    layer: Int[Array, ""]
    loaded: Bool[Array, " N"]
    tier: Int8[Array, " N"]  # of the loads
    pinned: Bool[Array, " N"]  # in use: none of them leaves for the loads
    flight: Flight | None


def force(
    setting: CacheConfig, cache: CacheState, policy_state: State, event: Event, claim: Claim
) -> tuple[Victims, Bool[Array, " N"]]:
    """Forced admission: every load is retained, unless the event alone exceeds the pool.

    Args:
      cache: as it was before the event.

    Returns:
      The victims, and the loads that are retained.
    """
    layer, flight = claim.layer, claim.flight
    pins: Pins = [(layer, claim.pinned)]
    capacity = of_pool(setting.capacity, layer)
    occupied, copies = of_pool(cache.occupied, layer), of_pool(cache.copies, layer)
    held, kept = pinned_size(setting, cache, pins, flight, layer)
    wanted = size_of(setting, layer, claim.loaded, claim.tier)
    fits = held + wanted <= capacity
    candidates = unpinned(setting, cache, pins, flight, layer)
    needed = jnp.where(fits, occupied + wanted - capacity, 0)
    score = rank(setting, cache, policy_state, event)
    victims = find_victims(setting, cache, score, layer, candidates, needed)
    victims = victims._replace(
        chosen=jnp.where(fits, victims.chosen, candidates),
        copies=jnp.where(fits, victims.copies, copies - kept),
        units=jnp.where(fits, victims.units, occupied - held),
    )
    return victims, _first_that_fit(setting, claim, capacity - held)


def _first_that_fit(setting: CacheConfig, claim: Claim, room: Int[Array, ""]) -> Bool[Array, " N"]:
    """Returns the longest prefix of the loads, by ascending expert, that fits in `room` units."""
    expert = jnp.arange(claim.loaded.shape[0])

    def overfull(retained: Bool[Array, " N"]) -> Bool[Array, ""]:
        size = size_of(setting, claim.layer, retained, claim.tier)
        return jnp.any(retained) & (size > room)

    def without_last(retained: Bool[Array, " N"]) -> Bool[Array, " N"]:
        return retained & (expert < jnp.max(jnp.where(retained, expert, 0)))

    # A loop, not a cumulative sum: it runs only where something is streamed, which is rare.
    return jax.lax.while_loop(overfull, without_last, claim.loaded)


def bypass(
    setting: CacheConfig,
    touched: CacheState,
    policy_state: State,
    event: Event,
    claim: Claim,
    outcome: Outcome,
) -> tuple[Victims, Bool[Array, " N"]]:
    """Bypass admission: loads are ranked among the copies, as if they were already there.

    Args:
      touched: the cache with the marks of this event's use, copies as before.
      outcome: as if every load were retained.

    Returns:
      The victims, and the loads that are retained.
    """
    layer, loaded, tier = claim.layer, claim.loaded, claim.tier
    wanted = size_of(setting, layer, loaded, tier)
    crowded = exchange(setting, touched, layer, no_victims(setting.shape), loaded, tier)
    crowded_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, crowded, event, outcome
    )
    needed = of_pool(touched.occupied, layer) + wanted - of_pool(setting.capacity, layer)
    candidates = unpinned(setting, crowded, [(layer, claim.pinned)], claim.flight, layer)
    score = rank(setting, crowded, crowded_state, event)
    gone = find_victims(setting, crowded, score, layer, candidates, needed)
    declined = row(gone.chosen, layer) & loaded
    left = gone._replace(
        chosen=with_row(gone.chosen, layer, row(gone.chosen, layer) & ~loaded),
        copies=gone.copies - total(declined),
        units=gone.units - size_of(setting, layer, declined, tier),
    )
    return left, loaded & ~declined
