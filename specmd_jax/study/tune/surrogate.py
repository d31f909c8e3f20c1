"""A gradient for evictions whose score is linear in its weights, from one hard replay.

The replay is exact; only the choice of a victim is looked at softly, one event at a time: with
scores s = sum w_i f_i, a candidate leaves with chance softmin(s / T), and costs exp(-d / H) if it
is next demanded d events later. H is a share of how many events copies stay, by Little's law: one
that is not demanded before would have left anyway. The slope of that expected cost,

  d/dw_i sum pi c = -(E[c f_i] - E[c] E[f_i]) / T,

is summed over events, times the copies that must leave. State is carried on as it is, so nothing is
differentiated through time: a soft cache diverges within a thousand steps.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.arrays import row, total
from specmd_jax.core.types import Event, Events, ModelShape
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.policies.base import NEXT_USE
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.cache import CacheConfig
from specmd_jax.simulator.events import dense_events, first_use
from specmd_jax.simulator.state import SimState, begin
from specmd_jax.simulator.step import begin_pass, serve_event
from specmd_jax.study.resolve import resolve
from specmd_jax.study.setup import Setup
from specmd_jax.study.tune.knobs import Knob, values_at
from specmd_jax.traces import Trace

SOFTNESS = 0.2  # temperature, in standard deviations of the candidates' scores
EDGE = 0.25  # of the time that copies stay on average: as long as those do that are about to leave
_SCALE = 1 << 20  # of scores in fixed point


class _Sum(NamedTuple):
    """What the events so far came to."""

    slope: Float[Array, " D"]
    present: Float[Array, ""]  # copies on the device, summed over events
    left: Float[Array, ""]  # copies that had to leave


def has_surrogate(setup: Setup, knobs: tuple[Knob, ...]) -> bool:
    """Says whether every knob is a weight of an eviction that is linear in its weights."""
    weights = {f"eviction.{name}" for name in setup.strategy.eviction.weights}
    return bool(weights) and all(knob.name in weights for knob in knobs)


class Surrogate:
    """The gradient of the expected eviction cost of a trace, at any setting of the knobs."""

    def __init__(
        self, trace: Trace, setup: Setup, knobs: tuple[Knob, ...], spec: ModelSpec | None = None
    ):
        _, copies, capacity, _ = resolve(setup, trace, spec)
        strategy = setup.strategy
        events = dense_events(trace, strategy.reads | {NEXT_USE}, strategy.lookahead)
        self._static = (strategy.structure, trace.shape, tuple(k.name for k in knobs))
        self._fixed = (
            jax.tree.map(jnp.asarray, setup.params),
            jnp.asarray(capacity.units, jnp.int32),
            jnp.asarray(copies.units, jnp.int32),
            jnp.asarray(first_use(events)),
            jax.tree.map(jnp.asarray, events),
        )
        self._knobs = knobs

    def __call__(self, places: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "B D"]:
        """Returns the slope along each knob's range, up to a common positive factor."""
        values = jnp.asarray(values_at(self._knobs, places), jnp.float32)
        width = np.asarray([knob.high - knob.low for knob in self._knobs])
        return np.asarray(_slopes(*self._static, *self._fixed, values), np.float64) * width


@partial(jax.jit, static_argnums=(0, 1, 2))
def _slopes(
    strategy: Strategy,
    shape: ModelShape,
    names: tuple[str, ...],
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    future: Int[Array, "L N"],
    events: Events,
    values: Float[Array, "B D"],
) -> Float[Array, "B D"]:
    def one(weights: Float[Array, " D"]) -> Float[Array, " D"]:
        changed = {name.split(".")[1]: weight for name, weight in zip(names, weights, strict=True)}
        mine = params._replace(eviction=params.eviction._replace(**changed))
        setting = CacheConfig(strategy, shape, mine, capacity, units)
        state = begin(strategy, mine, shape, units, future)
        return _replay(setting, names, weights, state, events)

    return jax.vmap(one)(values)


def _replay(
    setting: CacheConfig,
    names: tuple[str, ...],
    weights: Float[Array, " D"],
    state: SimState,
    events: Events,
) -> Float[Array, " D"]:
    once = {"tokens", "prefill", "fresh", "valid"}
    layers = jnp.arange(setting.shape.num_layers, dtype=jnp.int32)

    def one_pass(carry: tuple[SimState, _Sum], inputs: tuple[Array, Events]):
        (state, so_far), (step, rows) = carry, inputs
        state = begin_pass(state)
        by_layer = rows._replace(**dict.fromkeys(once))

        def one_layer(carry, inputs):
            (state, so_far), (layer, row_) = carry, inputs
            event = _event_of(setting.shape, step, layer, rows, row_)
            so_far = _add_event(setting, names, weights, state, event, so_far)
            return (serve_event(setting, None, None, state, event)[0], so_far), None

        carry, _ = jax.lax.scan(one_layer, (state, so_far), (layers, by_layer))
        return carry, None

    steps = jnp.arange(events.tokens.shape[0], dtype=jnp.int32)
    nothing = _Sum(jnp.zeros_like(weights), jnp.float32(0), jnp.float32(0))
    (_, so_far), _ = jax.lax.scan(one_pass, (state, nothing), (steps, events))
    return so_far.slope


def _event_of(
    shape: ModelShape, step: Int[Array, ""], layer: Int[Array, ""], whole: Events, rows: Events
) -> Event:
    own = {name: getattr(rows, name) for name in Event._fields if name in Events._fields}
    own |= {name: getattr(whole, name) for name in ("tokens", "prefill", "valid")}
    clock = step * shape.num_layers + layer
    return Event(
        **own | {"fresh": whole.fresh & (layer == 0)},
        clock=clock,
        step=step,
        layer=layer,
        used=rows.routed > 0,
    )


def _add_event(
    setting: CacheConfig,
    names: tuple[str, ...],
    weights: Float[Array, " D"],
    state: SimState,
    event: Event,
    so_far: _Sum,
) -> _Sum:
    """Adds the slope of one event's expected cost, times the copies that must leave."""
    features = jnp.stack([_feature(setting, name, state, event) for name in names])
    score = jnp.tensordot(weights, features, axes=1)
    layers = jnp.arange(setting.shape.num_layers)[:, None]
    resident = state.cache.tier >= 0
    candidates = resident & ~((layers == event.layer) & event.used)
    if setting.strategy.scope == "layer":
        candidates = candidates & (layers == event.layer)
    chance = _softmin(score, candidates)
    assert state.cache.next_use is not None
    missing = total(event.used & ~(row(state.cache.tier, event.layer) >= 0))
    pool = 0 if setting.capacity.shape[0] == 1 else event.layer
    size = setting.units[event.layer, 0]
    room = (setting.capacity[pool] - state.cache.occupied[pool]) // size
    leaving = jnp.where(event.valid, jnp.maximum(missing - room, 0), 0)
    left, present = so_far.left + leaving, so_far.present + total(resident)
    stay = EDGE * jnp.maximum(present, 1) / jnp.maximum(left, 1)
    waits = (state.cache.next_use - event.clock).astype(jnp.float32)
    cost = jnp.exp(-waits / stay)
    mean = jnp.sum(chance * features, axis=(1, 2))
    covariance = jnp.sum(chance * cost * features, axis=(1, 2)) - jnp.sum(chance * cost) * mean
    slope = so_far.slope - leaving * covariance / _temperature(score, candidates)
    return _Sum(slope, present, left)


def _feature(setting: CacheConfig, name: str, state: SimState, event: Event) -> Float[Array, "L N"]:
    """What a weight multiplies: the score with that weight 1 and all others 0."""
    params: Any = setting.params.eviction
    alone = params._replace(**dict.fromkeys(params._fields, 0.0))._replace(
        **{name.split(".")[1]: 1.0}
    )
    assert setting.strategy.eviction.score is not None
    score = setting.strategy.eviction.score(alone, state.eviction, state.cache, event)
    return score.astype(jnp.float32) / _SCALE


def _temperature(score: Float[Array, "L N"], candidates: Bool[Array, "L N"]) -> Float[Array, ""]:
    count = jnp.maximum(total(candidates), 1)
    mean = jnp.sum(jnp.where(candidates, score, 0)) / count
    spread = jnp.sum(jnp.where(candidates, (score - mean) ** 2, 0)) / count
    return jnp.maximum(SOFTNESS * jnp.sqrt(spread), 1e-6)


def _softmin(score: Float[Array, "L N"], candidates: Bool[Array, "L N"]) -> Float[Array, "L N"]:
    soft = -score / _temperature(score, candidates)
    soft = jnp.where(candidates, soft, -jnp.inf)
    grown = jnp.exp(soft - jnp.max(jnp.where(candidates, soft, -1e30)))
    weight = jnp.where(candidates, grown, 0)
    return weight / jnp.maximum(jnp.sum(weight), 1e-30)
