"""Counting: what one event came to, by layer, and the sums of many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.types import Event
from specmd_jax.simulator.cache import CacheConfig, DemandResult, PrefetchResult


class Counts(NamedTuple):
    """What is counted, by layer of the expert (evictions: by layer being served)."""

    accesses: Int[Array, "*B L"]
    hits: Int[Array, "*B L"]
    collisions: Int[Array, "*B L"]
    compulsory: Int[Array, "*B L"]
    late: Int[Array, "*B L"]
    streamed: Int[Array, "*B L"]
    dropped: Int[Array, "*B L"]
    substituted: Int[Array, "*B L"]
    on_host: Int[Array, "*B L"]
    prefetch_used: Int[Array, "*B L"]
    swapped: Int[Array, "*B L"]  # experts of the bent choice that the router had not chosen
    evictions: Int[Array, "*B L"]
    queued: Int[Array, "*B L"]
    prefetched: Int[Array, "*B L"]
    loads: Int[Array, "*B L Q"]  # on demand, by tier


def no_counts(units: Int[Array, "L Q"]) -> Counts:
    """Returns the counts before the first event."""
    none = jnp.zeros(units.shape[0], jnp.int32)
    return Counts._make([none] * (len(Counts._fields) - 1) + [jnp.zeros_like(units)])


def add_pass(counts: Counts, counted: Counts) -> Counts:
    """Returns `counts` with those of one pass, whose events were counted layer by layer."""
    counted = counted._replace(
        queued=_by_target(counted.queued), prefetched=_by_target(counted.prefetched)
    )
    return jax.tree.map(jnp.add, counts, counted)


def counted_if(flag: Bool[Array, ""], counted: Counts) -> Counts:
    """Returns what was counted, or nothing."""
    return jax.tree.map(lambda values: jnp.where(flag, values, 0), counted)


def _by_target(by_source: Int[Array, "L D"]) -> Int[Array, " L"]:
    """Turns counts by (layer served, layers ahead) into counts by target layer."""
    shifted = [jnp.roll(by_source[:, d], d + 1) for d in range(by_source.shape[1])]
    return sum(shifted, jnp.zeros(by_source.shape[0], jnp.int32))


def count_event(
    setting: CacheConfig,
    event: Event,
    recorded: Bool[Array, " N"],
    served: DemandResult,
    arrivals: list[PrefetchResult],
) -> Counts:
    """Returns what one event came to.

    Args:
      recorded: the demand before the routing policy bent it.
      arrivals: of the prefetch targets, nearest layer first.
    """
    plan = served.plan
    masks = {
        "accesses": event.used,
        "hits": served.hit,
        "collisions": served.collision,
        "compulsory": served.compulsory,
        "late": served.late,
        "streamed": served.streamed,
        "dropped": plan.dropped,
        "substituted": plan.substituted,
        "on_host": plan.on_host,
        "prefetch_used": served.prefetch_hit,
        "swapped": event.used & ~recorded,
    }
    tiers = range(setting.units.shape[1])
    loads = [served.loaded & (served.tier == tier) for tier in tiers]
    moved = [mask for one in arrivals for mask in (one.queued, one.started)]
    sums = _sums([*masks.values(), *loads, *moved])
    split = len(masks) + len(loads)
    return Counts(
        **dict(zip(masks, sums, strict=False)),
        evictions=served.evictions + sum((one.evictions for one in arrivals), jnp.int32(0)),
        queued=sums[split::2],
        prefetched=sums[split + 1 :: 2],
        loads=sums[len(masks) : split],
    )


def _sums(masks: list[Bool[Array, " N"]]) -> Int[Array, " M"]:
    """Counts many masks in one reduction; as floats, which the CPU sums faster, and exactly."""
    stacked = jnp.stack(masks).astype(jnp.float32)
    return jnp.sum(stacked, axis=1).astype(jnp.int32)
