"""The copies on the device, how they are ranked, and what a step changes."""

from collections.abc import Iterable

from tests.oracle.data import Case, Change, Config, Copy, Event
from tests.oracle.eviction import Eviction


class Cache:
    """Resident copies, their last uses, and the eviction policy that ranks them."""

    def __init__(self, case: Case, config: Config, policy: Eviction):
        self.config, self.policy = config, policy
        self.capacity = [int(units) for units in config.capacity]  # by pool
        self.sizes = [[int(units) for units in tiers] for tiers in config.units]
        self.resident: dict[Copy, int] = {}  # tier
        self.last_used: dict[Copy, int] = {}
        self.speculative: set[Copy] = set()  # brought by a prefetch and not used since
        self.in_flight: Copy | None = None  # resident, but still on the link
        if config.initial is not None:
            self._warm_up(case, config.initial)

    def _warm_up(self, case: Case, initial) -> None:
        for layer in range(case.num_layers):
            for expert in range(case.num_experts):
                if initial[layer][expert]:
                    self.resident[layer, expert] = 0
        self.policy.warm_up(sorted(self.resident), self)
        for pool in range(len(self.capacity)):
            if self.free(pool) < 0:
                raise ValueError(f"the initial copies do not fit in pool {pool}")

    def pool_of(self, layer: int) -> int:
        return layer if self.config.scope == "layer" else 0

    def copies(self, pool: int) -> list[Copy]:
        return [copy for copy in self.resident if self.pool_of(copy[0]) == pool]

    def taken_by(self, copies: Iterable[Copy]) -> int:
        return sum(self.sizes[copy[0]][self.resident[copy]] for copy in copies)

    def free(self, pool: int) -> int:
        return self.capacity[pool] - self.taken_by(self.copies(pool))

    def is_ready(self, copy: Copy) -> bool:
        return copy in self.resident and copy != self.in_flight

    def ranked(self, copies: Iterable[Copy], now: Event) -> list[Copy]:
        """Returns the copies, the first to leave first."""

        def key(copy: Copy):
            score = self.policy.score(copy, now, self)
            return score, self.last_used.get(copy, -1), copy

        return sorted(copies, key=key)

    def serve(self, change: Change) -> None:
        """Carries out step 7: what a demand changed."""
        self._move(change)
        for expert in change.used:
            self.last_used[change.layer, expert] = change.now.index
            self.speculative.discard((change.layer, expert))
        self.policy.served(change, self)

    def let_in(self, change: Change) -> None:
        """Carries out one target of step 8: what a prefetch changed."""
        self._move(change)
        touched: set[int] = set()
        if self.config.touch_on_prefetch_insert:
            touched |= change.inserted.keys()
        if self.config.touch_on_prefetch_hit:
            touched |= change.selected
        for expert in touched:
            self.last_used[change.layer, expert] = change.now.index
        self.speculative |= {(change.layer, expert) for expert in change.inserted}
        self.policy.prefetched(change, self)

    def _move(self, change: Change) -> None:
        for copy in change.evicted:
            del self.resident[copy]
            self.speculative.discard(copy)
        for expert, tier in change.inserted.items():
            self.resident[change.layer, expert] = tier
