"""Serving one event, atomically: the piece that the simulator and the runtime share.

`demand` serves what a layer asks for; `prefetch` lets in what was named for a layer to come.
Both follow docs/semantics.md, section 2, step by step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8, Real

from specmd_jax.arrays import precedes, row, total, with_row
from specmd_jax.policy import Plan, Row
from specmd_jax.ranking import Victims, lowest, no_victims
from specmd_jax.strategy import Strategy, StrategyParams
from specmd_jax.types import ABSENT, CacheState, Event, Flight, ModelShape, Outcome, State


class Setting(NamedTuple):
    """What stays the same from event to event."""

    strategy: Strategy  # static
    shape: ModelShape  # static
    params: StrategyParams
    capacity: Int[Array, " W"]  # units of each pool
    units: Int[Array, "L Q"]  # size of one copy, by layer and tier


class Served(NamedTuple):
    """What became of one event's demand; every mask is over the experts of its layer."""

    hit: Bool[Array, " N"]
    late: Bool[Array, " N"]  # demanded while on the link
    loaded: Bool[Array, " N"]
    streamed: Bool[Array, " N"]  # of the loaded, those not retained
    plan: Plan
    used: Bool[Array, " N"]  # computed on the device
    tier: Int8[Array, " N"]  # precision of what is used
    collision: Bool[Array, " N"]
    compulsory: Bool[Array, " N"]
    foreseen: Bool[Array, " N"]  # hits on copies that a prefetch brought
    evictions: Int[Array, ""]


class Arrived(NamedTuple):
    """What became of one prefetch target."""

    queued: Bool[Array, " N"]  # named and absent
    started: Bool[Array, " N"]  # of these, let in
    last: Int[Array, ""]  # the expert let in last, if any was
    evictions: Int[Array, ""]


def empty_cache(
    shape: ModelShape,
    num_pools: int,
    next_use: Int[Array, "L N"] | None = None,
    prefetches: bool = True,
) -> CacheState:
    """Returns a cold cache; `next_use` is each expert's first demand, if a policy reads it."""
    size = (shape.num_layers, shape.num_experts)
    no, none = jnp.zeros(size, bool), jnp.zeros(num_pools, jnp.int32)
    return CacheState(
        tier=jnp.full(size, ABSENT, jnp.int8),
        last_used=jnp.full(size, -1, jnp.int32),
        next_use=next_use,
        speculative=no if prefetches else None,
        seen=no,
        evicted=no,
        occupied=none,
        copies=none,
        broken=jnp.bool_(False),
    )


def warm(cache: CacheState, resident: Bool[Array, "L N"], units: Int[Array, "L Q"]) -> CacheState:
    """Returns `cache` with copies of `resident` at tier 0; the caller sees to it that they fit."""
    taken = jnp.sum(jnp.where(resident, units[:, :1], 0), axis=1, dtype=jnp.int32)
    copies = jnp.sum(resident, axis=1, dtype=jnp.int32)
    if cache.copies.shape[0] == 1:
        taken, copies = total(taken)[None], total(copies)[None]
    tier = jnp.where(resident, 0, ABSENT).astype(jnp.int8)
    return cache._replace(tier=tier, occupied=taken, copies=copies)


def demand(
    setting: Setting,
    cache: CacheState,
    policy_state: State,
    event: Event,
    flight: Flight | None = None,
) -> tuple[CacheState, State, Served]:
    """Serves the demand of `event`: hits, fates of the misses, victims, metadata.

    Args:
      policy_state: of the eviction policy.
      flight: the copy on the link at this gate: pinned, and no hit. None: there is no link.
    """
    layer = event.layer
    cache = _look_ahead(cache, event)
    tier = row(cache.tier, layer)
    flying = _flying(flight, layer, tier)
    resident = (tier != ABSENT) & ~flying
    hit, late = event.used & resident, event.used & flying
    missing = event.used & ~resident & ~flying
    plan = _plan(setting, hit, missing, resident, tier, event)
    elsewhere = plan.dropped | plan.on_host | plan.substituted
    loaded = missing & ~elsewhere
    used = event.used & ~elsewhere | plan.stand_in
    tier = jnp.where(loaded, plan.tier, tier)
    outcome = Outcome(
        demand=True,
        layer=layer,
        step=event.step,
        used=used,
        found=hit | late,
        high=used if setting.units.shape[1] == 1 else used & (tier == 0),
        named=jnp.zeros_like(used),
        inserted=loaded,
        evicted=jnp.zeros(cache.tier.shape, bool),
    )
    touched = _touch(cache, event, used, loaded)
    pinned = hit | flying | plan.stand_in
    admit = _bypass if setting.strategy.admission == "bypass" else _force
    victims, retained = admit(
        setting, cache, touched, policy_state, event, outcome, flight, pinned, tier
    )
    after = _replace_copies(setting, touched, layer, victims, retained, tier)
    outcome = outcome._replace(inserted=retained, evicted=victims.chosen)
    policy_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, after, event, outcome
    )
    served = Served(
        hit=hit,
        late=late,
        loaded=loaded,
        streamed=loaded & ~retained,
        plan=plan,
        used=used,
        tier=tier,
        collision=event.used & ~hit & row(cache.evicted, layer),
        compulsory=event.used & ~hit & ~row(cache.seen, layer),
        foreseen=_foreseen(cache, layer, hit),
        evictions=victims.copies,
    )
    return after, policy_state, served


def _foreseen(
    cache: CacheState, layer: Int[Array, ""], hit: Bool[Array, " N"]
) -> Bool[Array, " N"]:
    if cache.speculative is None:
        return jnp.zeros_like(hit)
    return hit & row(cache.speculative, layer)


def _plan(
    setting: Setting,
    hit: Bool[Array, " N"],
    missing: Bool[Array, " N"],
    resident: Bool[Array, " N"],
    tier: Int8[Array, " N"],
    event: Event,
) -> Plan:
    sizes, capacity = row(setting.units, event.layer), _of_pool(setting.capacity, event.layer)
    view = Row(hit, missing, resident, tier, sizes, capacity)
    return setting.strategy.miss.plan(setting.params.miss, view, event, setting.shape)


def _look_ahead(cache: CacheState, event: Event) -> CacheState:
    """Returns `cache` with the next uses as they are from this event on."""
    if cache.next_use is None:
        return cache
    assert event.next_use is not None
    return cache._replace(next_use=with_row(cache.next_use, event.layer, event.next_use))


def _touch(
    cache: CacheState, event: Event, used: Bool[Array, " N"], loaded: Bool[Array, " N"]
) -> CacheState:
    """Returns `cache` with the metadata that this demand leaves, copies as before."""
    layer, speculative = event.layer, cache.speculative
    if speculative is not None:
        speculative = with_row(speculative, layer, row(speculative, layer) & ~used & ~loaded)
    return cache._replace(
        last_used=with_row(
            cache.last_used, layer, jnp.where(used, event.index, row(cache.last_used, layer))
        ),
        speculative=speculative,
        seen=with_row(cache.seen, layer, row(cache.seen, layer) | event.used),
    )


def _force(
    setting: Setting,
    cache: CacheState,
    touched: CacheState,
    policy_state: State,
    event: Event,
    outcome: Outcome,
    flight: Flight | None,
    pinned: Bool[Array, " N"],
    tier: Int8[Array, " N"],
) -> tuple[Victims, Bool[Array, " N"]]:
    """Forced admission: every load is retained, unless the event alone exceeds the pool."""
    del touched
    layer, loaded = event.layer, outcome.inserted
    capacity = _of_pool(setting.capacity, layer)
    occupied, copies = _of_pool(cache.occupied, layer), _of_pool(cache.copies, layer)
    held, kept = _pinned_size(setting, cache, [(layer, pinned)], flight, layer)
    wanted = _size(setting, layer, loaded, tier)
    fits = held + wanted <= capacity
    candidates = _unpinned(setting, cache, [(layer, pinned)], flight, layer)
    needed = jnp.where(fits, occupied + wanted - capacity, 0)
    score = rank(setting, cache, policy_state, event)
    victims = _search(setting, cache, score, layer, candidates, needed)
    victims = victims._replace(
        chosen=jnp.where(fits, victims.chosen, candidates),
        copies=jnp.where(fits, victims.copies, copies - kept),
        units=jnp.where(fits, victims.units, occupied - held),
    )
    return victims, _first_that_fit(setting, layer, loaded, tier, capacity - held)


def _first_that_fit(
    setting: Setting,
    layer: Int[Array, ""],
    loaded: Bool[Array, " N"],
    tier: Int8[Array, " N"],
    room: Int[Array, ""],
) -> Bool[Array, " N"]:
    """Returns the longest prefix of the loads, by ascending expert, that fits in `room` units."""
    expert = jnp.arange(loaded.shape[0])

    def overfull(retained: Bool[Array, " N"]) -> Bool[Array, ""]:
        return jnp.any(retained) & (_size(setting, layer, retained, tier) > room)

    def without_last(retained: Bool[Array, " N"]) -> Bool[Array, " N"]:
        return retained & (expert < jnp.max(jnp.where(retained, expert, 0)))

    # A loop, not a cumulative sum: it runs only where something is streamed, which is rare.
    return jax.lax.while_loop(overfull, without_last, loaded)


def _bypass(
    setting: Setting,
    cache: CacheState,
    touched: CacheState,
    policy_state: State,
    event: Event,
    outcome: Outcome,
    flight: Flight | None,
    pinned: Bool[Array, " N"],
    tier: Int8[Array, " N"],
) -> tuple[Victims, Bool[Array, " N"]]:
    """Bypass admission: loads are ranked among the copies, as if they were already there."""
    layer, loaded = event.layer, outcome.inserted
    wanted = _size(setting, layer, loaded, tier)
    nobody = no_victims(cache.tier.shape)
    crowded = _replace_copies(setting, touched, layer, nobody, loaded, tier)
    crowded_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, crowded, event, outcome
    )
    needed = _of_pool(cache.occupied, layer) + wanted - _of_pool(setting.capacity, layer)
    candidates = _unpinned(setting, crowded, [(layer, pinned)], flight, layer)
    score = rank(setting, crowded, crowded_state, event)
    gone = _search(setting, crowded, score, layer, candidates, needed)
    declined = row(gone.chosen, layer) & loaded
    left = gone._replace(
        chosen=with_row(gone.chosen, layer, row(gone.chosen, layer) & ~loaded),
        copies=gone.copies - total(declined),
        units=gone.units - _size(setting, layer, declined, tier),
    )
    return left, loaded & ~declined


def prefetch(
    setting: Setting,
    cache: CacheState,
    policy_state: State,
    event: Event,
    flight: Flight | None,
    targets: list[tuple[Int[Array, ""], Int[Array, " N"]]],
    ahead: int,
    limit: Int[Array, ""] | int,
    score: Real[Array, "L N"] | None,
) -> tuple[CacheState, State, Arrived]:
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
    named = priority > 0
    queued = named & (tier == ABSENT)
    rows = [(event.layer, event.used), *((target, worth > 0) for target, worth in targets)]
    held, _ = _pinned_size(setting, cache, rows, flight, layer)
    shielded = _shield(setting, cache, policy_state, event, rows, flight, layer)
    held = held + shielded.units
    capacity, occupied = _of_pool(setting.capacity, layer), _of_pool(cache.occupied, layer)
    room = jnp.maximum(capacity - held, 0) // size
    place = _place_in_queue(queued, priority)
    started = queued & (place < jnp.minimum(room, limit))

    candidates = _unpinned(setting, cache, rows, flight, layer) & ~shielded.chosen
    needed = occupied + total(started) * size - capacity
    victims = _search(setting, cache, score, layer, candidates, needed)
    marked = _mark_prefetched(setting.strategy, cache, event, layer, named & ~queued, started)
    new_tier = jnp.where(started, jnp.int8(tier_in), tier)
    after = _replace_copies(setting, marked, layer, victims, started, new_tier)
    nobody = jnp.zeros_like(named)
    outcome = Outcome(
        demand=False,
        layer=layer,
        step=event.step + (event.layer + ahead) // setting.shape.num_layers,
        used=nobody,
        found=nobody,
        high=nobody,
        named=named,
        inserted=started,
        evicted=victims.chosen,
    )
    policy_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, after, event, outcome
    )
    last = jnp.argmax(jnp.where(started, place, -1)).astype(jnp.int32)
    return after, policy_state, Arrived(queued, started, last, victims.copies)


def _place_in_queue(queued: Bool[Array, " N"], priority: Int[Array, " N"]) -> Int[Array, " N"]:
    """Returns how many of the queued stand before each expert."""
    before = precedes(priority).astype(jnp.float32)  # as floats: a matrix product, and exact
    return jnp.dot(before, queued.astype(jnp.float32)).astype(jnp.int32)


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
    last_used = jnp.where(touched, event.index, row(cache.last_used, layer))
    assert cache.speculative is not None
    speculative = row(cache.speculative, layer) | started
    return cache._replace(
        last_used=with_row(cache.last_used, layer, last_used),
        speculative=with_row(cache.speculative, layer, speculative),
    )


def _shield(
    setting: Setting,
    cache: CacheState,
    policy_state: State,
    event: Event,
    rows: list[tuple[Int[Array, ""], Bool[Array, " N"]]],
    flight: Flight | None,
    layer: Int[Array, ""],
) -> Victims:
    """Returns the copies that the policy keeps from prefetches, beside the pinned ones."""
    shield = setting.strategy.eviction.shield
    if shield is None:
        return no_victims(cache.tier.shape)
    kept = shield(setting.params.eviction, policy_state, cache, event)
    kept = kept & _unpinned(setting, cache, rows, flight, layer)
    sizes = jnp.where(kept, _sizes(setting.units, cache.tier), 0)
    return no_victims(cache.tier.shape)._replace(chosen=kept, units=total(sizes))


def rank(
    setting: Setting, cache: CacheState, policy_state: State, event: Event
) -> Real[Array, "L N"] | None:
    """Returns what each copy is worth to the eviction policy; None: recency alone counts."""
    if setting.strategy.eviction.score is None:
        return None
    return setting.strategy.eviction.score(setting.params.eviction, policy_state, cache, event)


def _search(
    setting: Setting,
    cache: CacheState,
    score: Real[Array, "L N"] | None,
    layer: Int[Array, ""],
    candidates: Bool[Array, "L N"],
    needed: Int[Array, ""],
) -> Victims:
    """Finds the victims in the pool of `layer`."""
    if setting.strategy.scope == "global":
        return lowest(score, cache.last_used, candidates, needed, cache.tier, setting.units)

    def own(values):
        return None if values is None else row(values, layer)[None]

    victims = lowest(
        own(score),
        own(cache.last_used),
        own(candidates),
        needed,
        own(cache.tier),
        own(setting.units),
    )
    chosen = with_row(jnp.zeros_like(candidates), layer, victims.chosen[0])
    return victims._replace(chosen=chosen)


def _unpinned(
    setting: Setting,
    cache: CacheState,
    rows: list[tuple[Int[Array, ""], Bool[Array, " N"]]],
    flight: Flight | None,
    layer: Int[Array, ""],
) -> Bool[Array, "L N"]:
    """Returns the copies in the pool of `layer` that may leave."""
    pinned = jnp.zeros(cache.tier.shape, bool)
    for pinned_layer, mask in rows:
        pinned = with_row(pinned, pinned_layer, mask)
    candidates = (cache.tier != ABSENT) & ~pinned
    own = jnp.arange(cache.tier.shape[0])[:, None]
    if setting.strategy.scope == "layer":
        candidates = candidates & (own == layer)
    if flight is not None:
        expert = jnp.arange(cache.tier.shape[1])[None, :]
        candidates = candidates & ~((own == flight.layer) & (expert == flight.expert))
    return candidates


def _pinned_size(
    setting: Setting,
    cache: CacheState,
    rows: list[tuple[Int[Array, ""], Bool[Array, " N"]]],
    flight: Flight | None,
    layer: Int[Array, ""],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns units and number of the pinned copies in the pool of `layer`."""
    held, kept = jnp.int32(0), jnp.int32(0)
    elsewhere = jnp.bool_(True)  # is the copy in flight outside all these rows?
    for pinned_layer, mask in rows:
        tier = row(cache.tier, pinned_layer)
        mask = (mask | _flying(flight, pinned_layer, tier)) & (tier != ABSENT)
        if setting.strategy.scope == "layer":
            mask = mask & (pinned_layer == layer)
        held = held + _size(setting, pinned_layer, mask, tier)
        kept = kept + total(mask)
        if flight is not None:
            elsewhere = elsewhere & (flight.layer != pinned_layer)
    if flight is not None and setting.strategy.scope == "global":
        alone = elsewhere & (flight.layer >= 0)
        size = setting.units[flight.layer, jnp.maximum(cache.tier[flight.layer, flight.expert], 0)]
        held = held + jnp.where(alone, size, 0)
        kept = kept + alone
    return held, kept


def _replace_copies(
    setting: Setting,
    cache: CacheState,
    layer: Int[Array, ""],
    victims: Victims,
    inserted: Bool[Array, " N"],
    tier: Int8[Array, " N"],
) -> CacheState:
    """Returns `cache` after the victims left and `inserted` came to `layer` at `tier`."""
    remaining = jnp.where(victims.chosen, jnp.int8(ABSENT), cache.tier)
    occupied = _size(setting, layer, inserted, tier) - victims.units
    copies = total(inserted) - victims.copies
    return cache._replace(
        tier=with_row(remaining, layer, jnp.where(inserted, tier, row(remaining, layer))),
        evicted=cache.evicted | victims.chosen,
        occupied=_add_to_pool(cache.occupied, layer, occupied),
        copies=_add_to_pool(cache.copies, layer, copies),
        broken=cache.broken | victims.broken,
    )


def _flying(
    flight: Flight | None, layer: Int[Array, ""], tier: Int8[Array, " N"]
) -> Bool[Array, " N"]:
    if flight is None:
        return jnp.zeros(tier.shape, bool)
    return (flight.layer == layer) & (jnp.arange(tier.shape[0]) == flight.expert)


def _size(
    setting: Setting, layer: Int[Array, ""], mask: Bool[Array, " N"], tier: Int8[Array, " N"]
) -> Int[Array, ""]:
    """Returns the units that the experts in `mask` take at their tiers."""
    sizes = row(setting.units, layer)
    if sizes.shape[0] == 1:
        return total(mask) * sizes[0]
    return total(jnp.where(mask, sizes[jnp.maximum(tier, 0)], 0))


def _sizes(units: Int[Array, "L Q"], tier: Int8[Array, "L N"]) -> Int[Array, "L N"]:
    """Returns the units of each copy; those of tier 0 where there is none."""
    if units.shape[1] == 1:
        return jnp.broadcast_to(units, tier.shape)
    return jnp.take_along_axis(units, jnp.maximum(tier, 0).astype(jnp.int32), axis=1)


def _of_pool(values: Int[Array, " W"], layer: Int[Array, ""]) -> Int[Array, ""]:
    return values[0] if values.shape[0] == 1 else row(values, layer)


def _add_to_pool(
    values: Int[Array, " W"], layer: Int[Array, ""], amount: Int[Array, ""]
) -> Int[Array, " W"]:
    if values.shape[0] == 1:
        return values + amount
    return with_row(values, layer, row(values, layer) + amount)
