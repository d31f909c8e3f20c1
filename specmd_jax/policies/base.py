"""What a policy is: the four plug-in families, each a NamedTuple of pure functions.

The functions are static and the params are traced, so that a thousand settings of one policy
are one compile and one `vmap`. `score` looks at the whole cache, dense over (layer, expert);
everything else speaks of one row, the experts of the layer being served.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Int, Int8, Real

from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome, Params, State

# What a policy may read beside the demand sets: recorded in a trace, or looked ahead for.
NEXT_USE, UPCOMING, PREDICTED, LOGITS, PROBS, GATE = READS = (
    "next_use",
    "upcoming",
    "predicted",
    "logits",
    "probs",
    "gate",
)
FUTURE = frozenset({NEXT_USE, UPCOMING})  # which no running model knows


@runtime_checkable
class InitFn(Protocol):
    def __call__(self, params: Params, shape: ModelShape, /) -> State:
        """Returns the state before the first event."""
        ...


@runtime_checkable
class BeginFn(Protocol):
    def __call__(self, params: Params, state: State, event: Event, /) -> State:
        """Returns the state with which `event` is served."""
        ...


@runtime_checkable
class ScoreFn(Protocol):
    def __call__(
        self, params: Params, state: State, cache: CacheState, event: Event, /
    ) -> Real[Array, "L N"]:
        """Returns what each copy is worth; the lowest leaves first, ties by recency.

        Integers within +-2**30, or floats; a NaN is reported as an error.
        """
        ...


@runtime_checkable
class ShieldFn(Protocol):
    def __call__(
        self, params: Params, state: State, cache: CacheState, event: Event, /
    ) -> Bool[Array, "L N"]:
        """Returns the copies that no prefetch may evict."""
        ...


@runtime_checkable
class UpdateFn(Protocol):
    def __call__(
        self, params: Params, state: State, cache: CacheState, event: Event, outcome: Outcome, /
    ) -> State:
        """Returns the state after `outcome`; `cache` is the cache after it.

        Called once after the demand of an event and once after each prefetch target.
        """
        ...


class Eviction(NamedTuple):
    """Which copy leaves when another needs its place."""

    init: InitFn
    score: ScoreFn | None  # None: recency alone
    update: UpdateFn
    params: Params = ()  # the defaults
    begin: BeginFn | None = None
    shield: ShieldFn | None = None
    reads: tuple[str, ...] = ()
    admission: str | None = None  # "forced" or "bypass" where the policy fixes it
    distinct: bool = False  # no two copies have one score, an integer: recency is not asked
    weights: tuple[str, ...] = ()  # the params that its score is a sum of features times, if it is
    fused: bool = False  # it reads no more of cache and event than the one-kernel replay knows
    doc: str | None = None  # a sentence, what is special, the source: shown by list and README


@runtime_checkable
class SelectFn(Protocol):
    def __call__(
        self, params: Params, state: State, event: Event, layer: Int[Array, ""], ahead: int, /
    ) -> Int[Array, " N"]:
        """Returns the priority of each expert of `layer`, `ahead` layers on; above 0 is named."""
        ...


@runtime_checkable
class ObserveFn(Protocol):
    def __call__(self, params: Params, state: State, event: Event, /) -> State:
        """Returns the state after `event`'s demand was served."""
        ...


class Prefetch(NamedTuple):
    """What to bring before it is asked for."""

    init: InitFn
    select: SelectFn | None  # None: nothing is ever named
    observe: ObserveFn
    params: Params = ()
    reads: tuple[str, ...] = ()
    max_ahead: int = 8  # layers; what it remembers grows with it
    doc: str | None = None


class LayerView(NamedTuple):
    """The layer being served, as a miss policy sees it."""

    hit: Bool[Array, " N"]  # demanded and on the device
    missing: Bool[Array, " N"]  # demanded, not on the device and not on its way
    resident: Bool[Array, " N"]  # on the device, demanded or not
    tier: Int8[Array, " N"]  # of the resident copies
    units: Int[Array, " Q"]  # of one copy of this layer, by tier
    capacity: Int[Array, ""]  # units of the pool


class MissPlan(NamedTuple):
    """What becomes of each miss. The four fates exclude each other; the rest is loaded."""

    tier: Int8[Array, " N"]  # at which a missing expert is loaded
    dropped: Bool[Array, " N"]
    on_host: Bool[Array, " N"]
    substituted: Bool[Array, " N"]
    stand_in: Bool[Array, " N"]  # the residents that take their place


@runtime_checkable
class PlanFn(Protocol):
    def __call__(
        self, params: Params, row: LayerView, event: Event, shape: ModelShape, /
    ) -> MissPlan:
        """Returns the fate of every miss in `row.missing`."""
        ...


class Miss(NamedTuple):
    """What to do about a demanded expert that is not there."""

    plan: PlanFn | None  # None: every miss is loaded at tier 0
    params: Params = ()
    reads: tuple[str, ...] = ()
    prefetch_last_tier: bool = False  # a prefetch brings the cheapest copy instead of the best
    lossless: bool = True  # False: the model's output changes, so replay is open-loop
    doc: str | None = None


@runtime_checkable
class ChooseFn(Protocol):
    def __call__(
        self, params: Params, state: State, resident: Bool[Array, " N"], event: Event, /
    ) -> tuple[Bool[Array, " N"], State]:
        """Returns the experts to use instead of the recorded ones, as many, and the new state."""
        ...


class Routing(NamedTuple):
    """Whether the choice of experts bends towards what is on the device."""

    init: InitFn
    choose: ChooseFn | None  # None: the recorded choice
    params: Params = ()
    reads: tuple[str, ...] = ()
    doc: str | None = None

    @property
    def lossless(self) -> bool:
        """Whether the model's output stays: only the recorded choice leaves it as it is."""
        return self.choose is None


def stateless_init(params: Params, shape: ModelShape) -> State:
    del params, shape
    return ()


def stateless_update(
    params: Params, state: State, cache: CacheState, event: Event, outcome: Outcome
) -> State:
    del params, cache, event, outcome
    return state


def stateless_observe(params: Params, state: State, event: Event) -> State:
    del params, event
    return state
