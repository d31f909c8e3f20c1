"""Hit rates where there is no trace: what published routing statistics lead one to expect.

A layer of router scores is drawn by `traces.synthetic` and replayed through an exact LRU stack, so
a hit rate from here is an ESTIMATE of a per-layer LRU on text like that of the sources.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from specmd_jax.core.types import ModelShape
from specmd_jax.traces import PAD, Trace
from specmd_jax.traces.analysis import hit_curve, reuse_profile
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SOURCE = (
    "Qwen3-30B-A3B's locality (lag-1 Jaccard 0.29, top 10/20/40 % of the experts draw "
    "25/44/72 % of the uses; arXiv 2608.07911), drawn anew for this model's shape"
)
TOKENS = 1800
REQUESTS = 6
LAYERS = 2  # drawn: layers are alike here
# Chosen so that 128 experts, top-8 come out as the source measured. What it measured beside them,
# 75.4 % of hits with room for 40 % of the experts, is then met within a point.
_SKEW, _FLAT, _RHO, _TOPIC = 1.5, 1.0, 0.68, 0.12
KNEE = 2  # times a token's experts: where hit rates level off over 20 models (moe-lrc, ICLR '26)


class Locality(NamedTuple):
    """Hit rates of a per-layer LRU against its slots, and how a prompt's demand grows."""

    hit_rate: Float[np.ndarray, " C"]  # at 0, 1, ..., N slots a layer
    union: Float[np.ndarray, " U"]  # distinct experts of a layer in the first 0, 1, ... tokens
    source: str

    def at(self, slots_per_layer: int | float) -> float:
        """Returns the hit rate at a number of slots, between whole ones by interpolation."""
        places = np.arange(len(self.hit_rate))
        return float(np.interp(slots_per_layer, places, self.hit_rate))

    def demanded(self, tokens: int) -> float:
        """Returns the distinct experts that a prompt demands of a layer.

        Beyond the longest prompt that was seen, what is left is approached as it was at its end.
        """
        longest = len(self.union) - 1
        if tokens <= longest:
            return float(self.union[tokens])
        left = len(self.hit_rate) - 1 - self.union
        half = max(longest // 2, 1)
        rate = np.log(max(left[half], 1e-9) / max(left[longest], 1e-9)) / max(longest - half, 1)
        rest = max(left[longest], 0.0) * np.exp(-max(rate, 0.0) * (tokens - longest))
        return float(len(self.hit_rate) - 1 - rest)

    def slots_for(self, hit_rate: float) -> int | None:
        """Returns the fewest slots a layer that reach a hit rate; None: none do."""
        enough = np.flatnonzero(self.hit_rate >= hit_rate)
        return int(enough[0]) if len(enough) else None


@lru_cache(maxsize=32)
def published_locality(num_experts: int, top_k: int) -> Locality:
    """Returns what to expect of a router of this shape, if it is like those measured."""
    shape = ModelShape(LAYERS, num_experts, top_k)
    spec = SyntheticSpec(
        shape,
        requests=REQUESTS,
        tokens=TOKENS // REQUESTS,
        skew=_SKEW,
        flat=_FLAT * num_experts,
        rho=_RHO,
        topic_share=_TOPIC,
        record_weights=False,
    )
    trace = generate(spec, seed=0)
    curve = hit_curve(reuse_profile(trace, "layer"))
    # Every second capacity, where both layers have as many slots.
    warm = curve[::LAYERS]
    # First uses are no part of a long run's hit rate: with room for all there are only hits.
    curve = warm / warm[-1]
    # Below one token's experts no stack describes LRU: what fits is hit in proportion.
    curve[:top_k] = curve[top_k] * np.arange(top_k) / top_k
    return Locality(curve, _unions(trace), SOURCE)


def trace_locality(trace: Trace, name: str) -> Locality:
    """Returns the hit rates of a per-layer LRU over a trace, exact from a token's experts on.

    They include first uses: a short trace is a cold one.
    """
    layers, _, top_k = trace.shape
    curve = hit_curve(reuse_profile(trace, "layer"))[::layers].copy()
    exact = min(top_k, len(curve) - 1)
    curve[:exact] = curve[exact] * np.arange(exact) / exact
    return Locality(
        curve, _unions(trace), f"SIMULATED, per-layer LRU over {name} ({trace.num_tokens} tokens)"
    )


def _unions(trace: Trace) -> Float[np.ndarray, " U"]:
    """Returns the mean number of distinct experts a layer in the first 0, 1, ... tokens.

    Of the requests of at least median length, up to that length.
    """
    requests, sizes = np.unique(trace.request, return_counts=True)
    length = int(np.median(sizes))
    grown = []
    for request in requests[sizes >= length]:
        experts = trace.experts[trace.request == request][:length]
        used = np.zeros((length, trace.shape.num_layers, trace.num_experts), bool)
        token, layer, _ = np.nonzero(experts != PAD)
        used[token, layer, experts[experts != PAD]] = True
        grown.append(np.logical_or.accumulate(used, axis=0).sum(axis=2).mean(axis=1))
    return np.concatenate([[0.0], np.mean(grown, axis=0)])
