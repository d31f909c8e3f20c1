"""What must hold of any replay, whatever the eviction policy: each law looks at one and asserts."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import ADMISSIONS, SCOPES, Strategy, make_strategy
from specmd_jax.traces import DECODE, PAD, PREFILL, Trace
from tests.helpers.stepwise import Watched, watch
from tests.helpers.together import choose, evictions, together

SHAPE = ModelShape(num_layers=3, num_experts=6, top_k=2)
PASSES = 20
LARGEST = 4  # experts of one event
FITS = LARGEST * SHAPE.num_layers  # slots with which every event fits, whatever the scope
ALL = SHAPE.num_layers * SHAPE.num_experts
SLOTS = np.array([0, 1, 2, 3, 4, 5, 7, 9, 10, FITS, 15, ALL])
EQUAL, UNEQUAL = np.ones((3, 1), int), np.array([[1], [3], [2]])  # units of a copy, by layer


class Way(NamedTuple):
    """A way to run a policy."""

    eviction: str
    scope: str
    admission: str

    def __str__(self) -> str:
        return "-".join(self)


class Run(NamedTuple):
    """A replay to hold a law against."""

    strategy: Strategy
    slots: np.ndarray  # [C]
    capacity: np.ndarray  # [C, W] units
    units: np.ndarray  # [L, Q]
    seen: Watched


def ways() -> list[Way]:
    """Returns every way to run every policy; a new one is among them by itself."""
    return [
        Way(name, scope, admission)
        for admission in ADMISSIONS
        for scope in SCOPES
        for name in evictions(admission)
    ]


@lru_cache
def strategy_of(scope: str, admission: str, names: tuple[str, ...]) -> Strategy:
    """Returns all policies as one, with a prefetcher that recall 0 turns off."""
    strategy = make_strategy(prefetch="noisy-oracle", scope=scope, admission=admission)
    return strategy._replace(eviction=together(names))


def run(
    way: Way, trace: Trace, units: np.ndarray = EQUAL, recall: float = 0.0, **changes: object
) -> Run:
    """Replays `trace` at all of `SLOTS`.

    Args:
      recall: of the prefetcher; 0 is none.
      changes: parameters of the policy, if not its defaults.
    """
    names = evictions(way.admission)
    strategy = strategy_of(way.scope, way.admission, names)
    prefetch = strategy.params.prefetch._replace(recall=recall, precision=0.7)
    params = strategy.params._replace(
        eviction=choose(names, way.eviction, **changes), prefetch=prefetch
    )
    capacity = split(SLOTS, way.scope) * (units[:, 0] if way.scope == "layer" else units.max())
    return Run(strategy, SLOTS, capacity, units, watch(trace, strategy, params, capacity, units))


def split(slots: np.ndarray, scope: str) -> np.ndarray:
    """Returns the slots of each pool, [C, W]: what does not divide goes to the first layers."""
    if scope == "global":
        return slots[:, None]
    layer = np.arange(SHAPE.num_layers)
    return slots[:, None] // SHAPE.num_layers + (layer < slots[:, None] % SHAPE.num_layers)


SMALL_SETS = [bits for bits in range(1 << SHAPE.num_experts) if bits.bit_count() <= LARGEST]


def demands(passes: int = PASSES) -> st.SearchStrategy[np.ndarray]:
    """Draws the sets that events demand, as bits: [P, L]. They shrink, where traces are opaque."""
    size = (passes, SHAPE.num_layers)
    return hnp.arrays(np.uint8, size, elements=st.sampled_from(SMALL_SETS))


@st.composite
def lone_demands(draw) -> np.ndarray:
    """Draws demands of one layer a pass, so that the cache is seen after every event."""
    masks = draw(demands())
    layer = draw(hnp.arrays(np.int8, PASSES, elements=st.integers(0, SHAPE.num_layers - 1)))
    return np.where(layer[:, None] == np.arange(SHAPE.num_layers), masks, 0).astype(np.uint8)


def trace_of(masks: np.ndarray) -> Trace:
    """Returns the trace whose passes demand the experts set in `masks`, [P, L]."""
    tokens = LARGEST // SHAPE.top_k
    experts = np.full((len(masks), SHAPE.num_layers, tokens * SHAPE.top_k), PAD, np.int16)
    for place, bits in np.ndenumerate(masks):
        chosen = np.flatnonzero(int(bits) >> np.arange(SHAPE.num_experts) & 1)
        experts[place][: len(chosen)] = chosen
    rows = experts.reshape(len(masks), SHAPE.num_layers, tokens, SHAPE.top_k).swapaxes(1, 2)
    rows = rows.reshape(-1, SHAPE.num_layers, SHAPE.top_k)
    step = np.repeat(np.arange(len(masks), dtype=np.int32), tokens)
    half = (len(masks) + 1) // 2
    rng = np.random.default_rng(0)
    return Trace(
        rows,
        SHAPE.num_experts,
        step=step,
        request=step // half,
        phase=np.where(step % half == 0, PREFILL, DECODE).astype(np.uint8),
        weights=rng.random(rows.shape, np.float32),
        logits=rng.normal(size=(len(rows), *SHAPE[:2])).astype(np.float32),
    )


def counts_add_up(run: Run) -> None:
    """Every access is a hit or has one fate, and what came and did not leave is there."""
    count, demanded = run.seen.total, run.seen.demanded
    fates = ("hits", "late", "loads", "dropped", "substituted", "on_host")
    assert (count["accesses"] == demanded.sum()).all()
    assert np.all(sum(count[name] for name in fates) == count["accesses"])
    misses = count["accesses"] - count["hits"]
    for part in ("collisions", "compulsory"):
        assert (count[part] <= misses).all(), part
    assert (count["streamed"] <= count["loads"]).all()
    assert (count["prefetch_used"] <= count["prefetched"]).all()
    assert (count["prefetched"] <= count["queued"]).all()
    came = count["loads"] - count["streamed"] + count["prefetched"]
    resident = (run.seen.tier[:, -1] >= 0).sum((1, 2))
    assert (came - count["evictions"] == resident).all()


def never_above_capacity(run: Run) -> None:
    """The copies fit their pools after every pass, and the books say what is there."""
    sizes = np.take_along_axis(
        run.units[None, None], np.maximum(run.seen.tier, 0).astype(int), axis=3
    )
    by_layer = np.where(run.seen.tier >= 0, sizes, 0).sum(3)
    by_pool = by_layer if run.capacity.shape[1] > 1 else by_layer.sum(2, keepdims=True)
    assert (run.seen.occupied == by_pool).all()
    assert (by_pool <= run.capacity[:, None]).all()


def demand_stays(run: Run) -> None:
    """What an event found is still there after it; and with it all it asked for, if there is room.

    With forced admission there is room if the demand alone fits, for all else may leave. With
    bypass a load may be declined, but only if otherwise something must leave: the pool is full.
    """
    demanded, there = run.seen.demanded, run.seen.tier >= 0
    assert (demanded.any(2).sum(1) <= 1).all(), "this law needs passes of one layer"
    before = np.concatenate([np.zeros_like(there[:, :1]), there[:, :-1]], axis=1)
    assert (there | ~(demanded & before)).all()
    missing = demanded & ~there  # [C, P, L, N]
    size = run.units[:, 0]
    capacity = np.broadcast_to(run.capacity, (len(run.slots), SHAPE.num_layers))[:, None]
    if run.strategy.admission == "forced":
        fits = demanded.sum(2) * size <= capacity  # [C, P, L]
    else:
        taken = np.broadcast_to(run.seen.occupied, there.shape[:3])
        was_taken = np.concatenate([np.zeros_like(taken[:, :1]), taken[:, :-1]], axis=1)
        fits = was_taken + (demanded & ~before).sum(3) * size <= capacity
        full = taken + run.units.max() > capacity  # the last that left had to
        assert (full | ~missing.any(3)).all()
    assert not (missing & fits[..., None]).any()


def nothing_fits_in_nothing(run: Run) -> None:
    """Without capacity every access is streamed."""
    assert run.slots[0] == 0
    count = {name: values[0] for name, values in run.seen.total.items()}
    assert count["streamed"] == count["loads"] == count["accesses"]
    assert count["hits"] == count["evictions"] == count["prefetched"] == 0


def all_fits_in_all(run: Run) -> None:
    """A cache that holds everything misses what is new, and without prefetch just that."""
    assert run.slots[-1] == ALL
    count = {name: values[-1] for name, values in run.seen.total.items()}
    distinct = run.seen.demanded.any(0).sum()
    assert count["evictions"] == count["streamed"] == count["collisions"] == 0
    assert count["accesses"] - count["hits"] == count["compulsory"]
    assert count["compulsory"] + count["prefetch_used"] == distinct


LAWS: tuple[Callable[[Run], None], ...] = (
    counts_add_up,
    never_above_capacity,
    nothing_fits_in_nothing,
    all_fits_in_all,
)


def check_laws(way: Way, trace: Trace) -> None:
    """Holds every law against a policy: on demand, with copies of several sizes, and prefetching.

    Args:
      trace: of passes that demand one layer each.
    """
    plain, uneven = run(way, trace), run(way, trace, units=UNEQUAL)
    ahead = run(way, trace, units=UNEQUAL, recall=0.6)
    for law in LAWS:
        for one in (plain, uneven, ahead):
            law(one)
    # A pass goes on after the layer that it demands, so a later layer's prefetch may have evicted
    # what was demanded: only without prefetch is it there when the pass ends.
    demand_stays(plain)
    demand_stays(uneven)
