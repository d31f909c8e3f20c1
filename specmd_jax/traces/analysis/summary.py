"""The whole character of a trace in one record of plain numbers."""

from typing import NamedTuple

import numpy as np

from specmd_jax.traces.analysis import locality
from specmd_jax.traces.analysis.accesses import demand_sizes
from specmd_jax.traces.analysis.loops import find_loops
from specmd_jax.traces.analysis.reuse import exact_from, hit_curve, reuse_profile
from specmd_jax.traces.analysis.working_set import mean_working_set
from specmd_jax.traces.trace import PREFILL, Trace


class TraceSummary(NamedTuple):
    """What `inspect` shows. Per-layer measures are means over the layers; NaN: not defined."""

    tokens: int
    passes: int
    requests: int
    layers: int
    experts: int  # a layer
    top_k: int
    prefill_share: float  # of the tokens
    demand: float  # distinct experts an event asks for, mean
    largest_demand: int  # of one event
    entropy_bits: float  # of expert popularity
    entropy_share: float  # of log2 N
    top_10_percent: float  # share of the choices on the 10 % most popular experts
    top_20_percent: float
    top_40_percent: float
    overlap: float  # of a token's experts with those of the token before
    overlap_uniform: float  # what chance gives if all experts are alike
    overlap_popularity: float  # what popularity explains: tokens of the trace shuffled
    overlap_topic: float  # what popularity and topic explain: shuffled inside each request
    jaccard: float  # the same pairs as `overlap`, over the union
    pass_experts: float  # distinct (layer, expert) pairs of one pass, mean
    eight_pass_experts: float  # of eight passes on end
    reuse_median: int | None  # slots in which LRU keeps half of the uses that are no first ones
    reuse_90_percent: int | None  # the same for 90 %; None: all uses are first ones
    first_use_share: float  # of the accesses: compulsory misses
    lru_hits_quarter: float  # global LRU from cold, a quarter of all experts fit
    lru_hits_half: float
    lru_exact_from: int  # slots: below, the LRU figures are only a trend
    loops: int  # requests that fell into repetition
    loop_requests: tuple[int, ...]  # which
    loop_share: float  # of decode tokens
    is_loop: bool  # True: a stress case, not evidence


def summarise(trace: Trace) -> TraceSummary:
    """Measure skew, locality, working set and repetition of a trace."""
    layers, experts, top_k = trace.shape
    sizes = demand_sizes(trace)
    looped = find_loops(trace)
    near, wide = mean_working_set(trace, (1, 8))
    return TraceSummary(
        tokens=trace.num_tokens,
        passes=trace.num_passes,
        requests=len(np.unique(trace.request)),
        layers=layers,
        experts=experts,
        top_k=top_k,
        prefill_share=float((trace.phase == PREFILL).mean()),
        demand=float(sizes.mean()),
        largest_demand=int(sizes.max()),
        **_skew(trace),
        **_repetition(trace),
        pass_experts=float(near),
        eight_pass_experts=float(wide),
        **_reuse(trace),
        loops=len(looped.loops),
        loop_requests=tuple(loop.request for loop in looped.loops),
        loop_share=looped.share,
        is_loop=looped.is_loop,
    )


def _skew(trace: Trace) -> dict[str, float]:
    counts = locality.expert_counts(trace)
    bits = float(locality.popularity_entropy(counts).mean())
    most = float(np.log2(trace.num_experts))
    return {
        "entropy_bits": bits,
        "entropy_share": bits / most if most else float("nan"),
        **{
            f"top_{p}_percent": float(locality.top_share(counts, p / 100).mean())
            for p in (10, 20, 40)
        },
    }


def _repetition(trace: Trace) -> dict[str, float]:
    measures = {
        "overlap": locality.overlap(trace),
        "overlap_uniform": locality.uniform_chance_overlap(trace),
        "overlap_popularity": locality.chance_overlap(trace),
        "overlap_topic": locality.topic_chance_overlap(trace),
        "jaccard": locality.jaccard(trace),
    }
    return {name: _mean(values) for name, values in measures.items()}


def _reuse(trace: Trace) -> dict:
    profile = reuse_profile(trace)
    hits = hit_curve(profile)
    slots = len(hits) - 1
    return {
        "reuse_median": _depth(hits, 0.5),
        "reuse_90_percent": _depth(hits, 0.9),
        "first_use_share": float(1 - hits[-1]),
        "lru_hits_quarter": float(hits[slots // 4]),
        "lru_hits_half": float(hits[slots // 2]),
        "lru_exact_from": exact_from(profile),
    }


def _depth(hits: np.ndarray, share: float) -> int | None:
    """Least capacity that hits a share of what can be hit at all."""
    return int((hits < share * hits[-1]).sum()) if hits[-1] else None


def _mean(values: np.ndarray) -> float:
    """Mean over the layers that define the measure; NaN if none does."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
