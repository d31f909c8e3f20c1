"""One event served: routing, demand, then prefetch; the simulator and the runtime share it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row
from specmd_jax.core.types import Event, State
from specmd_jax.simulator.cache import (
    CacheConfig,
    DemandResult,
    PrefetchResult,
    demand,
    demand_hits,
)
from specmd_jax.simulator.counts import Counts, count_event
from specmd_jax.simulator.prefetching import ObservedStarts, PrefetchWindow, speculate
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.timeline import (
    Costs,
    PassCosts,
    at_gate,
    idle_link,
    next_gate,
    serve_time,
)


class PassTimes(NamedTuple):
    """What passes take, in ticks; or one layer of one pass."""

    ticks: Int[Array | np.ndarray, "..."]
    stall: Int[Array | np.ndarray, "..."]  # of these, waiting for the link


class Service(NamedTuple):
    """What became of one event."""

    event: Event  # as the routing policy left it
    served: DemandResult
    arrivals: tuple[PrefetchResult, ...]  # of each prefetch target, nearest first
    counts: Counts
    times: PassTimes | None  # of this layer


def begin_pass(state: SimState) -> SimState:
    """Returns the state at the start of a pass: what was evicted in the last one is forgotten."""
    nobody = jnp.zeros_like(state.cache.evicted)
    return state._replace(cache=state.cache._replace(evicted=nobody), next_step=state.next_step + 1)


def serve_event(
    setting: CacheConfig,
    costs: Costs | None,
    pass_costs: PassCosts | None,
    state: SimState,
    event: Event,
    told: ObservedStarts | None = None,
) -> tuple[SimState, Service]:
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

    window, time, times = None, None, None
    if costs is not None:
        assert pass_costs is not None
        time = serve_time(strategy, costs, pass_costs.decide, link, event, served)
        window, spent = next_gate(event.layer, setting.shape.num_layers, time, pass_costs)
        times = PassTimes(spent, time.stall)
    state = state._replace(
        cache=cache, eviction=eviction_state, prefetch=prefetch_state, routing=routing_state
    )
    now = PrefetchWindow(link, costs, flight, time, window, told)
    state, arrivals = speculate(setting, state, event, now)
    counts = count_event(setting, event, recorded, served, arrivals)
    return state, Service(event, served, tuple(arrivals), counts, times)


def serve_hits(
    setting: CacheConfig, state: SimState, event: Event, *, names: bool
) -> tuple[SimState, Counts, Bool[Array, ""]]:
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
        state, arrivals = speculate(setting, state, event, PrefetchWindow(idle_link()))
        wanted = jnp.stack([one.queued.any() for one in arrivals]).any()
    return state, count_event(setting, event, event.used, served, arrivals), wanted


def _route(setting: CacheConfig, state: SimState, event: Event) -> tuple[Event, State]:
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
