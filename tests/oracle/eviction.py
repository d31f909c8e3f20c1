"""Eviction scores: the copy of lowest score leaves first (section 3)."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.oracle.arithmetic import LIMIT, f32, fixed, hash_of, with_defaults
from tests.oracle.data import Case, Change, Copy, Event

if TYPE_CHECKING:
    from tests.oracle.cache import Cache


class Eviction:
    """LRU, and what the others change: every score 0, so that the last use decides."""

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        self.params = with_defaults(self.defaults, params)
        self.num_layers, self.num_experts = case.num_layers, case.num_experts

    def warm_up(self, copies: list[Copy], cache: "Cache") -> None:
        """Takes in the copies that are there before the first event."""

    def begin(self, now: Event) -> None:
        """Runs first of all at each event."""

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return 0

    def protects(self, copy: Copy, now: Event) -> bool:
        """Tells whether a prefetch must not evict the copy."""
        return False

    def served(self, change: Change, cache: "Cache") -> None:
        """Takes note of a demand, after the cache has changed."""

    def prefetched(self, change: Change, cache: "Cache") -> None:
        """Takes note of one target of a prefetch, after the cache has changed."""


class Fifo(Eviction):
    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.inserted: dict[Copy, int] = {}

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return self.inserted.get(copy, -1)

    def served(self, change: Change, cache: "Cache") -> None:
        for expert in change.inserted:
            self.inserted[change.layer, expert] = change.now.index

    prefetched = served


class Static(Fifo):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return -super().score(copy, now, cache)


class Lfu(Eviction):
    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.uses: Counter[Copy] = Counter()

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return self.uses[copy]

    def served(self, change: Change, cache: "Cache") -> None:
        self.uses.update((change.layer, expert) for expert in change.used)


class LfuInCache(Lfu):
    def served(self, change: Change, cache: "Cache") -> None:
        self.prefetched(change, cache)
        super().served(change, cache)

    def prefetched(self, change: Change, cache: "Cache") -> None:
        for expert in change.inserted:
            self.uses[change.layer, expert] = 0


class LfuDecay(Eviction):
    defaults: ClassVar[dict[str, Any]] = {"decay": 0.9}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.uses = defaultdict(lambda: f32(0))

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return fixed(self.uses[copy], 12)

    def served(self, change: Change, cache: "Cache") -> None:
        for expert in range(self.num_experts):
            copy = change.layer, expert
            used = f32(expert in change.used)
            self.uses[copy] = self.uses[copy] * f32(self.params["decay"]) + used


class Lhu(Lfu):
    def begin(self, now: Event) -> None:
        if now.fresh:
            self.uses.clear()

    def served(self, change: Change, cache: "Cache") -> None:
        high = [expert for expert, tier in change.used.items() if tier == 0]
        self.uses.update((change.layer, expert) for expert in high)


class Fld(Eviction):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return -abs(copy[0] - now.layer)


class FldCyclic(Eviction):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return -((copy[0] - now.layer) % self.num_layers)


class Lfru(Lfu):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        age = max(now.index - cache.last_used.get(copy, -1), 1)
        return fixed(f32(self.uses[copy]) / f32(age), 16)


class Random(Eviction):
    defaults: ClassVar[dict[str, Any]] = {"seed": 0}

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return hash_of(self.params["seed"], now.index, *copy) >> 2


class Future:
    """When each expert is demanded, by the recorded trace."""

    def __init__(self, case: Case):
        self._events: dict[Copy, list[int]] = defaultdict(list)  # rising
        for step, layers in enumerate(case.routed):
            for layer, routed in enumerate(layers):
                for expert in range(case.num_experts):
                    if routed[expert] > 0:
                        self._events[layer, expert].append(step * case.num_layers + layer)

    def __deepcopy__(self, memo: dict) -> "Future":
        return self  # it never changes

    def next_demand(self, copy: Copy, now: Event) -> int:
        """Returns the next event after this one that demands the copy, or 2^30."""
        later = bisect_right(self._events[copy], now.index)
        return (*self._events[copy][later : later + 1], LIMIT)[0]


class Belady(Eviction):
    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.future = Future(case)

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return -self.future.next_demand(copy, now)


class LeastStale(Eviction):
    defaults: ClassVar[dict[str, Any]] = {"protect_current_right": False}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.latest: dict[Copy, int] = {}  # the latest pass it was used in or selected for

    def is_current(self, copy: Copy, now: Event) -> bool:
        return self.latest.get(copy, -1) >= now.step

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        size = self.num_layers * self.num_experts
        place = copy[0] * self.num_experts + copy[1]
        right = copy[0] >= now.layer
        if self.is_current(copy, now):
            return (3 if right else 2) * size + place
        return size + (size - 1 - place) if right else place

    def protects(self, copy: Copy, now: Event) -> bool:
        asked = self.params["protect_current_right"]
        return asked and copy[0] > now.layer and self.is_current(copy, now)

    def served(self, change: Change, cache: "Cache") -> None:
        self._mark(change, change.used)

    def prefetched(self, change: Change, cache: "Cache") -> None:
        self._mark(change, change.selected | change.inserted.keys())

    def _mark(self, change: Change, experts) -> None:
        for expert in experts:
            copy = change.layer, expert
            self.latest[copy] = max(self.latest.get(copy, -1), change.step)


class LeastStaleFifo(LeastStale):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        place = copy[0] * self.num_experts + copy[1]
        return self.is_current(copy, now) * self.num_layers * self.num_experts + place


class LeastStaleLru(LeastStale):
    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        return int(self.is_current(copy, now))
