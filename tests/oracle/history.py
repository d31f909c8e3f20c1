"""Eviction scores in float32, from what an expert did of late (section 3)."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.oracle.arithmetic import by_value, f32, fixed, share
from tests.oracle.data import Case, Change, Copy, Event
from tests.oracle.eviction import Eviction, Lfu

if TYPE_CHECKING:
    from tests.oracle.cache import Cache


class ScoreBased(Eviction):
    """The sum of the last gate weights, of demanded experts whatever became of the demand."""

    defaults: ClassVar[dict[str, Any]] = {"window": 16}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.weights = defaultdict(lambda: deque(maxlen=self.params["window"]))

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return sum(self.weights[copy])

    def served(self, change: Change, cache: "Cache") -> None:
        for expert in range(self.num_experts):
            self.weights[change.layer, expert].append(change.now.gate[expert])


class Hobbit(Eviction):
    """HOBBIT, equation 3: recency, uses, high-precision uses and nearness in one sum."""

    defaults: ClassVar[dict[str, Any]] = {
        "w_lru": 0.25,
        "w_lfu": 0.25,
        "w_lhu": 0.25,
        "w_fld": 0.25,
    }

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.uses: Counter[Copy] = Counter()  # within the request
        self.high_uses: Counter[Copy] = Counter()

    def begin(self, now: Event) -> None:
        if now.fresh:
            self.uses.clear()
            self.high_uses.clear()

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        weight = {name: f32(value) for name, value in self.params.items()}
        passes = now.step - now.request_start + 1
        last_pass = cache.last_used.get(copy, -1) // self.num_layers
        recency = max(last_pass - now.request_start + 1, 0)
        nearness = self.num_layers - (now.layer - copy[0]) % self.num_layers
        terms = [
            weight["w_lru"] * share(recency, passes),
            weight["w_lfu"] * share(self.uses[copy], passes),
            weight["w_lhu"] * share(self.high_uses[copy], passes),
            weight["w_fld"] * share(nearness, self.num_layers),
        ]
        return sum(fixed(term, 20) for term in terms)

    def served(self, change: Change, cache: "Cache") -> None:
        for expert, tier in change.used.items():
            self.uses[change.layer, expert] += 1
            self.high_uses[change.layer, expert] += tier == 0


class Linear(Eviction):
    """A weighted sum of recency, uses, recent gate weights and nearness."""

    defaults: ClassVar[dict[str, Any]] = {
        "w_recency": 1.0,
        "w_frequency": 0.0,
        "w_gate": 0.0,
        "w_nearness": 0.0,
    }

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.frequency = Lfu(case, {})
        self.gates = ScoreBased(case, {"window": 16})

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        weight = {name: f32(value) for name, value in self.params.items()}
        last_used = cache.last_used.get(copy, -1) + 1
        uses, gates = (part.score(copy, now, cache) for part in (self.frequency, self.gates))
        nearness = self.num_layers - (copy[0] - now.layer) % self.num_layers
        terms = [
            weight["w_recency"] * share(last_used, now.index + 1),
            weight["w_frequency"] * share(uses, now.step + 1),
            weight["w_gate"] * share(gates, 16 << 20),
            weight["w_nearness"] * share(nearness, self.num_layers),
        ]
        return sum(fixed(term, 20) for term in terms)

    def served(self, change: Change, cache: "Cache") -> None:
        self.frequency.served(change, cache)
        self.gates.served(change, cache)


class Mrs(Eviction):
    """HybriMoE's minus-recent-score: a running mean of the highest router probabilities."""

    defaults: ClassVar[dict[str, Any]] = {"alpha": 0.5, "top_p": 12}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.means: Counter[Copy] = Counter()

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return self.means[copy]

    def served(self, change: Change, cache: "Cache") -> None:
        probs = change.now.probs
        assert probs is not None, "mrs needs router probabilities"
        kept = by_value(probs)[: self.params["top_p"]]
        alpha = f32(self.params["alpha"])
        for expert in range(self.num_experts):
            copy = change.layer, expert
            new = f32(probs[expert] if expert in kept else 0)
            old = (f32(1) - alpha) * f32(self.means[copy])
            self.means[copy] = fixed(old, 0) + fixed(alpha * new, 0)
