"""What a step does ahead of its event, once the demand is served.

The prefetch loop names experts, the guard weighs them, the watchdog starts what there is time for.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import row, total
from specmd_jax.core.types import ABSENT, Event, Flight, State
from specmd_jax.policies import prefetch_guard
from specmd_jax.simulator.cache import CacheConfig, PrefetchResult, Targets, prefetch, rank
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.timeline import Costs, LayerTime, LinkState, after_target, startable

NO_LIMIT = 1 << 30


class ObservedStarts(NamedTuple):
    """What happens between two gates, where it is known rather than worked out."""

    starts: Int[Array, ""]  # prefetches that begin
    outlook: prefetch_guard.Outlook | None = None  # that the guard goes by


class PrefetchWindow(NamedTuple):
    """What is known when prefetches are named; None where there is no time."""

    link: LinkState  # at the gate
    costs: Costs | None = None
    flight: Flight | None = None
    time: LayerTime | None = None
    window: Int[Array, ""] | None = None  # ticks until the next gate
    told: ObservedStarts | None = None  # None: what `costs` say


def speculate(
    setting: CacheConfig, state: SimState, event: Event, now: PrefetchWindow
) -> tuple[SimState, list[PrefetchResult]]:
    """The prefetch loop names; the watchdog starts what there is room and time for.

    Args:
      event: the one whose demand has been served.
      now: the link and the time until the next gate.
    """
    strategy, arrivals, link, told = setting.strategy, [], now.link, now.told
    link_free = jnp.int32(0) if now.time is None else now.time.link_free
    targets = _name(setting, state.prefetch, event)
    score = rank(setting, state.cache, state.eviction, event) if targets else None
    if strategy.guard:
        state = state._replace(guard=prefetch_guard.learn(state.guard, event))
    for ahead, (layer, _) in enumerate(targets, start=1):
        load, limit, expected = jnp.int32(0), NO_LIMIT, None
        if told is not None:
            limit, expected = told
        elif now.costs is not None and now.window is not None:
            load = now.costs.load[layer, -1 if strategy.miss.prefetch_last_tier else 0]
            limit = startable(link_free, now.window, load)
            expected = prefetch_guard.Outlook(now.window - link_free, load)
        if strategy.guard:
            state, targets = _guarded(setting, state, targets, ahead, expected)
        cache, eviction_state, arrived = prefetch(
            setting, state.cache, state.eviction, event, now.flight, targets, ahead, limit, score
        )
        state = state._replace(cache=cache, eviction=eviction_state)
        arrivals.append(arrived)
        link, link_free = after_target(link, link_free, layer, arrived, load)
        told = told and _after(told, total(arrived.started))
    if now.window is not None:
        state = state._replace(link=LinkState(link.flight, link_free - now.window))
    return state, arrivals


def _after(told: ObservedStarts, started: Int[Array, ""]) -> ObservedStarts:
    """Returns what is still to come when some prefetches have begun."""
    return ObservedStarts(told.starts - started, told.outlook and told.outlook.after(started))


def _guarded(
    setting: CacheConfig,
    state: SimState,
    targets: Targets,
    ahead: int,
    outlook: prefetch_guard.Outlook | None,
) -> tuple[SimState, Targets]:
    """Takes from one target's names the absent experts that are not worth their transfer."""
    layer, priority = targets[ahead - 1]
    queued = (priority > 0) & (row(state.cache.tier, layer) == ABSENT)
    allowed, learned = prefetch_guard.allow(
        setting.params.guard, state.guard, layer, ahead, queued, priority, outlook
    )
    kept = jnp.where(queued & ~allowed, 0, priority)
    targets = [*targets[: ahead - 1], (layer, kept), *targets[ahead:]]
    return state._replace(guard=learned), targets


def _name(setting: CacheConfig, prefetch_state: State, event: Event) -> Targets:
    """Returns each target layer, nearest first, with the priorities of its experts."""
    strategy, targets = setting.strategy, []
    if strategy.prefetch.select is None:
        return []
    for ahead in range(1, strategy.lookahead + 1):
        layer = (event.layer + ahead) % setting.shape.num_layers
        priority = strategy.prefetch.select(
            setting.params.prefetch, prefetch_state, event, layer, ahead
        )
        targets.append((layer, jnp.where(event.valid, priority, 0)))
    return targets
