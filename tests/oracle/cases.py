"""Hypothesis strategies for small traces under every combination of policies and switches.

Sizes and choices are drawn, so that a failure shrinks; what fills the arrays comes from a drawn
seed, so that drawing stays quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.oracle.data import Case, Config, Costs
from tests.oracle.registry import EVICTIONS, MISSES, PREFETCHERS, ROUTINGS

ONE = 1 << 20

FRACTION = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.6, 0.8, 0.9])
OVERFETCH = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
SEED = st.sampled_from([0, 1, 12345])

EVICTION_PARAMS = {
    "lfu-decay": {"decay": FRACTION},
    "score-based": {"window": st.integers(1, 6)},
    "least-stale": {"protect_current_right": st.booleans()},
    "least-stale-fifo": {"protect_current_right": st.booleans()},
    "least-stale-lru": {"protect_current_right": st.booleans()},
    "s3-fifo": {"ratio": FRACTION},
    "random": {"seed": SEED},
    "hobbit": dict.fromkeys(("w_lru", "w_lfu", "w_lhu", "w_fld"), FRACTION),
    "linear": dict.fromkeys(("w_recency", "w_frequency", "w_gate", "w_nearness"), FRACTION),
    "mrs": {"alpha": FRACTION, "top_p": st.integers(1, 9)},
}
PREFETCH_PARAMS = {
    "next-gate": {"overfetch": OVERFETCH},
    "next-gate-quantile": {"quantile": FRACTION},
    "next-gate-mass": {"mass": FRACTION},
    "next-gate-percentile": {"percentile": FRACTION},
    "hottest": {"overfetch": OVERFETCH},
    "transition": {"overfetch": OVERFETCH},
    "noisy-oracle": {"recall": FRACTION, "precision": FRACTION, "seed": SEED},
}
MISS_PARAMS = {
    "fetch-priority": {"low": FRACTION},
    "drop-priority": {"keep": st.integers(1, 3)},
    "drop-priority-cascade": {"high": FRACTION, "low": FRACTION},
    "substitute": {"alpha": FRACTION},
    "cpu": {"break_even": st.integers(0, 3)},
}
ROUTING_PARAMS = {
    "cache-prior": {"lam": FRACTION, "top_j": st.integers(0, 3), "use_mean": st.booleans()},
    "max-rank": {"top_j": st.integers(0, 3), "max_rank": st.integers(1, 9)},
    "cumulative-mass": {"top_j": st.integers(0, 3), "mass": FRACTION},
}

READ_PROBS = {"mrs", "substitute", "substitute-unbounded", "cache-prior", "max-rank"}
READ_PROBS |= {"cumulative-mass"}


@dataclass(frozen=True)
class Shape:
    """The sizes that a compiled simulator has to know beforehand."""

    num_layers: int
    num_experts: int
    top_k: int
    passes: int
    tiers: int
    lookahead: int
    ahead: int  # how far predictions are recorded; at least `lookahead`


@st.composite
def shapes(draw) -> Shape:
    """Draws the sizes of a trace and a strategy."""
    num_layers, num_experts = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    furthest = max(1, min(3, num_layers - 1))
    lookahead = draw(st.integers(1, furthest))
    return Shape(
        num_layers=num_layers,
        num_experts=num_experts,
        top_k=draw(st.integers(1, min(4, num_experts))),
        passes=draw(st.integers(1, 14)),
        tiers=draw(st.integers(1, 3)),
        lookahead=lookahead,
        ahead=draw(st.integers(lookahead, furthest)),
    )


@st.composite
def cases(
    draw,
    *,
    shape: st.SearchStrategy[Shape] | None = None,
    evictions: Sequence[str] = tuple(EVICTIONS),
    prefetches: Sequence[str] = tuple(PREFETCHERS),
    misses: Sequence[str] = tuple(MISSES),
    routings: Sequence[str] = tuple(ROUTINGS),
) -> tuple[Case, Config]:
    """Draws a trace and a strategy that can read it."""
    sizes = draw(shapes() if shape is None else shape)
    eviction, miss = draw(st.sampled_from(evictions)), draw(st.sampled_from(misses))
    prefetch = draw(st.sampled_from(prefetches)) if sizes.num_layers > 1 else "none"
    routing = draw(st.sampled_from(routings))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    case = make_case(
        sizes,
        rng,
        predictions=prefetch.startswith("next-gate") or draw(st.booleans()),
        router=bool(READ_PROBS & {eviction, miss, routing}) or draw(st.booleans()),
    )
    scope = draw(st.sampled_from(["global", "layer"]))
    units = draw(unit_sizes(sizes))
    capacity = draw(capacities(sizes, scope, units))
    config = Config(
        eviction=eviction,
        eviction_params=draw(params_of(EVICTION_PARAMS, eviction)),
        prefetch=prefetch,
        prefetch_params=draw(params_of(PREFETCH_PARAMS, prefetch)),
        lookahead=sizes.lookahead,
        miss=miss,
        miss_params=draw(params_of(MISS_PARAMS, miss)),
        routing=routing,
        routing_params=draw(params_of(ROUTING_PARAMS, routing)),
        scope=scope,
        admission=draw(st.sampled_from(["forced", "bypass"])),
        capacity=capacity,
        units=units,
        touch_on_prefetch_insert=draw(st.booleans()),
        touch_on_prefetch_hit=draw(st.booleans()),
        costs=draw(st.sampled_from([make_costs(sizes, rng), None, no_ticks(sizes)])),
        initial=draw(st.sampled_from([None, warm_start(sizes, rng, scope, capacity, units)])),
    )
    return case, config


def params_of(table: Mapping[str, Mapping[str, Any]], name: str) -> st.SearchStrategy[dict]:
    """Draws some parameters of a policy; those left out have their defaults."""
    return st.fixed_dictionaries({}, optional=dict(table.get(name, {})))


def make_case(shape: Shape, rng: np.random.Generator, predictions: bool, router: bool) -> Case:
    """Fills a trace: skewed choices, a few passes of several tokens, a few requests."""
    tokens = rng.choice([1, 1, 1, 2, 4], size=shape.passes)
    fresh = rng.random(shape.passes) < 0.25
    fresh[0] = True
    routed = make_routed(shape, rng, tokens)
    table = (*routed.shape[:2], shape.ahead, shape.num_experts)
    logits = rng.integers(-16, 16, size=routed.shape) << 14  # so coarse that many are equal
    return Case(
        num_layers=shape.num_layers,
        num_experts=shape.num_experts,
        top_k=shape.top_k,
        tokens=tokens,
        prefill=tokens > 1,
        fresh=fresh,
        routed=routed,
        gate=make_gate(routed, rng),
        predicted=some_equal(rng, table) if predictions else None,
        logits=logits if router else None,
        probs=softmax(logits) if router else None,
    )


def make_routed(shape: Shape, rng: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
    """Lets every token choose top-k experts, now and then fewer, the first ones more often."""
    routed = np.zeros((shape.passes, shape.num_layers, shape.num_experts), int)
    weights = 1.0 / np.arange(1, shape.num_experts + 1)
    for step, layer in np.ndindex(routed.shape[:2]):
        for _ in range(tokens[step]):
            few = rng.random() < 0.1
            count = rng.integers(0, shape.top_k + 1) if few else shape.top_k
            popularity = np.roll(weights, layer) / weights.sum()
            chosen = rng.choice(shape.num_experts, size=count, replace=False, p=popularity)
            routed[step, layer, chosen] += 1
    return routed


def make_gate(routed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weighs the demanded experts: as a trace without weights does, or at random."""
    demanded = routed > 0
    if rng.random() < 0.3:
        return demanded * (ONE // np.maximum(demanded.sum(-1, keepdims=True), 1))
    return demanded * np.maximum(some_equal(rng, routed.shape), 1)


def some_equal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws fixed-point numbers in 0..1, of which some are zero and some are equal."""
    coarse = rng.integers(0, 5, size=shape) * (ONE // 4)
    return np.where(rng.random(shape) < 0.5, coarse, rng.integers(0, ONE + 1, size=shape))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns fixed-point probabilities in the order of the logits."""
    weights = np.exp(logits / (1 << 16))
    return np.floor(weights / weights.sum(-1, keepdims=True) * ONE).astype(int)


@st.composite
def unit_sizes(draw, shape: Shape) -> list[list[int]]:
    """Draws the units of a copy by layer and tier: better tiers are never smaller."""
    if draw(st.booleans()):
        return [[shape.tiers - tier for tier in range(shape.tiers)]] * shape.num_layers
    sizes = st.lists(st.integers(1, 5), min_size=shape.tiers, max_size=shape.tiers)
    return [sorted(draw(sizes), reverse=True) for _ in range(shape.num_layers)]


@st.composite
def capacities(draw, shape: Shape, scope: str, units: list[list[int]]) -> list[int]:
    """Draws the units of each pool, from nothing to room for everything."""
    everything = [shape.num_experts * tiers[0] for tiers in units]
    pools = everything if scope == "layer" else [sum(everything)]
    return [draw(st.integers(0, size)) for size in pools]


def warm_start(
    shape: Shape,
    rng: np.random.Generator,
    scope: str,
    capacity: list[int],
    units: list[list[int]],
) -> np.ndarray:
    """Fills a part of the cache with copies of tier 0."""
    initial = np.zeros((shape.num_layers, shape.num_experts), bool)
    left = list(capacity)
    for layer, expert in np.ndindex(initial.shape):
        pool = layer if scope == "layer" else 0
        if rng.random() < 0.5 and units[layer][0] <= left[pool]:
            initial[layer, expert] = True
            left[pool] -= units[layer][0]
    return initial


def make_costs(shape: Shape, rng: np.random.Generator) -> Costs:
    """Draws ticks so small that transfers and gates often coincide."""

    def ticks(most: int, *size: int) -> list:
        return rng.integers(0, most + 1, size=size).tolist()

    return Costs(
        attention=ticks(int(rng.choice([0, 3, 12])), shape.passes),
        head=ticks(3, shape.passes),
        shared=ticks(2, shape.passes),
        expert_memory=ticks(3, shape.tiers),
        expert_per_1024=int(rng.integers(0, 3000)),
        host_memory=int(rng.integers(0, 5)),
        host_per_1024=int(rng.integers(0, 6000)),
        load=ticks(int(rng.choice([1, 4, 12])), shape.num_layers, shape.tiers),
        overlap=bool(rng.integers(2)),
        arrive=int(rng.choice([0, 1, 3])),
        decide=ticks(int(rng.choice([0, 1, 5])), shape.passes),
    )


def no_ticks(shape: Shape) -> Costs:
    """Returns costs that are all zero."""
    none = [0] * shape.passes
    load = [[0] * shape.tiers] * shape.num_layers
    return Costs(none, none, none, [0] * shape.tiers, 0, 0, 0, load, overlap=True)
