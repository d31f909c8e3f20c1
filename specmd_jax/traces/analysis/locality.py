"""How skewed and how repetitive the routing of a trace is, layer by layer."""

import numpy as np
from jaxtyping import Float, Int

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import PAD, Trace


def expert_counts(trace: Trace) -> Int[np.ndarray, "L N"]:
    """Count the tokens that chose each expert."""
    return _counts(trace.experts, trace.num_experts)


def popularity_entropy(counts: Int[np.ndarray, "L N"]) -> Float[np.ndarray, " L"]:
    """Measure how evenly a layer uses its experts, in bits: log2 N where all are used alike."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(1)


def top_share(counts: Int[np.ndarray, "L N"], fraction: float) -> Float[np.ndarray, " L"]:
    """Give the share of the choices that falls on the most popular `fraction` of the experts.

    A fraction that is no whole number of experts is interpolated linearly.
    """
    num_experts = counts.shape[1]
    ranked = -np.sort(-counts, axis=1)
    lorenz = np.pad(ranked.cumsum(1), ((0, 0), (1, 0))) / np.maximum(ranked.sum(1)[:, None], 1)
    at = fraction * num_experts
    return np.array([np.interp(at, np.arange(num_experts + 1), row) for row in lorenz])


def overlap(trace: Trace, lag: int = 1) -> Float[np.ndarray, " L"]:
    """Give the share of a token's experts that the token `lag` before it used too.

    Both tokens belong to one request. The ratio is pooled over the pairs; NaN where no request
    has more than `lag` tokens.
    """
    shared, size, _ = _pair_sizes(trace, lag)
    return _ratio(shared.sum(0), size.sum(0))


def jaccard(trace: Trace, lag: int = 1) -> Float[np.ndarray, " L"]:
    """Give the mean of |A & B| / |A | B| over the tokens of a request that are `lag` apart.

    NaN where no request has more than `lag` tokens.
    """
    shared, size, other = _pair_sizes(trace, lag)
    union = size + other - shared
    filled = union > 0
    each = np.divide(shared, union, out=np.zeros(shared.shape), where=filled)
    return _ratio(each.sum(0), filled.sum(0))


def uniform_chance_overlap(trace: Trace) -> Float[np.ndarray, " L"]:
    """Give the overlap of independent draws in which all experts are alike: k / N."""
    chosen = (trace.experts != PAD).sum((0, 2))
    return chosen / (trace.num_tokens * trace.num_experts)


def chance_overlap(trace: Trace) -> Float[np.ndarray, " L"]:
    """Give the overlap that is left when the tokens of the whole trace are shuffled.

    It is what popularity alone explains; exact, as the mean over all pairs of tokens.
    """
    return _ratio(*_shuffled(trace.experts, trace.num_experts))


def topic_chance_overlap(trace: Trace) -> Float[np.ndarray, " L"]:
    """Give the overlap that is left when tokens are shuffled inside each request.

    What exceeds `chance_overlap` is the request's topic; what `overlap` has beyond this is
    order, the part that a recency policy can use.
    """
    order = np.argsort(trace.request, kind="stable")
    cuts = np.flatnonzero(np.diff(trace.request[order])) + 1
    parts = [
        _shuffled(trace.experts[rows], trace.num_experts)
        for rows in np.split(order, cuts)
        if len(rows) > 1
    ]
    if not parts:
        return np.full(trace.shape.num_layers, np.nan)
    return _ratio(*np.sum(parts, axis=0))


def successive(request: Int[np.ndarray, " T"], lag: int) -> Int[np.ndarray, "2 R"]:
    """Pair the rows of tokens that are `lag` apart in their request: earlier, then later."""
    if lag < 1:
        raise InputError(f"no token stands {lag} tokens before another: give a lag of 1 or more")
    order = np.argsort(request, kind="stable")
    earlier, later = order[:-lag], order[lag:]
    together = request[earlier] == request[later]
    return np.stack([earlier[together], later[together]])


def _counts(experts: np.ndarray, num_experts: int) -> np.ndarray:
    layers = experts.shape[1]
    item = np.arange(layers)[:, None] * num_experts + experts
    counted = np.bincount(item[experts != PAD], minlength=layers * num_experts)
    return counted.reshape(layers, num_experts)


def _pair_sizes(trace: Trace, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pair of tokens and layer: experts shared, of the later token, of the earlier one."""
    earlier, later = successive(trace.request, lag)
    shared = np.zeros((len(later), trace.shape.num_layers), np.int16)
    for slot in range(trace.shape.top_k):
        other = trace.experts[earlier, :, slot, None]
        shared += ((trace.experts[later] == other) & (other != PAD)).any(-1)
    sizes = (trace.experts != PAD).sum(-1, dtype=np.int16)
    return shared, sizes[later], sizes[earlier]


def _shuffled(experts: np.ndarray, num_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Experts shared and experts drawn, per layer, summed over pairs drawn without replacement.

    Scaled to one pair a token, so that requests of different length can be added up.
    """
    counts = _counts(experts, num_experts)
    shared = (counts * (counts - 1)).sum(1) / max(len(experts) - 1, 1)
    return shared, counts.sum(1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
