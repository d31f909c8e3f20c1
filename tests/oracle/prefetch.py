"""Prefetchers: what to bring for the layer `ahead` of the one being served (section 4)."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tests.oracle.arithmetic import by_value, f32, fixed, hash_of, with_defaults
from tests.oracle.data import Case, Event


class Prefetcher:
    """Names nothing."""

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        self.params = with_defaults(self.defaults, params)
        self.case, self.lookahead = case, lookahead
        self.num_layers, self.num_experts = case.num_layers, case.num_experts

    def target(self, now: Event, ahead: int) -> int:
        return (now.layer + ahead) % self.num_layers

    def observe(self, now: Event) -> None:
        """Takes note of an event that has been served; runs before `names`."""

    def names(self, now: Event, ahead: int) -> list[int]:
        """Returns experts of the target layer, the most urgent first."""
        return []


class NextGate(Prefetcher):
    """The other gate predictors differ from it in how many of the best they name."""

    defaults: ClassVar[dict[str, Any]] = {"overfetch": 1.0}

    def names(self, now: Event, ahead: int) -> list[int]:
        assert now.predicted is not None, "needs recorded predictions"
        values = now.predicted[ahead - 1]
        best = by_value(values)[: self.width(values, now, ahead)]
        return [expert for expert in best if values[expert] > 0]

    def width(self, values: list[int], now: Event, ahead: int) -> int:
        return overfetched(self.params["overfetch"], now)


class NextGateQuantile(NextGate):
    defaults: ClassVar[dict[str, Any]] = {"quantile": 0.8}

    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        super().__init__(case, params, lookahead)
        self.bins: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)

    def observe(self, now: Event) -> None:
        assert now.predicted is not None, "needs recorded predictions"
        for ahead in range(1, self.lookahead + 1):
            seen = self.bins[self.target(now, ahead), ahead]
            seen.update(bin_of(value) for value in now.predicted[ahead - 1])

    def width(self, values: list[int], now: Event, ahead: int) -> int:
        threshold = self._quantile_bin(self.bins[self.target(now, ahead), ahead])
        return sum(bin_of(value) > threshold for value in values)

    def _quantile_bin(self, seen: Counter[int]) -> int:
        wanted = f32(self.params["quantile"]) * f32(seen.total())
        below = 0
        for number in range(512):
            below += seen[number]
            if f32(below) >= wanted:
                return number
        return 511


class NextGateMass(NextGate):
    defaults: ClassVar[dict[str, Any]] = {"mass": 0.8}

    def width(self, values: list[int], now: Event, ahead: int) -> int:
        wanted = f32(self.params["mass"]) * f32(sum(values))
        best = by_value(values)
        before = [sum(values[expert] for expert in best[:rank]) for rank in range(len(best))]
        return len([mass for mass in before if f32(mass) < wanted])


class NextGatePercentile(NextGate):
    defaults: ClassVar[dict[str, Any]] = {"percentile": 0.8}

    def width(self, values: list[int], now: Event, ahead: int) -> int:
        others = self.num_experts - 1
        return others - math.floor(f32(self.params["percentile"]) * f32(others))


class Previous(Prefetcher):
    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        super().__init__(case, params, lookahead)
        self.latest: dict[int, tuple[int, ...]] = {}  # the latest demand of a layer

    def observe(self, now: Event) -> None:
        self.latest[now.layer] = now.demand

    def names(self, now: Event, ahead: int) -> list[int]:
        return [] if now.step == 0 else list(self.latest[self.target(now, ahead)])


class Hottest(Prefetcher):
    defaults: ClassVar[dict[str, Any]] = {"overfetch": 1.0}

    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        super().__init__(case, params, lookahead)
        self.demands: dict[int, Counter[int]] = defaultdict(Counter)  # layer, expert

    def observe(self, now: Event) -> None:
        self.demands[now.layer].update(now.demand)

    def names(self, now: Event, ahead: int) -> list[int]:
        best = by_value(self.demands[self.target(now, ahead)])
        return best[: overfetched(self.params["overfetch"], now)]


class Transition(Prefetcher):
    defaults: ClassVar[dict[str, Any]] = {"overfetch": 1.0}

    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        super().__init__(case, params, lookahead)
        self.demands: list[tuple[int, ...]] = []  # by event
        # (ahead, layer, expert): how often each expert was demanded so far ahead of it
        self.followers: dict[tuple[int, int, int], Counter[int]] = defaultdict(Counter)

    def observe(self, now: Event) -> None:
        self.demands.append(now.demand)
        for ahead in range(1, min(self.lookahead, now.index) + 1):
            layer = (now.index - ahead) % self.num_layers
            for expert in self.demands[now.index - ahead]:
                self.followers[ahead, layer, expert].update(now.demand)

    def names(self, now: Event, ahead: int) -> list[int]:
        total: Counter[int] = Counter()
        for expert in now.demand:
            total.update(self.followers[ahead, now.layer, expert])
        return by_value(total)[: overfetched(self.params["overfetch"], now)]


class ActivationMatrix(Prefetcher):
    """MoE-Infinity: what the most similar of the latest requests demanded (section 4.1)."""

    places = 32

    def __init__(self, case: Case, params: Mapping[str, Any], lookahead: int):
        super().__init__(case, params, lookahead)
        self.running = self._empty()
        self.store: dict[int, list[list[int]]] = {}  # place: matrix
        self.stored = 0  # so far, the replaced ones included

    def _empty(self) -> list[list[int]]:
        return [[0] * self.num_experts for _ in range(self.num_layers)]

    def observe(self, now: Event) -> None:
        if now.fresh:
            if self.running != self._empty():
                self.store[self.stored % self.places] = self.running
                self.stored += 1
            self.running = self._empty()
        for expert in now.demand:
            self.running[now.layer][expert] += 1

    def names(self, now: Event, ahead: int) -> list[int]:
        if not self.store:
            return []
        similarity = {place: self._similarity(place, now.layer) for place in self.store}
        row = self.store[by_value(similarity)[0]][self.target(now, ahead)]
        return [expert for expert in by_value(row) if row[expert] > 0]

    def _similarity(self, place: int, layer: int) -> int:
        rows = list(zip(self.running, self.store[place], strict=True))[: layer + 1]
        return sum(fixed(cosine(mine, stored), 12) for mine, stored in rows)


class Oracle(Prefetcher):
    """Knows what the trace recorded for the target."""

    def names(self, now: Event, ahead: int) -> list[int]:
        step = (now.index + ahead) // self.num_layers
        if step >= len(self.case.routed):
            return []
        routed = self.case.routed[step][self.target(now, ahead)]
        return [expert for expert in range(self.num_experts) if routed[expert] > 0]


class NoisyOracle(Oracle):
    defaults: ClassVar[dict[str, Any]] = {"recall": 0.9, "precision": 0.9, "seed": 0}

    def names(self, now: Event, ahead: int) -> list[int]:
        if (now.index + ahead) // self.num_layers >= len(self.case.routed):
            return []
        demanded = super().names(now, ahead)
        right, wrong = f32(self.params["recall"]), self._false_alarm(len(demanded))
        return [
            expert
            for expert in range(self.num_experts)
            if self._draw(now, ahead, expert) < (right if expert in demanded else wrong)
        ]

    def _draw(self, now: Event, ahead: int, expert: int) -> np.float32:
        bits = hash_of(self.params["seed"], now.index + ahead, ahead, expert) >> 8
        return f32(bits) / f32(1 << 24)

    def _false_alarm(self, demanded: int) -> np.float32:
        others = self.num_experts - demanded
        if others == 0:
            return f32(0)
        recall, precision = f32(self.params["recall"]), f32(self.params["precision"])
        right = recall * f32(demanded) * (f32(1) - precision)
        chance = right * (f32(1) / (precision * f32(others)))
        return min(chance, f32(1))


def overfetched(overfetch: float, now: Event) -> int:
    return math.ceil(f32(overfetch) * f32(len(now.demand)))


def bin_of(value: int) -> int:
    """Returns one of 512 bins, sixteen an octave; 0 is the bin of zero alone."""
    if value == 0:
        return 0
    bits = int(f32(value).view(np.uint32))
    return min(max((bits >> 19) - 2031, 1), 511)


def cosine(a: list[int], b: list[int]) -> np.float32:
    """Returns the cosine of two rows of counts, 0 where one of them is empty."""
    if not any(a) or not any(b):
        return f32(0)
    dot = f32(sum(x * y for x, y in zip(a, b, strict=True)))
    lengths = np.sqrt(f32(sum(x * x for x in a))) * np.sqrt(f32(sum(x * x for x in b)))
    return dot / lengths
