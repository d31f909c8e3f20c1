"""Routing policies: which experts a token takes, knowing what is resident (section 7)."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from tests.oracle.arithmetic import by_value, f32, fixed, share, with_defaults
from tests.oracle.data import Case, Event


class Standard:
    """As recorded."""

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        self.params = with_defaults(self.defaults, params)

    def route(self, now: Event, resident: set[int]) -> Event:
        """Returns the event with what the policy lets it demand."""
        return now


class BentRouting(Standard):
    """What the three cache-aware policies share: only single tokens are routed anew."""

    def route(self, now: Event, resident: set[int]) -> Event:
        assert now.logits is not None and now.probs is not None, "needs logits and probabilities"
        if now.tokens != 1:
            return now
        order = self.order(now, now.logits, now.probs, resident)
        chosen = sorted(order[: len(now.recorded)])
        experts = range(len(now.routed))
        return replace(
            now,
            demand=tuple(chosen),
            routed=[int(expert in chosen) for expert in experts],
            gate=[now.probs[expert] if expert in chosen else 0 for expert in experts],
        )

    def order(
        self, now: Event, logits: list[int], probs: list[int], resident: set[int]
    ) -> list[int]:
        """Returns all experts, the preferred first; runs once for every event of one token."""
        raise NotImplementedError


class CachePrior(BentRouting):
    defaults: ClassVar[dict[str, Any]] = {"lam": 0.3, "top_j": 1, "use_mean": False}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.events: Counter[int] = Counter()  # by layer
        self.spread = defaultdict(lambda: f32(0))  # summed over them, by layer

    def order(
        self, now: Event, logits: list[int], probs: list[int], resident: set[int]
    ) -> list[int]:
        bonus = fixed(f32(self.params["lam"]) * self._spread(now.layer, logits), 0)
        favoured = resident.union(by_value(logits)[: self.params["top_j"]])
        return by_value([z + bonus * (i in favoured) for i, z in enumerate(logits)])

    def _spread(self, layer: int, logits: list[int]):
        mean = self.params["use_mean"]
        x = sum(logits) // len(logits) if mean else max(logits) - min(logits)
        self.events[layer] += 1
        self.spread[layer] += f32(x)
        return share(self.spread[layer], self.events[layer])


class MaxRank(BentRouting):
    defaults: ClassVar[dict[str, Any]] = {"top_j": 1, "max_rank": 12}

    def order(
        self, now: Event, logits: list[int], probs: list[int], resident: set[int]
    ) -> list[int]:
        ranked = by_value(logits)
        first = ranked[: self.params["top_j"]]
        eligible = resident.intersection(self.eligible(ranked, probs))
        second = [i for i in ranked if i in eligible and i not in first]
        rest = [i for i in ranked if i not in first and i not in second]
        return [*first, *second, *rest]

    def eligible(self, ranked: list[int], probs: list[int]) -> list[int]:
        return ranked[: self.params["max_rank"]]


class CumulativeMass(MaxRank):
    defaults: ClassVar[dict[str, Any]] = {"top_j": 1, "mass": 0.8}

    def eligible(self, ranked: list[int], probs: list[int]) -> list[int]:
        wanted = f32(self.params["mass"]) * f32(sum(probs))
        before = [sum(probs[i] for i in ranked[:rank]) for rank in range(len(ranked))]
        return [i for i, mass in zip(ranked, before, strict=True) if f32(mass) < wanted]
