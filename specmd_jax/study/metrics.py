"""From counts to the numbers people quote, each with what it must not be read without."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int64, Integer

from specmd_jax.core.quantities import plural
from specmd_jax.policies.base import GATE, LOGITS
from specmd_jax.simulator.counts import Counts
from specmd_jax.study.run import RunResult
from specmd_jax.traces import PREFILL, Trace

SIMULATED = "SIMULATED"
OPEN_LOOP = "OPEN-LOOP"
PHASES = ("prefill", "decode")
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
    """Returns the counts of a configuration and the ratios that follow from them.

    `prefill` and `decode` are objects that hold the first of them for each phase.
    """
    tally = answer.tally
    totals = _totals(tally.counts)
    used, prefetched = totals["prefetch_used"], totals["prefetched"]
    decode = jax.tree.map(np.subtract, tally.counts, tally.prefill)
    counts = tally.counts
    whole = _phase(answer, counts)
    misses = whole["misses"]
    return {
        **whole,
        "collisions_per_miss": _ratio(totals["collisions"], misses),
        "collisions_per_access": _ratio(totals["collisions"], totals["accesses"]),
        "compulsory": totals["compulsory"],
        "demand_loads": totals["loads"],
        "streamed": totals["streamed"],
        "dropped": totals["dropped"],
        "substituted": totals["substituted"],
        "on_host": totals["on_host"],
        "swapped": totals["swapped"],
        "evictions": totals["evictions"],
        "prefetched": prefetched,
        "prefetch_queued": totals["queued"],
        "prefetch_dropped": totals["queued"] - prefetched,
        "prefetch_used": used,
        "prefetch_late": totals["late"],
        "prefetch_wasted": prefetched - used - totals["late"],
        "prefetch_precision": _ratio(used + totals["late"], prefetched),
        "prefetch_coverage": _ratio(used, used + misses),
        "prefetch_timeliness": _ratio(used, used + totals["late"]),
        "prefetch_wasted_bytes": _wasted_bytes(answer, totals),
        "hit_rate_by_layer": _ratios(np.asarray(counts.hits), np.asarray(counts.accesses)),
        "collisions_by_layer": counts.collisions.tolist(),
        "misses_by_layer": (counts.accesses - counts.hits).tolist(),
        "prefill": _phase(answer, tally.prefill),
        "decode": _phase(answer, decode),
    }


def _totals(counts: Counts) -> dict[str, int]:
    """Returns the sums over layers, and of loads over tiers."""
    return {name: int(np.sum(part, dtype=np.int64)) for name, part in counts._asdict().items()}


def _phase(answer: RunResult, counts: Counts) -> dict[str, Any]:
    """Returns what is told of each phase and of the whole."""
    totals = _totals(counts)
    return {
        "accesses": totals["accesses"],
        "hits": totals["hits"],
        "misses": totals["accesses"] - totals["hits"],
        "hit_rate": _ratio(totals["hits"], totals["accesses"]),
        "collisions": totals["collisions"],
        "loads": totals["loads"] + totals["prefetched"],
        "bytes_loaded": _bytes_loaded(answer, counts),
    }


def _bytes_loaded(answer: RunResult, counts: Counts) -> int | None:
    nbytes = answer.copies.nbytes
    if nbytes is None:
        return None
    on_demand = int((counts.loads.astype(np.int64) * nbytes).sum())
    return on_demand + _bytes_prefetched(answer, counts, nbytes)


def _bytes_prefetched(answer: RunResult, counts: Counts, nbytes: Integer[np.ndarray, "L Q"]) -> int:
    tier = -1 if answer.setup.strategy.miss.prefetch_last_tier else 0
    return int((counts.prefetched.astype(np.int64) * nbytes[:, tier]).sum())


def _wasted_bytes(answer: RunResult, totals: dict[str, int]) -> int | None:
    """Returns the bytes of prefetches that nobody used, each taken to be of the mean size."""
    if answer.copies.nbytes is None:
        return None
    ahead = _bytes_prefetched(answer, answer.tally.counts, answer.copies.nbytes)
    useful = totals["prefetch_used"] + totals["late"]
    return round(ahead * (1 - useful / max(totals["prefetched"], 1)))


def _time_summary(trace: Trace, answer: RunResult) -> dict[str, Any]:
    names = ("ttft_s", "tpot_s", "stall_s", "stall_share", "tokens_per_s", "prefill_tokens_per_s")
    nothing: dict[str, Any] = dict.fromkeys(names) | {"stall_percentiles_s": None}
    times, tick = answer.tally.times, answer.tick_s
    if times is None or tick is None or answer.setup.hardware is None:
        return nothing | {"hardware": None}
    ticks, stalls = (np.asarray(part, np.int64) for part in times)
    prefill = passes_where(trace, trace.phase == PREFILL)
    early, late = (_seconds(ticks[passes], tick) for passes in (prefill, ~prefill))
    stall, per_pass = _seconds(stalls, tick), stalls[~prefill] * tick
    percentiles = (
        {f"p{q}": float(np.percentile(per_pass, q)) for q in STALL_PERCENTILES}
        if len(per_pass)
        else None
    )
    prompt = int((trace.phase == PREFILL).sum())
    return {
        "hardware": answer.setup.hardware.name,
        "ttft_s": time_to_first_token(trace, ticks, tick),
        "tpot_s": _ratio(late, len(per_pass)),
        "tokens_per_s": _ratio(trace.num_tokens - prompt, late),
        "prefill_tokens_per_s": _ratio(prompt, early),
        "stall_s": stall,
        "stall_share": _ratio(stall, _seconds(ticks, tick)),
        "stall_percentiles_s": percentiles,
    }


def _seconds(ticks: Int64[np.ndarray, " P"], tick_s: float) -> float:
    """Returns the sum, in seconds; exact, for the ticks of a trace that can be replayed fit."""
    return int(ticks.sum()) * tick_s


def time_to_first_token(
    trace: Trace, ticks: Int64[np.ndarray, " P"], tick_s: float
) -> float | None:
    """Returns the mean over requests of the time of their prefill passes, in seconds."""
    prefill = trace.phase == PREFILL
    if not prefill.any():
        return None
    pairs = np.unique(np.stack([trace.request[prefill], trace.step[prefill]]), axis=1)
    return _seconds(ticks[pairs[1]], tick_s) / len(np.unique(pairs[0]))


def passes_where(trace: Trace, rows: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " P"]:
    """Returns the passes that hold any of `rows`."""
    flags = np.zeros(trace.num_passes, bool)
    flags[trace.step[rows]] = True
    return flags


def warnings(trace: Trace, answer: RunResult, summary: dict[str, Any]) -> list[str]:
    """Returns what a reader of the result must know, one sentence each."""
    shape, strategy = trace.shape, answer.setup.strategy
    notes = []
    if (slip := _slots_for_percent(trace, answer)) is not None:
        notes.append(slip)
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


def _slots_for_percent(trace: Trace, answer: RunResult) -> str | None:
    """Returns a warning where a bare number of slots was probably meant as a percentage."""
    text, top_k = answer.capacity.text, trace.shape.top_k
    pools = 1 if answer.setup.strategy.scope == "global" else trace.shape.num_layers
    if not text.isdecimal() or answer.capacity.slots // pools >= top_k or int(text) > 100:
        return None
    each = "" if pools == 1 else f", {answer.capacity.slots // pools} a layer"
    return (
        f"capacity {text} is {plural(int(text), 'slot')}{each}, fewer than the {top_k} experts "
        f"that one token asks of one layer: for a share of all experts write {text}%"
    )


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
