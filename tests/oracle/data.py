"""What goes into the oracle, what comes out, and what its parts say to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Copy = tuple[int, int]  # (layer, expert)
Grid = Any  # nested lists or a numpy array of integers; the shape is in the comment beside it


@dataclass(frozen=True)
class Case:
    """A trace of P passes, on the host: nested lists or numpy arrays of integers."""

    num_layers: int
    num_experts: int
    top_k: int
    tokens: Grid  # [P]
    prefill: Grid  # [P]
    fresh: Grid  # [P], the first pass of a request
    routed: Grid  # [P][L][N], tokens routed to each expert; demanded if > 0
    gate: Grid  # [P][L][N], 2^20 is 1.0
    predicted: Grid | None = None  # [P][L][D][N], 2^20 is 1.0
    logits: Grid | None = None  # [P][L][N], 2^16 is 1.0
    probs: Grid | None = None  # [P][L][N], 2^20 is 1.0


@dataclass(frozen=True)
class Costs:
    """What everything takes, in ticks."""

    attention: Grid  # [P]
    head: Grid  # [P]
    shared: Grid  # [P]
    expert_memory: Grid  # [Q]
    expert_per_1024: int
    host_memory: int
    host_per_1024: int
    load: Grid  # [L][Q]
    overlap: bool
    arrive: int = 0
    decide: Grid | None = None  # [P]


@dataclass(frozen=True)
class Config:
    """A strategy and the cache it runs in."""

    capacity: Grid  # units, one entry a pool
    units: Grid  # [L][Q], units of one copy
    eviction: str = "lru"
    eviction_params: Mapping[str, Any] = field(default_factory=dict)
    prefetch: str = "none"
    prefetch_params: Mapping[str, Any] = field(default_factory=dict)
    lookahead: int = 1
    miss: str = "fetch"
    miss_params: Mapping[str, Any] = field(default_factory=dict)
    routing: str = "standard"
    routing_params: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "global"  # or "layer"
    admission: str = "forced"  # or "bypass"
    touch_on_prefetch_insert: bool = True
    touch_on_prefetch_hit: bool = False
    costs: Costs | None = None  # None: an infinitely fast link, and no time passes
    initial: Grid | None = None  # [L][N], resident at tier 0 at the start


@dataclass(frozen=True)
class Event:
    """Layer `layer` of pass `step` asks for `demand`: the set after routing."""

    index: int  # s
    step: int  # p
    layer: int  # l
    fresh: bool  # the first event of a request
    request_start: int  # the first pass of the running request
    tokens: int
    recorded: tuple[int, ...]  # the demand before routing
    demand: tuple[int, ...]  # ascending
    routed: list[int]
    gate: list[int]
    predicted: list[list[int]] | None
    logits: list[int] | None
    probs: list[int] | None


@dataclass(frozen=True)
class Change:
    """What one step did to the experts of `layer`: a demand, or one target of a prefetch."""

    now: Event
    layer: int
    step: int  # the pass the experts were used in, or named for
    inserted: dict[int, int]  # expert: tier
    evicted: list[Copy]
    used: dict[int, int] = field(default_factory=dict)  # expert: tier; empty for a prefetch
    hits: frozenset[int] = frozenset()  # found, or late; empty for a prefetch
    selected: frozenset[int] = frozenset()  # named and already resident; empty for a demand


@dataclass(frozen=True)
class EventRecord:
    """One event, for locating a difference. Residents are (layer, expert, tier)."""

    step: int
    layer: int
    hits: tuple[int, ...]
    misses: tuple[int, ...]
    collisions: tuple[int, ...]
    after_demand: tuple[tuple[int, int, int], ...]
    after_prefetch: tuple[tuple[int, int, int], ...]


class Result:
    """All counts of a run: by layer (of the expert; `evictions`: of the layer being served)."""

    def __init__(self, num_layers: int, num_tiers: int, num_passes: int):
        def by_layer() -> list[int]:
            return [0] * num_layers

        self.accesses, self.hits, self.misses = by_layer(), by_layer(), by_layer()
        self.collisions, self.compulsory, self.late = by_layer(), by_layer(), by_layer()
        self.loads = [[0] * num_tiers for _ in range(num_layers)]  # on demand, streamed included
        self.streamed, self.dropped = by_layer(), by_layer()
        self.substituted, self.on_host = by_layer(), by_layer()
        self.evictions = by_layer()
        self.queued, self.prefetched = by_layer(), by_layer()  # by target layer
        self.prefetch_used = by_layer()
        self.swapped = by_layer()  # chosen by the routing policy, but not in the recorded set
        self.ticks, self.stall = [0] * num_passes, [0] * num_passes
        self.events: list[EventRecord] = []
