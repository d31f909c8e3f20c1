"""Serving what a layer asks for."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.arrays import of_pool, row, with_row
from specmd_jax.core.types import ABSENT, CacheState, Event, Flight, Outcome, State
from specmd_jax.policies.base import LayerView, MissPlan
from specmd_jax.policies.miss.fetch import load_all
from specmd_jax.simulator.cache.admission import Claim, bypass, force
from specmd_jax.simulator.cache.copies import exchange
from specmd_jax.simulator.cache.pins import in_flight
from specmd_jax.simulator.cache.setting import CacheConfig


class DemandResult(NamedTuple):
    """What became of one event's demand; every mask is over the experts of its layer."""

    hit: Bool[Array, " N"]
    late: Bool[Array, " N"]  # demanded while on the link
    loaded: Bool[Array, " N"]
    streamed: Bool[Array, " N"]  # of the loaded, those not retained
    plan: MissPlan
    used: Bool[Array, " N"]  # computed on the device
    tier: Int8[Array, " N"]  # precision of what is used
    collision: Bool[Array, " N"]
    compulsory: Bool[Array, " N"]
    prefetch_hit: Bool[Array, " N"]  # hits on copies that a prefetch brought
    evictions: Int[Array, ""]

    @property
    def arrives(self) -> Bool[Array, " N"]:
        """Whether it is computed as it comes over the link."""
        return self.late | self.loaded


def demand(
    setting: CacheConfig,
    cache: CacheState,
    policy_state: State,
    event: Event,
    flight: Flight | None = None,
) -> tuple[CacheState, State, DemandResult]:
    """Serves the demand of `event`: hits, fates of the misses, victims, metadata.

    Args:
      policy_state: of the eviction policy.
      flight: the copy on the link at this gate: pinned, and no hit. None: there is no link.
    """
    layer = event.layer
    cache = look_ahead(cache, event)
    tier = row(cache.tier, layer)
    flying = in_flight(flight, layer, tier)
    resident = (tier != ABSENT) & ~flying
    hit, late = event.used & resident, event.used & flying
    missing = event.used & ~resident & ~flying
    plan = _plan(setting, hit, missing, resident, tier, event)
    elsewhere = plan.dropped | plan.on_host | plan.substituted
    loaded = missing & ~elsewhere
    used = event.used & ~elsewhere | plan.stand_in
    tier = jnp.where(loaded, plan.tier, tier)
    outcome = _outcome(setting, cache, event, used, hit | late, tier, loaded)
    touched = _touch(cache, event, used, loaded)
    claim = Claim(layer, loaded, tier, hit | flying | plan.stand_in, flight)
    if setting.strategy.admission == "bypass":
        victims, retained = bypass(setting, touched, policy_state, event, claim, outcome)
    else:
        victims, retained = force(setting, cache, policy_state, event, claim)
    after = exchange(setting, touched, layer, victims, retained, tier)
    outcome = outcome._replace(inserted=retained, evicted=victims.chosen)
    policy_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, after, event, outcome
    )
    served = DemandResult(
        hit=hit,
        late=late,
        loaded=loaded,
        streamed=loaded & ~retained,
        plan=plan,
        used=used,
        tier=tier,
        collision=event.used & ~hit & row(cache.evicted, layer),
        compulsory=event.used & ~hit & ~row(cache.seen, layer),
        prefetch_hit=_prefetch_hit(cache, layer, hit),
        evictions=victims.copies,
    )
    return after, policy_state, served


def demand_hits(
    setting: CacheConfig, cache: CacheState, policy_state: State, event: Event
) -> tuple[CacheState, State, DemandResult]:
    """Serves a demand that finds all it asks for: `demand` without its search for victims.

    Args:
      event: every expert it uses is on the device, none of them on the link.
    """
    layer, used = event.layer, event.used
    cache = look_ahead(cache, event)
    tier, nobody = row(cache.tier, layer), jnp.zeros_like(used)
    after = _touch(cache, event, used, nobody)
    outcome = _outcome(setting, cache, event, used, used, tier, nobody)
    policy_state = setting.strategy.eviction.update(
        setting.params.eviction, policy_state, after, event, outcome
    )
    served = DemandResult(
        hit=used,
        late=nobody,
        loaded=nobody,
        streamed=nobody,
        plan=MissPlan(jnp.zeros_like(tier), nobody, nobody, nobody, nobody),
        used=used,
        tier=tier,
        collision=nobody,
        compulsory=nobody,
        prefetch_hit=_prefetch_hit(cache, layer, used),
        evictions=jnp.int32(0),
    )
    return after, policy_state, served


def _outcome(
    setting: CacheConfig,
    cache: CacheState,
    event: Event,
    used: Bool[Array, " N"],
    found: Bool[Array, " N"],
    tier: Int8[Array, " N"],
    loaded: Bool[Array, " N"],
) -> Outcome:
    """Returns the outcome of a demand, as if every load were retained and nobody left."""
    return Outcome(
        demand=True,
        layer=event.layer,
        step=event.step,
        used=used,
        found=found,
        high=used if setting.units.shape[1] == 1 else used & (tier == 0),
        selected=jnp.zeros_like(used),
        inserted=loaded,
        evicted=jnp.zeros(cache.tier.shape, bool),
    )


def _prefetch_hit(
    cache: CacheState, layer: Int[Array, ""], hit: Bool[Array, " N"]
) -> Bool[Array, " N"]:
    if cache.speculative is None:
        return jnp.zeros_like(hit)
    return hit & row(cache.speculative, layer)


def _plan(
    setting: CacheConfig,
    hit: Bool[Array, " N"],
    missing: Bool[Array, " N"],
    resident: Bool[Array, " N"],
    tier: Int8[Array, " N"],
    event: Event,
) -> MissPlan:
    sizes, capacity = row(setting.units, event.layer), of_pool(setting.capacity, event.layer)
    view = LayerView(hit, missing, resident, tier, sizes, capacity)
    plan = setting.strategy.miss.plan
    return load_all(view) if plan is None else plan(setting.params.miss, view, event, setting.shape)


def look_ahead(cache: CacheState, event: Event) -> CacheState:
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
            cache.last_used, layer, jnp.where(used, event.clock, row(cache.last_used, layer))
        ),
        speculative=speculative,
        seen=with_row(cache.seen, layer, row(cache.seen, layer) | event.used),
    )
