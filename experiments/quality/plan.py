"""Which policies, at which capacities, the price of lossiness is measured of."""

from typing import Any

# One, two and four passes of the bundled model: with less, LRU keeps nothing of a layer until it
# comes round again, and what looks for residents to use instead finds none.
CAPACITIES = ("12.5%", "25%", "50%")
LOW = ("bf16", "int4", "int2")
EVICTION = "lru"
POLICIES: dict[str, dict[str, Any]] = {
    "fetch": {},
    "drop-priority": {"miss": "drop-priority"},
    "drop-priority-cascade": {"miss": "drop-priority-cascade", "precision": ("bf16", "int4")},
    "fetch-lowest-bit int4": {"miss": "fetch-lowest-bit", "precision": ("bf16", "int4")},
    "fetch-lowest-bit int2": {"miss": "fetch-lowest-bit", "precision": ("bf16", "int2")},
    "fetch-priority": {"miss": "fetch-priority", "precision": LOW},
    "substitute": {"miss": "substitute"},
    "substitute-unbounded": {"miss": "substitute-unbounded"},
    "cache-prior": {"routing": "cache-prior"},
    "max-rank": {"routing": "max-rank"},
    "cumulative-mass": {"routing": "cumulative-mass"},
}


def _zero_fill(share: float) -> dict[str, Any]:
    """Misses are computed until `share` of the gate weight is served, and dropped after."""
    bounds = (("miss.high", str(share)), ("miss.low", str(share)))
    return {"miss": "drop-priority-cascade", "params": bounds}


def _stand_ins(alpha: float) -> dict[str, Any]:
    return {"miss": "substitute", "params": (("miss.alpha", str(alpha)),)}


# What an engine published for OLMoE, as nearly as these policies come to it: half of each layer's
# experts stay, misses are zero-filled or replaced by a cached expert.
HALF = "50%"  # of a layer's experts
FRONTIER: dict[str, dict[str, Any]] = {
    "fetch": {},
    "zero-fill past 0.9 of the weight": _zero_fill(0.9),
    "zero-fill past 0.75": _zero_fill(0.75),
    "zero-fill past 0.5": _zero_fill(0.5),
    "cached substitute, alpha 0.1": _stand_ins(0.1),
    "cached substitute, alpha 0.3": _stand_ins(0.3),
    "cached substitute, alpha 0.6": _stand_ins(0.6),
    "substitute all": {"miss": "substitute-unbounded"},
}
