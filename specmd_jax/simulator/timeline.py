"""The paper's three loops as a pure function of time: main, prefetch, watchdog (SpecMD, Figure 2).

All times are whole ticks relative to the gate of the event being served, so that nothing drifts
and two programs agree to the last tick. Those of one event fit an int32, see `pricing`; sums of
several need not. docs/semantics.md, section 8.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row, total
from specmd_jax.core.types import Event, Flight
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.cache import DemandResult, PrefetchResult


class Costs(NamedTuple):
    """What everything takes, in ticks. Traced: a batch of them is a sweep over machines."""

    attention: Int[Array, " P"]  # attention, router and norms of one layer of the pass
    shared: Int[Array, " P"]  # shared experts and dense layers, per MoE layer
    head: Int[Array, " P"]  # after the last layer
    expert_memory: Int[Array, " Q"]  # reading one expert's weights, by tier
    expert_per_1024: Int[Array, ""]  # arithmetic of one expert for 1024 tokens
    host_memory: Int[Array, ""]  # the same two on the host
    host_per_1024: Int[Array, ""]
    load: Int[Array, "L Q"]  # one transfer to the device, latency included
    overlap: Bool[Array, ""]  # do residents compute while misses load?
    # What software takes besides; None: no time.
    arrive: Int[Array, ""] | None = None  # longer, for an expert that arrives
    decide: Int[Array, " P"] | None = None  # for a decision, on the host, beside the loads


class PassCosts(NamedTuple):
    """The costs that depend on how many tokens a pass computes."""

    attention: Int[Array, ""]
    next_attention: Int[Array, ""]  # of the pass that follows
    shared: Int[Array, ""]
    head: Int[Array, ""]
    decide: Int[Array, ""] | None = None


class LinkState(NamedTuple):
    """The host-to-device link as the gate of an event fires."""

    flight: Flight
    busy: Int[Array, ""]  # ticks until the copy in flight has landed, at most 0 if it has


class LayerTime(NamedTuple):
    done: Int[Array, ""]  # when the layer's experts, on the device and on the host, are computed
    stall: Int[Array, ""]  # of this, waiting for the link
    link_free: Int[Array, ""]  # when it can begin what is queued behind the demand loads


NOTHING = -1


def idle_link() -> LinkState:
    return LinkState(Flight(jnp.int32(NOTHING), jnp.int32(0)), jnp.int32(0))


def at_gate(link: LinkState) -> LinkState:
    """Returns the link with a copy that has landed taken off it."""
    landed = link.busy <= 0
    layer = jnp.where(landed, NOTHING, link.flight.layer)
    return LinkState(Flight(layer, link.flight.expert), jnp.maximum(link.busy, 0))


def serve_time(
    strategy: Strategy,
    costs: Costs,
    decide: Int[Array, ""] | None,
    link: LinkState,
    event: Event,
    served: DemandResult,
) -> LayerTime:
    """The main loop: residents compute while misses load, each expert as soon as it is there.

    The loads are on their way while the host decides; residents wait for that.

    Args:
      costs: of one configuration, in ticks.
      decide: ticks of a decision on the host; None: it takes no time.
      link: at this gate.
      served: what became of the demand of `event`.
    """
    compute = _device_ticks(costs, event, served)
    load = row(costs.load, event.layer)[jnp.maximum(served.tier, 0)]
    arrival = link.busy + jnp.cumsum(jnp.where(served.loaded, load, 0))
    decided = _decided(strategy, decide, event, served)
    link_free = jnp.maximum(arrival[-1], decided)
    arrival = jnp.where(served.late, link.busy, arrival)
    busy = total(compute)
    end = jnp.where(
        costs.overlap,
        _overlapped_end(decided + busy, compute, served, arrival),
        jnp.maximum(decided, jnp.max(jnp.where(served.arrives, arrival, 0))) + busy,
    )
    host = decided + total(_host_ticks(costs, event, served))
    return LayerTime(jnp.maximum(end, host), end - busy - decided, link_free)


def _decided(
    strategy: Strategy, decide: Int[Array, ""] | None, event: Event, served: DemandResult
) -> Int[Array, ""]:
    """When the decision is made: nobody decides where all is found and nothing may be named."""
    if decide is None:
        return jnp.int32(0)
    if strategy.prefetches:
        return decide
    return jnp.where((event.used & ~served.hit).any(), decide, 0)


def _overlapped_end(
    alone: Int[Array, ""],
    compute: Int[Array, " N"],
    served: DemandResult,
    arrival: Int[Array, " N"],
) -> Int[Array, ""]:
    """When the last expert is done: for some arrival, all that follows ran without a gap.

    Args:
      alone: when all were done if none had to be waited for.
    """
    waits = jnp.where(served.loaded, compute, 0)
    following = jnp.cumsum(waits[::-1])[::-1]  # this load's own compute and that of later ones
    late = jnp.where(served.late, compute, 0)  # the copy in flight lands before any load
    after = jnp.where(served.late, total(waits) + late, following)
    return jnp.maximum(alone, jnp.max(jnp.where(served.arrives, arrival + after, 0)))


def _device_ticks(costs: Costs, event: Event, served: DemandResult) -> Int[Array, " N"]:
    tokens = jnp.where(served.plan.stand_in, 1, event.routed)
    arithmetic = _for_tokens(tokens, costs.expert_per_1024)
    memory = costs.expert_memory[jnp.maximum(served.tier, 0)]
    ticks = jnp.maximum(memory, arithmetic)
    if costs.arrive is not None:
        ticks = ticks + jnp.where(served.arrives, costs.arrive, 0)
    return jnp.where(served.used, ticks, 0)


def _host_ticks(costs: Costs, event: Event, served: DemandResult) -> Int[Array, " N"]:
    arithmetic = _for_tokens(event.routed, costs.host_per_1024)
    ticks = jnp.maximum(costs.host_memory, arithmetic)
    return jnp.where(served.plan.on_host, ticks, 0)


def _for_tokens(tokens: Int[Array, " N"], per_1024: Int[Array, ""]) -> Int[Array, " N"]:
    """Returns (tokens * per_1024) >> 10, whose product int32 does not hold."""
    return tokens * (per_1024 >> 10) + ((tokens * (per_1024 & 1023)) >> 10)


def next_gate(
    layer: Int[Array, ""], num_layers: int, time: LayerTime, costs: PassCosts
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns when the next gate fires, and the ticks this event adds to its pass.

    Args:
      time: of the layer's experts.
      costs: of this pass.
    """
    last = layer == num_layers - 1
    rest = time.done + costs.shared + jnp.where(last, costs.head, 0)
    attention = jnp.where(last, costs.next_attention, costs.attention)
    return rest + attention, rest + costs.attention


def startable(
    link_free: Int[Array, ""], window: Int[Array, ""], load: Int[Array, ""]
) -> Int[Array, ""]:
    """The watchdog: how many transfers of `load` ticks begin before the next gate fires."""
    unlimited = jnp.int32(1 << 30)
    one_after_another = -(-(window - link_free) // jnp.maximum(load, 1))
    at_once = (link_free < window) | (link_free == 0)
    count = jnp.where(load > 0, one_after_another, jnp.where(at_once, unlimited, 0))
    return jnp.maximum(count, 0)


def after_target(
    link: LinkState,
    link_free: Int[Array, ""],
    layer: Int[Array, ""],
    arrived: PrefetchResult,
    load: Int[Array, ""],
) -> tuple[LinkState, Int[Array, ""]]:
    """Returns the link with the last transfer started on it, and when that one ends.

    Args:
      link_free: ticks from this gate until the link can take another transfer.
      layer: the target, of which `arrived` are started.
      load: ticks of one of these transfers.
    """
    started = total(arrived.started)
    flight = Flight(
        jnp.where(started > 0, layer, link.flight.layer),
        jnp.where(started > 0, arrived.last, link.flight.expert),
    )
    link_free = link_free + started * load
    return LinkState(flight, link_free), link_free
