"""The two eviction policies that keep queues: SIEVE and S3-FIFO (sections 3.1 and 3.2)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.oracle.arithmetic import f32
from tests.oracle.data import Case, Change, Copy, Event
from tests.oracle.eviction import Eviction

if TYPE_CHECKING:
    from tests.oracle.cache import Cache


class Sieve(Eviction):
    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.number: dict[Copy, int] = {}  # of the copies that are resident
        self.next_number = 0
        self.visited: set[Copy] = set()
        self.hand: Counter[int] = Counter()  # by pool

    def warm_up(self, copies: list[Copy], cache: "Cache") -> None:
        self._insert(copies)

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        position = self._position(copy, cache.pool_of(copy[0]))
        return (copy in self.visited) * self.next_number + position

    def served(self, change: Change, cache: "Cache") -> None:
        if change.evicted:
            self._move_hand(change.evicted, cache.pool_of(change.layer), cache)
        self._insert((change.layer, expert) for expert in sorted(change.inserted))
        self.visited |= {(change.layer, expert) for expert in change.hits}

    prefetched = served

    def _position(self, copy: Copy, pool: int) -> int:
        return (self.number[copy] - self.hand[pool]) % max(self.next_number, 1)

    def _move_hand(self, evicted: list[Copy], pool: int, cache: "Cache") -> None:
        members = [copy for copy in self.number if cache.pool_of(copy[0]) == pool]
        position = {copy: self._position(copy, pool) for copy in members}
        visited = [copy for copy in evicted if copy in self.visited]
        last = max(visited or evicted, key=position.__getitem__)
        passed = members if visited else [c for c in members if position[c] <= position[last]]
        self.visited -= set(passed)
        reached = self.number[last]
        for copy in evicted:
            del self.number[copy]
        newer = [copy for copy in members if self.number.get(copy, -1) > reached]
        self.hand[pool] = reached + 1 if newer else 0

    def _insert(self, copies: Iterable[Copy]) -> None:
        for copy in copies:
            self.number[copy] = self.next_number
            self.next_number += 1


class S3Fifo(Eviction):
    defaults: ClassVar[dict[str, Any]] = {"ratio": 0.1}

    def __init__(self, case: Case, params: Mapping[str, Any]):
        super().__init__(case, params)
        self.queue: dict[Copy, str] = {}  # "small" or "main", of the copies that are resident
        self.entered: dict[Copy, int] = {}  # the event it entered its queue
        self.uses: dict[Copy, int] = {}  # 0..3
        self.ghosts: dict[Copy, int] = {}  # how many ghosts of the pool were made before
        self.ghosts_made: Counter[int] = Counter()  # by pool

    def warm_up(self, copies: list[Copy], cache: "Cache") -> None:
        for copy in copies:
            self._enter(copy, "small", -1)

    def score(self, copy: Copy, now: Event, cache: "Cache") -> int:
        rank = self._class_of(copy, self._small_is_over(cache, cache.pool_of(copy[0])))
        return rank * (now.index + 1) + self.entered[copy]

    def _small_is_over(self, cache: "Cache", pool: int) -> bool:
        copies = cache.copies(pool)
        small = [copy for copy in copies if self.queue[copy] == "small"]
        return bool(f32(len(small)) > f32(self.params["ratio"]) * f32(len(copies)))

    def _class_of(self, copy: Copy, small_is_over: bool) -> int:
        uses = self.uses[copy]
        if self.queue[copy] == "main":
            return 1 + uses if small_is_over else uses
        if uses > 1:
            return 5
        return 0 if small_is_over else 4

    def served(self, change: Change, cache: "Cache") -> None:
        pool = cache.pool_of(change.layer)
        if change.evicted:
            self._evict(change.evicted, pool, change.now.index, cache)
        for expert in change.inserted:
            self._insert((change.layer, expert), pool, change.now.index, cache)
        for expert in change.hits:
            copy = change.layer, expert
            self.uses[copy] = min(3, self.uses[copy] + 1)

    prefetched = served

    def _evict(self, evicted: list[Copy], pool: int, event: int, cache: "Cache") -> None:
        remaining = [
            copy for copy in self.queue if cache.pool_of(copy[0]) == pool and copy not in evicted
        ]
        from_small = [copy for copy in evicted if self.queue[copy] == "small"]
        from_main = [copy for copy in evicted if self.queue[copy] == "main"]
        self.ghosts.update(dict.fromkeys(from_small, self.ghosts_made[pool]))
        self.ghosts_made[pool] += len(from_small)
        if from_small:
            self._promote(remaining, from_small, event)
        if from_main:
            self._pass_over(remaining, from_main, event)
        for copy in evicted:
            del self.queue[copy], self.entered[copy], self.uses[copy]

    def _promote(self, remaining: list[Copy], evicted: list[Copy], event: int) -> None:
        latest = max(self.entered[copy] for copy in evicted)
        for copy in remaining:
            used_again = self.queue[copy] == "small" and self.uses[copy] > 1
            if used_again and self.entered[copy] < latest:
                self._enter(copy, "main", event)

    def _pass_over(self, remaining: list[Copy], evicted: list[Copy], event: int) -> None:
        rounds = max(self.uses[copy] for copy in evicted)
        latest = max(self.entered[copy] for copy in evicted if self.uses[copy] == rounds)
        for copy in remaining:
            times = rounds + (self.entered[copy] < latest)
            if self.queue[copy] == "main" and times >= 1:
                self.uses[copy] = max(0, self.uses[copy] - times)
                self.entered[copy] = event

    def _insert(self, copy: Copy, pool: int, event: int, cache: "Cache") -> None:
        number = self.ghosts.pop(copy, None)
        recent = len(cache.copies(pool))
        is_recent_ghost = number is not None and self.ghosts_made[pool] - number <= recent
        self._enter(copy, "main" if is_recent_ghost else "small", event)

    def _enter(self, copy: Copy, queue: str, event: int) -> None:
        self.queue[copy], self.entered[copy], self.uses[copy] = queue, event, 0
