"""Replay: a scan over passes and layers of the same steps that the runtime takes.

`strategy` and the model's shape are static; parameters, capacities, sizes and costs are traced,
so that `jax.vmap` over any of them is a sweep.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row, total
from specmd_jax.core.types import CacheState, Event, Events, ModelShape, Outcome, State
from specmd_jax.policies import prefetch_guard
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.cache import (
    Arrived,
    Served,
    Setting,
    demand,
    demand_hits,
    empty_cache,
    warm,
)
from specmd_jax.simulator.counts import Counts, add_pass, count_event, no_counts
from specmd_jax.simulator.prefetching import Naming, Told, speculate
from specmd_jax.simulator.state import Replay
from specmd_jax.simulator.timeline import (
    Costs,
    PassCosts,
    at_gate,
    idle_link,
    next_gate,
    serve_time,
)


class PassTimes(NamedTuple):
    ticks: Int[Array, "*B P"]
    stall: Int[Array, "*B P"]


class Service(NamedTuple):
    """What became of one event."""

    event: Event  # as the routing policy left it
    served: Served
    arrivals: tuple[Arrived, ...]  # of each prefetch target, nearest first
    counts: Counts
    times: PassTimes  # of this layer


def begin(
    strategy: Strategy,
    params: StrategyParams,
    shape: ModelShape,
    units: Int[Array, "L Q"],
    first_use: Int[Array, "L N"] | None = None,
    resident: Bool[Array, "L N"] | None = None,
) -> Replay:
    """Returns the state before the first pass.

    Args:
      first_use: event that first demands each expert, if a policy reads next uses.
      resident: experts on the device from the start, at tier 0; None: a cold cache.
    """
    pools = 1 if strategy.scope == "global" else shape.num_layers
    cache = empty_cache(shape, pools, first_use, strategy.prefetches)
    eviction_state = strategy.eviction.init(params.eviction, shape)
    if resident is not None:
        cache = warm(cache, resident, units)
        eviction_state = _told_of_warm_start(strategy, params, shape, cache, eviction_state)
    return Replay(
        cache,
        eviction_state,
        strategy.prefetch.init(params.prefetch, shape),
        strategy.routing.init(params.routing, shape),
        idle_link(),
        no_counts(units),
        jnp.int32(0),
        prefetch_guard.init(shape, strategy.lookahead) if strategy.guard else (),
    )


def _told_of_warm_start(
    strategy: Strategy,
    params: StrategyParams,
    shape: ModelShape,
    cache: CacheState,
    eviction_state: State,
) -> State:
    """Shows the eviction policy the first residents, as inserts before the first event."""
    nobody = jnp.zeros(shape.num_experts, bool)

    def insert(state: State, layer: Int[Array, ""]) -> tuple[State, None]:
        before = jnp.int32(-1)
        nothing = jnp.zeros(shape.num_experts, jnp.int32)
        event = Event(
            clock=before, step=before, layer=layer, tokens=jnp.int32(0), prefill=jnp.bool_(False),
            fresh=jnp.bool_(False), valid=jnp.bool_(False), used=nobody, routed=nothing,
            gate=nothing, next_use=None, upcoming=None, predicted=None, logits=None, probs=None,
        )  # fmt: skip
        inserted = row(cache.tier, layer) >= 0
        outcome = Outcome(
            demand=False, layer=layer, step=before, used=nobody, found=nobody, high=nobody,
            named=nobody, inserted=inserted, evicted=jnp.zeros(cache.tier.shape, bool),
        )  # fmt: skip
        return strategy.eviction.update(params.eviction, state, cache, event, outcome), None

    layers = jnp.arange(shape.num_layers, dtype=jnp.int32)
    return jax.lax.scan(insert, eviction_state, layers)[0]


def replay(
    strategy: Strategy,
    shape: ModelShape,
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    costs: Costs | None,
    state: Replay,
    events: Events,
) -> tuple[Replay, PassTimes]:
    """Serves every event of `events` in order; pure, jittable, vmappable.

    Args:
      capacity: units of each pool: one with global scope, else one a layer.
      units: size of one copy, by layer and tier.
      costs: None: an infinitely fast link and no time. Their arrays over passes may have one entry
        more than `events`, for the pass that follows.
    """
    setting = Setting(strategy, shape, params, capacity, units)
    num_passes = events.tokens.shape[0]
    pass_costs = None
    if costs is not None:
        following = jnp.concatenate([costs.attention[1:], costs.attention[-1:]])
        by_pass = PassCosts(costs.attention, following, costs.shared, costs.head, costs.decide)
        pass_costs = jax.tree.map(lambda values: values[:num_passes], by_pass)
    steps = state.next_step + jnp.arange(num_passes, dtype=jnp.int32)
    one_pass = partial(_serve_pass, setting, costs)
    return jax.lax.scan(one_pass, state, (steps, events, pass_costs))


def _serve_pass(
    setting: Setting,
    costs: Costs | None,
    state: Replay,
    one: tuple[Int[Array, ""], Events, PassCosts | None],
) -> tuple[Replay, PassTimes]:
    step, events, pass_costs = one
    state = begin_pass(state)
    whole, by_layer = _split(events)
    layers = jnp.arange(setting.shape.num_layers, dtype=jnp.int32)

    def one_layer(state, inputs):
        layer, rows = inputs
        event = _event(setting.shape, step, layer, whole, rows)
        state, service = serve_event(setting, costs, pass_costs, state, event)
        return state, (service.counts, service.times)

    state, (counted, times) = jax.lax.scan(one_layer, state, (layers, by_layer))
    counts = add_pass(state.counts, counted)
    return state._replace(counts=counts), PassTimes(total(times.ticks), total(times.stall))


def begin_pass(state: Replay) -> Replay:
    """Returns the state at the start of a pass: what was evicted in the last one is forgotten."""
    nobody = jnp.zeros_like(state.cache.evicted)
    return state._replace(cache=state.cache._replace(evicted=nobody), next_step=state.next_step + 1)


def _split(events: Events) -> tuple[Events, Events]:
    """Separates what a pass has once from what it has by layer."""
    once = {"tokens", "prefill", "fresh", "valid"}
    whole = events._replace(**dict.fromkeys(set(Events._fields) - once))
    return whole, events._replace(**dict.fromkeys(once))


def _event(
    shape: ModelShape, step: Int[Array, ""], layer: Int[Array, ""], whole: Events, rows: Events
) -> Event:
    return Event(
        clock=step * shape.num_layers + layer,
        step=step,
        layer=layer,
        tokens=whole.tokens,
        prefill=whole.prefill,
        fresh=whole.fresh & (layer == 0),
        valid=whole.valid,
        used=rows.routed > 0,
        routed=rows.routed,
        gate=rows.gate,
        next_use=rows.next_use,
        upcoming=rows.upcoming,
        predicted=rows.predicted,
        logits=rows.logits,
        probs=rows.probs,
    )


def serve_event(
    setting: Setting,
    costs: Costs | None,
    pass_costs: PassCosts | None,
    state: Replay,
    event: Event,
    told: Told | None = None,
) -> tuple[Replay, Service]:
    """Serves one layer of one pass: routing, demand, then what the prefetcher names.

    Args:
      costs: of a pass's parts, with `pass_costs`; None: no time, and unless something is told an
        infinitely fast link.
      state: `counts` stays as it is, for the caller to add to.
      event: what the layer's gate asks for.
      told: what happens until the next gate; None: what `costs` say.
    """
    strategy, params = setting.strategy, setting.params
    link = at_gate(state.link)
    flight = None if costs is None and told is None else link.flight
    eviction_state = state.eviction
    if strategy.eviction.begin is not None:
        eviction_state = strategy.eviction.begin(params.eviction, eviction_state, event)
    recorded = event.used
    event, routing_state = _route(setting, state, event)
    cache, eviction_state, served = demand(setting, state.cache, eviction_state, event, flight)
    prefetch_state = strategy.prefetch.observe(params.prefetch, state.prefetch, event)

    window, time, times = None, None, PassTimes(jnp.int32(0), jnp.int32(0))
    if costs is not None:
        assert pass_costs is not None
        time = serve_time(strategy, costs, pass_costs.decide, link, event, served)
        window, spent = next_gate(event.layer, setting.shape.num_layers, time, pass_costs)
        times = PassTimes(spent, time.stall)
    state = state._replace(
        cache=cache, eviction=eviction_state, prefetch=prefetch_state, routing=routing_state
    )
    now = Naming(link, costs, flight, time, window, told)
    state, arrivals = speculate(setting, state, event, now)
    counts = count_event(setting, event, recorded, served, arrivals)
    return state, Service(event, served, tuple(arrivals), counts, times)


def serve_hits(
    setting: Setting, state: Replay, event: Event, *, names: bool
) -> tuple[Replay, Counts, Bool[Array, ""]]:
    """Serves one layer that finds all it asks for, under a strategy that does not bend the choice.

    Args:
      names: whether the prefetcher is asked, which it need not be where nothing is absent.
      event: none of what it uses is on the link.

    Returns:
      The state, its `counts` as they were; what the event came to; and whether a prefetch is
      wanted, in which case neither of the two is right.
    """
    strategy, params = setting.strategy, setting.params
    eviction_state = state.eviction
    if strategy.eviction.begin is not None:
        eviction_state = strategy.eviction.begin(params.eviction, eviction_state, event)
    cache, eviction_state, served = demand_hits(setting, state.cache, eviction_state, event)
    prefetch_state = strategy.prefetch.observe(params.prefetch, state.prefetch, event)
    state = state._replace(cache=cache, eviction=eviction_state, prefetch=prefetch_state)
    wanted, arrivals = jnp.bool_(False), []
    if names:
        state, arrivals = speculate(setting, state, event, Naming(idle_link()))
        wanted = jnp.stack([one.queued.any() for one in arrivals]).any()
    return state, count_event(setting, event, event.used, served, arrivals), wanted


def _route(setting: Setting, state: Replay, event: Event) -> tuple[Event, State]:
    """Lets the routing policy replace the choice of a pass of one token."""
    policy = setting.strategy.routing
    if policy.choose is None:
        return event, state.routing
    assert event.logits is not None
    resident = row(state.cache.tier, event.layer) >= 0
    chosen, routing_state = policy.choose(setting.params.routing, state.routing, resident, event)
    alone = event.tokens == 1
    used = jnp.where(alone, chosen, event.used)
    weight = event.gate if event.probs is None else event.probs
    gate = jnp.where(alone, jnp.where(used, weight, 0), event.gate)
    routed = jnp.where(alone, used.astype(jnp.int32), event.routed)
    kept = jax.tree.map(partial(jnp.where, alone), routing_state, state.routing)
    return event._replace(used=used, gate=gate, routed=routed), kept
