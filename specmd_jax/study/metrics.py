"""From counts to the numbers people quote, each with what it must not be read without."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from specmd_jax.policies.base import GATE, LOGITS
from specmd_jax.study.run import RunResult
from specmd_jax.traces import PREFILL, Trace

SIMULATED = "SIMULATED"
OPEN_LOOP = "OPEN-LOOP"
STALL_PERCENTILES = (50, 95, 99)


def summarise_result(trace: Trace, answer: RunResult) -> dict[str, Any]:
    """Returns the result of one configuration as plain numbers, ready for JSON.

    Ratios without a denominator are None. Times are in seconds, sizes in bytes.
    """
    setup, strategy = answer.setup, answer.setup.strategy
    per_pass = trace.shape.num_layers * trace.shape.top_k
    summary: dict[str, Any] = {
        "model": trace.provenance.model or None,
        "strategy": setup.name or None,
        "scope": strategy.scope,
        "admission": strategy.admission,
        "precisions": list(answer.copies.precisions),
        "start": setup.start,
        "capacity": setup.capacity,
        "capacity_slots": answer.capacity.slots,
        "capacity_bytes": answer.capacity.nbytes,
        "cycles": answer.capacity.slots / per_pass,
        "label": SIMULATED,
        "open_loop": strategy.open_loop,
        "touch_on_prefetch_insert": strategy.touch_on_prefetch_insert,
        "touch_on_prefetch_hit": strategy.touch_on_prefetch_hit,
    }
    summary |= count_summary(answer)
    summary |= _time_summary(trace, answer)
    summary["warnings"] = warnings(trace, answer, summary)
    return summary


def count_summary(answer: RunResult) -> dict[str, Any]:
    """Returns the counts of a configuration and the ratios that follow from them."""
    counts = answer.tally.counts
    totals = {name: int(values.sum()) for name, values in counts._asdict().items()}
    accesses, hits = totals["accesses"], totals["hits"]
    misses = accesses - hits
    prefetched, used = totals["prefetched"], totals["prefetch_used"]
    moved = _bytes_moved(answer)
    return {
        "accesses": accesses,
        "hits": hits,
        "misses": misses,
        "hit_rate": _ratio(hits, accesses),
        "collisions": totals["collisions"],
        "collisions_per_miss": _ratio(totals["collisions"], misses),
        "collisions_per_access": _ratio(totals["collisions"], accesses),
        "compulsory": totals["compulsory"],
        "loads": totals["loads"] + prefetched,
        "demand_loads": totals["loads"],
        "streamed": totals["streamed"],
        "dropped": totals["dropped"],
        "substituted": totals["substituted"],
        "on_host": totals["on_host"],
        "swapped": totals["swapped"],
        "evictions": totals["evictions"],
        "bytes_loaded": moved["loaded"],
        "prefetched": prefetched,
        "prefetch_queued": totals["queued"],
        "prefetch_dropped": totals["queued"] - prefetched,
        "prefetch_used": used,
        "prefetch_late": totals["late"],
        "prefetch_wasted": prefetched - used - totals["late"],
        "prefetch_precision": _ratio(used + totals["late"], prefetched),
        "prefetch_coverage": _ratio(used, used + misses),
        "prefetch_timeliness": _ratio(used, used + totals["late"]),
        "prefetch_wasted_bytes": moved["wasted"],
        "hit_rate_by_layer": _ratios(np.asarray(counts.hits), np.asarray(counts.accesses)),
        "collisions_by_layer": counts.collisions.tolist(),
        "misses_by_layer": (counts.accesses - counts.hits).tolist(),
    }


def _bytes_moved(answer: RunResult) -> dict[str, int | None]:
    nbytes, counts = answer.copies.nbytes, answer.tally.counts
    if nbytes is None:
        return {"loaded": None, "wasted": None}
    tier = -1 if answer.setup.strategy.miss.prefetch_last_tier else 0
    on_demand = int((counts.loads.astype(np.int64) * nbytes).sum())
    ahead = int((counts.prefetched.astype(np.int64) * nbytes[:, tier]).sum())
    useful = int(counts.prefetch_used.sum() + counts.late.sum())
    share = 1 - useful / max(int(counts.prefetched.sum()), 1)
    return {"loaded": on_demand + ahead, "wasted": round(ahead * share)}


def _time_summary(trace: Trace, answer: RunResult) -> dict[str, Any]:
    names = ("ttft_s", "tpot_s", "stall_s", "stall_share", "tokens_per_s")
    nothing: dict[str, Any] = dict.fromkeys(names) | {"stall_percentiles_s": None}
    times = answer.tally.times
    if times is None or answer.tick_s is None or answer.setup.hardware is None:
        return nothing | {"hardware": None}
    seconds, stall = (np.asarray(part, np.float64) * answer.tick_s for part in times)
    prefill = passes_where(trace, trace.phase == PREFILL)
    decode, per_token = seconds[~prefill], stall[~prefill]
    percentiles = (
        {f"p{q}": float(np.percentile(per_token, q)) for q in STALL_PERCENTILES}
        if len(per_token)
        else None
    )
    return {
        "hardware": answer.setup.hardware.name,
        "ttft_s": time_to_first_token(trace, seconds),
        "tpot_s": float(decode.mean()) if len(decode) else None,
        "tokens_per_s": _ratio(trace.num_tokens, float(seconds.sum())),
        "stall_s": float(stall.sum()),
        "stall_share": _ratio(float(stall.sum()), float(seconds.sum())),
        "stall_percentiles_s": percentiles,
    }


def time_to_first_token(trace: Trace, seconds: Float[np.ndarray, " P"]) -> float | None:
    """Returns the mean over requests of the time of their prefill passes, in seconds."""
    prefill = trace.phase == PREFILL
    if not prefill.any():
        return None
    pairs = np.unique(np.stack([trace.request[prefill], trace.step[prefill]]), axis=1)
    return float(seconds[pairs[1]].sum() / len(np.unique(pairs[0])))


def passes_where(trace: Trace, rows: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " P"]:
    """Returns the passes that hold any of `rows`."""
    flags = np.zeros(trace.num_passes, bool)
    flags[trace.step[rows]] = True
    return flags


def warnings(trace: Trace, answer: RunResult, summary: dict[str, Any]) -> list[str]:
    """Returns what a reader of the result must know, one sentence each."""
    shape, strategy = trace.shape, answer.setup.strategy
    notes = []
    zero_until = (shape.num_layers - 1) * shape.top_k
    if strategy.scope == "global" and answer.capacity.slots <= zero_until:
        notes.append(
            f"capacity is {summary['cycles']:.2f} of what one token touches: a global LRU without "
            f"prefetch hits nothing up to {zero_until} slots"
        )
    if strategy.open_loop:
        notes.append(
            f"{OPEN_LOOP}: this strategy changes the hidden states that follow, a recorded trace "
            "cannot; only a run of the model gives its hits and its quality"
        )
    if LOGITS in strategy.routing.reads and (np.bincount(trace.step) > 1).any():
        notes.append("routing bends only in passes of one token; the others are as recorded")
    if trace.weights is None and GATE in strategy.reads:
        notes.append("the trace records no gate weights: each chosen expert counts 1/k")
    if answer.setup.start == "popular":
        notes.append("the start placement was chosen with this very trace in view")
    return [*notes, *trace.provenance.doubts]


def regret(summary: dict[str, Any], belady: int, bypass: int) -> dict[str, Any]:
    """Returns how far a result is from the optimum, and what admission alone could recover.

    Args:
      belady: misses of Belady's optimum with forced admission, same capacity and scope.
      bypass: misses of the optimum that may decline to retain.
    """
    misses = summary["misses"]
    gap = misses - bypass
    return {
        "belady_misses": belady,
        "belady_bypass_misses": bypass,
        "regret": misses - belady,
        "regret_share": _ratio(misses - belady, misses),
        "admission_share": _ratio(belady - bypass, gap) if gap > 0 else None,
    }


def _ratio(part: int | float, whole: int | float) -> float | None:
    return part / whole if whole else None


def _ratios(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [_ratio(int(a), int(b)) for a, b in zip(part, whole, strict=True)]
