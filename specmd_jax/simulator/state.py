"""What a cache, its policies and its link have come to between two events."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome, State
from specmd_jax.policies import prefetch_guard
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.cache import empty_cache, warm
from specmd_jax.simulator.counts import Counts, no_counts
from specmd_jax.simulator.timeline import LinkState, idle_link


class SimState(NamedTuple):
    """The state between two passes: what a chunk of a trace hands to the next."""

    cache: CacheState
    eviction: State
    prefetch: State
    routing: State
    link: LinkState
    counts: Counts
    prefill: Counts  # of these, in passes of prefill
    next_step: Int[Array, ""]
    guard: State = ()


def begin(
    strategy: Strategy,
    params: StrategyParams,
    shape: ModelShape,
    units: Int[Array, "L Q"],
    first_use: Int[Array, "L N"] | None = None,
    resident: Bool[Array, "L N"] | None = None,
) -> SimState:
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
    return SimState(
        cache,
        eviction_state,
        strategy.prefetch.init(params.prefetch, shape),
        strategy.routing.init(params.routing, shape),
        idle_link(),
        no_counts(units),
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
            selected=nobody, inserted=inserted, evicted=jnp.zeros(cache.tier.shape, bool),
        )  # fmt: skip
        return strategy.eviction.update(params.eviction, state, cache, event, outcome), None

    layers = jnp.arange(shape.num_layers, dtype=jnp.int32)
    return jax.lax.scan(insert, eviction_state, layers)[0]
