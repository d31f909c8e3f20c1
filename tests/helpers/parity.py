"""The simulator and the oracle on the same case: one compiled program for many strategies.

Compiling takes seconds and a small replay microseconds. So each program holds *all* policies of
each family, and which of them decide is a number given at run time.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specmd_jax.core.arrays import joined
from specmd_jax.core.jit import quick_options
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.base import READS as ALL_READS
from specmd_jax.policies.base import Eviction, Miss, MissPlan, Prefetch, Routing
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.miss import MISSES
from specmd_jax.policies.miss.fetch import load_all
from specmd_jax.policies.prefetch import PREFETCHES
from specmd_jax.policies.routing import ROUTINGS
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.events import next_use, upcoming
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import begin
from specmd_jax.simulator.timeline import Costs
from tests import oracle
from tests.oracle.cases import Shape


@dataclass(frozen=True)
class Program:
    """What is fixed when a strategy is compiled."""

    shape: Shape
    scope: str = "global"
    admission: str = "forced"
    timed: bool = True
    cheapest_prefetch: bool = False
    bends: bool = False  # any routing policy but the standard one
    ahead: bool = True  # any prefetcher, or else none
    touch_insert: bool = True
    touch_hit: bool = False

    def evictions(self) -> list[str]:
        fixed = {"forced": "bypass", "bypass": "forced"}[self.admission]
        return [name for name, policy in EVICTIONS.items() if policy.admission != fixed]

    def misses(self) -> list[str]:
        return [
            name
            for name, policy in MISSES.items()
            if policy.prefetch_last_tier == self.cheapest_prefetch
        ]

    def prefetches(self) -> list[str]:
        return sorted(PREFETCHES) if self.ahead else ["none"]

    def routings(self) -> list[str]:
        return [name for name in ROUTINGS if (name != "standard") == self.bends]


def any_eviction(names: list[str]) -> Eviction:
    """Returns all the named policies as one; `params` is (which, params of each)."""
    members = [EVICTIONS[name] for name in names]

    def init(params, shape):
        return tuple(m.init(p, shape) for m, p in zip(members, params[1], strict=True))

    def begin_event(params, state, event):
        return tuple(
            s if m.begin is None else m.begin(p, s, event)
            for m, p, s in zip(members, params[1], state, strict=True)
        )

    def score(params, state, cache, event):
        none = jnp.zeros(cache.tier.shape, jnp.int32)
        scores = [
            none if m.score is None else m.score(p, s, cache, event)
            for m, p, s in zip(members, params[1], state, strict=True)
        ]
        return jnp.stack(scores)[params[0]]

    def shield(params, state, cache, event):
        none = jnp.zeros(cache.tier.shape, bool)
        shields = [
            none if m.shield is None else m.shield(p, s, cache, event)
            for m, p, s in zip(members, params[1], state, strict=True)
        ]
        return jnp.stack(shields)[params[0]]

    def update(params, state, cache, event, outcome):
        return tuple(
            m.update(p, s, cache, event, outcome)
            for m, p, s in zip(members, params[1], state, strict=True)
        )

    return Eviction(init, score, update, begin=begin_event, shield=shield, reads=ALL_READS)


def any_prefetch(names: list[str]) -> Prefetch:
    members = [PREFETCHES[name] for name in names]
    if names == ["none"]:
        return members[0]

    def init(params, shape):
        return tuple(m.init(p, shape) for m, p in zip(members, params[1], strict=True))

    def select(params, state, event, layer, ahead):
        nothing = jnp.zeros(event.used.shape, jnp.int32)
        named = [
            nothing if m.select is None else m.select(p, s, event, layer, ahead)
            for m, p, s in zip(members, params[1], state, strict=True)
        ]
        return jnp.stack(named)[params[0]]

    def observe(params, state, event):
        return tuple(
            m.observe(p, s, event) for m, p, s in zip(members, params[1], state, strict=True)
        )

    return Prefetch(init, select, observe, reads=ALL_READS)


def any_miss(names: list[str], cheapest_prefetch: bool) -> Miss:
    members = [MISSES[name] for name in names]

    def plan(params, row, event, shape):
        plans = [
            load_all(row) if m.plan is None else m.plan(p, row, event, shape)
            for m, p in zip(members, params[1], strict=True)
        ]
        return MissPlan(*(jnp.stack(parts)[params[0]] for parts in zip(*plans, strict=True)))

    return Miss(plan, prefetch_last_tier=cheapest_prefetch)


def any_routing(names: list[str]) -> Routing:
    members = [ROUTINGS[name] for name in names]
    if names == ["standard"]:
        return members[0]

    def init(params, shape):
        return tuple(m.init(p, shape) for m, p in zip(members, params[1], strict=True))

    rules = [member.choose for member in members if member.choose is not None]  # all but standard

    def choose(params, state, resident, event):
        chosen = [
            rule(p, s, resident, event) for rule, p, s in zip(rules, params[1], state, strict=True)
        ]
        return jnp.stack([used for used, _ in chosen])[params[0]], tuple(s for _, s in chosen)

    return Routing(init, choose)


@lru_cache(maxsize=1)  # programs are large; tests go through them one after the other
def compiled(program: Program):
    strategy = Strategy(
        any_eviction(program.evictions()),
        any_prefetch(program.prefetches()),
        any_miss(program.misses(), program.cheapest_prefetch),
        any_routing(program.routings()),
        scope=program.scope,
        admission=program.admission,
        lookahead=program.shape.lookahead,
        touch_on_prefetch_insert=program.touch_insert,
        touch_on_prefetch_hit=program.touch_hit,
    )
    shape = ModelShape(program.shape.num_layers, program.shape.num_experts, program.shape.top_k)

    @partial(jax.jit, compiler_options=quick_options())
    def run(params, capacity, units, costs, first_use, resident, events):
        start = begin(strategy, params, shape, units, first_use, resident)
        return scan_trace(strategy, shape, params, capacity, units, costs, start, events)

    return run


def simulated(program: Program, case: oracle.Case, config: oracle.Config) -> dict[str, list]:
    """Returns the simulator's counts in the oracle's form."""
    as_int = partial(jnp.asarray, dtype=jnp.int32)
    used = np.asarray(case.routed) > 0
    costs = None
    if program.timed:
        assert config.costs is not None
        costs = Costs(**{name: as_int(value) for name, value in vars(config.costs).items()})
        costs = costs._replace(overlap=np.asarray(config.costs.overlap))
    resident = np.zeros(used.shape[1:], bool) if config.initial is None else config.initial
    state, times = compiled(program)(
        _params(program, config),
        as_int(config.capacity),
        as_int(config.units),
        costs,
        as_int(next_use(used)[1]),
        np.asarray(resident, bool),
        _events(program.shape, case, used),
    )
    assert not state.cache.broken
    counts = {name: np.asarray(value).tolist() for name, value in state.counts._asdict().items()}
    if program.timed:
        assert times is not None
        counts["ticks"] = joined(np.asarray(times.ticks)).tolist()
        counts["stall"] = joined(np.asarray(times.stall)).tolist()
    counts["residents"] = int(np.sum(np.asarray(state.cache.tier) >= 0))
    return counts


def _params(program: Program, config: oracle.Config) -> StrategyParams:
    def choice(policies, names, chosen, given):
        every = []
        for name in names:
            params = policies[name].params
            if name == chosen and given:
                params = params._replace(**given)
            every.append(_numbers(params))
        return np.int32(list(names).index(chosen)), tuple(every)

    return StrategyParams(
        choice(EVICTIONS, program.evictions(), config.eviction, config.eviction_params),
        choice(PREFETCHES, program.prefetches(), config.prefetch, config.prefetch_params),
        choice(MISSES, program.misses(), config.miss, config.miss_params),
        choice(ROUTINGS, program.routings(), config.routing, config.routing_params),
    )


def _numbers(params):
    kinds = {float: np.float32, int: np.int32, bool: np.bool_}
    return jax.tree.map(lambda value: kinds[type(value)](value), params)


def _events(shape: Shape, case: oracle.Case, used: np.ndarray) -> Events:
    def ints(values):
        return jnp.asarray(values, jnp.int32)

    layered = (*used.shape[:2], shape.lookahead, shape.num_experts)
    predicted = np.zeros(layered) if case.predicted is None else np.asarray(case.predicted)
    router = np.zeros(used.shape)
    return Events(
        tokens=ints(case.tokens),
        prefill=jnp.asarray(case.prefill, bool),
        fresh=jnp.asarray(case.fresh, bool),
        valid=jnp.ones(len(case.tokens), bool),
        routed=ints(case.routed),
        gate=ints(case.gate),
        next_use=ints(next_use(used)[0]),
        upcoming=jnp.asarray(upcoming(used, shape.lookahead)),
        predicted=ints(predicted[:, :, : shape.lookahead]),
        logits=ints(router if case.logits is None else case.logits),
        probs=ints(router if case.probs is None else case.probs),
    )


def expected(case: oracle.Case, config: oracle.Config, timed: bool) -> dict[str, Any]:
    result = oracle.simulate(case, config)
    names = [
        "accesses", "hits", "collisions", "compulsory", "late", "streamed", "dropped",
        "substituted", "on_host", "prefetch_used", "swapped", "evictions", "queued", "prefetched",
        "loads",
    ]  # fmt: skip
    counts: dict[str, Any] = {name: list(getattr(result, name)) for name in names}
    if timed:
        counts["ticks"], counts["stall"] = list(result.ticks), list(result.stall)
    counts["residents"] = len(result.events[-1].after_prefetch)
    return counts
