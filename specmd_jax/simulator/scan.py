"""Replay: a scan over passes and layers of the same steps that the runtime takes.

`strategy` and the model's shape are static; parameters, capacities, sizes and costs are traced,
so that `jax.vmap` over any of them is a sweep.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import two_word_total
from specmd_jax.core.types import Event, Events, ModelShape
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.cache import CacheConfig
from specmd_jax.simulator.counts import add_pass, counted_if
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.step import PassTimes, begin_pass, serve_event
from specmd_jax.simulator.timeline import Costs, PassCosts


def scan_trace(
    strategy: Strategy,
    shape: ModelShape,
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    costs: Costs | None,
    state: SimState,
    events: Events,
) -> tuple[SimState, PassTimes | None]:
    """Serves every event of `events` in order; pure, jittable, vmappable.

    Args:
      capacity: units of each pool: one with global scope, else one a layer.
      units: size of one copy, by layer and tier.
      costs: None: an infinitely fast link and no time. Their arrays over passes may have one entry
        more than `events`, for the pass that follows.

    Returns:
      The state after the last pass, and the times of each in two words, see `arrays.joined`.
    """
    setting = CacheConfig(strategy, shape, params, capacity, units)
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
    setting: CacheConfig,
    costs: Costs | None,
    state: SimState,
    one: tuple[Int[Array, ""], Events, PassCosts | None],
) -> tuple[SimState, PassTimes | None]:
    step, events, pass_costs = one
    state = begin_pass(state)
    whole, by_layer = split_pass(events)
    layers = jnp.arange(setting.shape.num_layers, dtype=jnp.int32)

    def one_layer(state, inputs):
        layer, rows = inputs
        event = event_of(setting.shape, step, layer, whole, rows)
        state, service = serve_event(setting, costs, pass_costs, state, event)
        return state, (service.counts, service.times)

    state, (counted, times) = jax.lax.scan(one_layer, state, (layers, by_layer))
    state = state._replace(
        counts=add_pass(state.counts, counted),
        prefill=add_pass(state.prefill, counted_if(events.prefill, counted)),
    )
    return state, jax.tree.map(two_word_total, times)


def split_pass(events: Events) -> tuple[Events, Events]:
    """Separates what a pass has once from what it has by layer."""
    once = {"tokens", "prefill", "fresh", "valid"}
    whole = events._replace(**dict.fromkeys(set(Events._fields) - once))
    return whole, events._replace(**dict.fromkeys(once))


def event_of(
    shape: ModelShape, step: Int[Array, ""], layer: Int[Array, ""], whole: Events, rows: Events
) -> Event:
    """Returns one event of a pass.

    Args:
      step: the pass.
      whole, rows: of `split_pass`, the latter at `layer`.
    """
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
