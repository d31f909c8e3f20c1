"""Miss policies: what becomes of a demanded expert that is not there (section 6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.oracle.arithmetic import f32, with_defaults
from tests.oracle.cache import Cache
from tests.oracle.data import Case, Event


@dataclass
class Fates:
    """One fate for each miss, and the resident experts that stand in."""

    loads: dict[int, int] = field(default_factory=dict)  # expert: tier
    dropped: set[int] = field(default_factory=set)
    substituted: set[int] = field(default_factory=set)
    on_host: set[int] = field(default_factory=set)
    substitutes: set[int] = field(default_factory=set)


class Fetch:
    """Loads at tier 0."""

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        self.params = with_defaults(self.defaults, params)
        self.top_k = case.top_k

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        return Fates(loads=dict.fromkeys(misses, 0))


class FetchLowestBit(Fetch):
    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        return Fates(loads=dict.fromkeys(misses, last_tier(cache)))


class FetchPriority(Fetch):
    defaults: ClassVar[dict[str, Any]] = {"low": 0.6}

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        order = by_importance(now)
        num_low = math.floor(f32(self.params["low"]) * f32(len(order)))
        low = set(order[len(order) - num_low :])
        last = last_tier(cache)
        loads = {}
        for base in range(last + 1):
            loads = {expert: min(last, base + (expert in low)) for expert in misses}
            if self._fit(loads, now, cache):
                break
        return Fates(loads=loads)

    def _fit(self, loads: dict[int, int], now: Event, cache: Cache) -> bool:
        demanded = [(now.layer, expert) for expert in now.demand]
        hits = [copy for copy in demanded if cache.is_ready(copy)]
        units = sum(cache.sizes[now.layer][tier] for tier in loads.values())
        return cache.taken_by(hits) + units <= cache.capacity[cache.pool_of(now.layer)]


class DropPriority(Fetch):
    defaults: ClassVar[dict[str, Any]] = {"keep": 2}

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        kept = -(-self.params["keep"] * len(now.demand) // self.top_k)
        important = by_importance(now)[:kept]
        loads = {expert: 0 for expert in misses if expert in important}
        return Fates(loads=loads, dropped=set(misses) - loads.keys())


class DropPriorityCascade(Fetch):
    defaults: ClassVar[dict[str, Any]] = {"high": 0.6, "low": 0.9}

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        total = f32(sum(now.gate[expert] for expert in now.demand))
        order = by_importance(now)
        loads = {}
        for expert in misses:
            before = f32(sum(now.gate[other] for other in order[: order.index(expert)]))
            if before <= f32(self.params["high"]) * total:
                loads[expert] = 0
            elif before <= f32(self.params["low"]) * total:
                loads[expert] = min(last_tier(cache), 1)
        return Fates(loads=loads, dropped=set(misses) - loads.keys())


class Substitute(Fetch):
    defaults: ClassVar[dict[str, Any]] = {"alpha": 0.3}

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        outside = [i for i in range(len(now.routed)) if i not in now.demand]
        stand_ins = [i for i in outside if cache.is_ready((now.layer, i))]
        replaceable, stand_ins = self.eligible(misses, outside, stand_ins, now)
        count = min(len(replaceable), len(stand_ins))
        substituted = set(by_probability(replaceable, now)[:count])
        return Fates(
            loads={expert: 0 for expert in misses if expert not in substituted},
            substituted=substituted,
            substitutes=set(by_probability(stand_ins, now)[:count]),
        )

    def eligible(self, misses: list[int], outside: list[int], stand_ins: list[int], now: Event):
        probs = now.probs
        assert probs is not None, "substitution needs router probabilities"
        best = f32(max((probs[i] for i in outside), default=0))
        alpha, one = f32(self.params["alpha"]), f32(1)
        replaceable = [i for i in misses if f32(probs[i]) <= (one + alpha) * best]
        return replaceable, [i for i in stand_ins if f32(probs[i]) > (one - alpha) * best]


class SubstituteUnbounded(Substitute):
    defaults: ClassVar[dict[str, Any]] = {}

    def eligible(self, misses: list[int], outside: list[int], stand_ins: list[int], now: Event):
        return misses, stand_ins


class Cpu(Fetch):
    defaults: ClassVar[dict[str, Any]] = {"break_even": 10}

    def fates(self, misses: list[int], now: Event, cache: Cache) -> Fates:
        on_host = {expert for expert in misses if now.routed[expert] <= self.params["break_even"]}
        loads = {expert: 0 for expert in misses if expert not in on_host}
        return Fates(loads=loads, on_host=on_host)


def last_tier(cache: Cache) -> int:
    return len(cache.sizes[0]) - 1


def by_importance(now: Event) -> list[int]:
    return sorted(now.demand, key=lambda expert: (-now.gate[expert], expert))


def by_probability(experts: list[int], now: Event) -> list[int]:
    probs = now.probs
    assert probs is not None, "substitution needs router probabilities"
    return sorted(experts, key=lambda expert: (-probs[expert], expert))
