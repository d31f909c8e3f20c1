"""Whose fault the misses are, capacity by capacity: the policy's or the working set's.

Two optima that know the future divide the misses of a policy in three. *Unavoidable* are those
that even Belady's optimum with a choice of admission has; *admission* is what having to admit adds
to them; the rest is *victim choice*, the most that any other eviction policy could win. Both optima
hold for copies of one size; for several sizes they are good guesses.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from specmd_jax.traces import Trace
from specmd_jax.traces.analysis import exact_from, hit_curve, reuse_profile

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec
    from specmd_jax.study.run import RunResult
    from specmd_jax.study.setup import Setup

SHARES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.20, 0.25, 0.35, 0.50, 0.75)  # of all routed experts
OPTIMA = ("belady", "belady-bypass")
ENOUGH = 0.05  # of the accesses missed: from here on there is little to win

SENTENCES = {
    "cold start": "even the optimum misses {optimum} of accesses, mostly first uses: a warm start "
    "or a longer run, not a better policy",
    "working set": "even the optimum misses {optimum} of accesses: more capacity or fewer bytes "
    "help most; perfect victims would save {victim_choice} of the misses",
    "admission": "{admission} of the misses come from retaining what had better been streamed",
    "policy": "{victim_choice} of the misses are victim choice: a better policy can win part of "
    "that",
    "fits": "{hits} of accesses hit: there is little left to win",
}

Row = dict[str, Any]


def capacity_curve(
    trace: Trace,
    spec: "ModelSpec | None" = None,
    scope: str = "global",
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[Row]:
    """Returns the hit rates of policies and optima and the split of misses at ten capacities.

    With scope "layer" each layer keeps its own slots; with "global" policies may pool them.

    Args:
      spec: the model, for its sizes; None: it is not known.
      scope: "global" or "layer".
      on_progress: called with the share of the work that is done.
    """
    from specmd_jax.study.run import compare  # late: it loads all of JAX

    slots = _slots(trace)
    plan = {
        (name, size): setup for size in slots for name, setup in contenders(scope, size).items()
    }
    answers = dict(zip(plan, compare(trace, list(plan.values()), spec, on_progress), strict=True))
    names = list(dict.fromkeys(name for name, _ in plan))
    lru_share = _lru_share(trace, scope)
    return [
        _point(trace, {name: answers[name, size] for name in names}, share, lru_share)
        for size, share in slots.items()
    ]


def split_misses(misses: int, belady: int, bypass: int, compulsory: int) -> dict[str, int]:
    """Returns whose fault `misses` are: unavoidable + admission + victim_choice gives them all.

    A pool too small for an event's demand streams the rest, which is a way to decline. So a policy
    with a pool for each layer may beat the optimum that has to admit to a pool over all layers;
    no part of its misses is then victim choice.

    Args:
      belady: misses of the optimum that has to admit, at the same capacity.
      bypass: misses of the optimum that may decline.
      compulsory: first uses, a part of the unavoidable.
    """
    forced = min(misses, belady)
    unavoidable = min(forced, bypass)
    return {
        "misses": misses,
        "compulsory": compulsory,
        "unavoidable": unavoidable,
        "admission": forced - unavoidable,
        "victim_choice": misses - forced,
    }


def verdicts(curve: list[Row]) -> list[Row]:
    """Returns one sentence for each stretch of capacities that deserve the same."""
    stretches = (list(points) for _, points in groupby(curve, lambda point: point["verdict"]))
    return [
        {
            "from_share": points[0]["share"],
            "to_share": points[-1]["share"],
            "verdict": points[0]["verdict"],
            "text": _sentence(points),
        }
        for points in stretches
    ]


def share_range(shares: Iterable[float]) -> str:
    """Returns "61-78 %", or one figure where both ends round to it."""
    values = list(shares)
    low, high = f"{100 * min(values):.0f}", f"{100 * max(values):.0f}"
    return f"{low} %" if low == high else f"{low}-{high} %"


def _slots(trace: Trace) -> dict[int, float]:
    """Returns the capacities in slots, and which share of all experts each is."""
    total = trace.shape.num_layers * trace.num_experts
    return {size: size / total for size in sorted({max(1, int(s * total)) for s in SHARES})}


def contenders(scope: str, slots: int) -> dict[str, "Setup"]:
    """Returns the policies and optima that are compared at one capacity, by name."""
    from specmd_jax.policies.strategy import make_strategy
    from specmd_jax.study.setup import Setup

    choices = {name: make_strategy(name, scope=scope) for name in ("lru", "lfu", *OPTIMA)}
    if scope == "global":
        choices["lru per layer"] = make_strategy("lru", scope="layer")
    return {
        name: Setup(strategy, strategy.params, name, capacity=str(slots))
        for name, strategy in choices.items()
    }


def _lru_share(trace: Trace, scope: str) -> Callable[[float], float | None]:
    """Returns a function: what share of the experts LRU needs for a hit rate, None if unknown."""
    if trace.expert_bytes is not None and len(set(trace.expert_bytes.tolist())) > 1:
        return lambda hit_rate: None  # reuse distances count slots of one size
    profile = reuse_profile(trace, "layer" if scope == "layer" else "global")
    hits = np.maximum.accumulate(hit_curve(profile))
    least = exact_from(profile)

    def share(hit_rate: float) -> float | None:
        slots = int(np.searchsorted(hits, hit_rate - 1e-9))
        return slots / (len(hits) - 1) if least <= slots < len(hits) else None

    return share


def _point(
    trace: Trace,
    answers: dict[str, "RunResult"],
    share: float,
    lru_share: Callable[[float], float | None],
) -> Row:
    capacity, lru = answers["lru"].capacity, answers["lru"].tally.counts
    accesses, compulsory = int(lru.accesses.sum()), int(lru.compulsory.sum())
    misses = {
        name: accesses - int(answer.tally.counts.hits.sum()) for name, answer in answers.items()
    }
    hit_rate = {name: 1 - missed / accesses for name, missed in misses.items()}
    best = min((name for name in misses if name not in OPTIMA), key=misses.__getitem__)
    optima = (misses["belady"], misses["belady-bypass"], compulsory)
    split = split_misses(misses[best], *optima)
    return {
        "share": share,
        "slots": capacity.slots,
        "bytes": capacity.nbytes,
        "cycles": capacity.slots / (trace.shape.num_layers * trace.shape.top_k),
        "accesses": accesses,
        "hit_rate": hit_rate,
        "misses": misses,
        "best": best,
        "split": {"lru": split_misses(misses["lru"], *optima), "best": split},
        "lru_share_for_belady": lru_share(hit_rate["belady"]),
        "verdict": verdict_of(split, accesses),
    }


def verdict_of(split: dict[str, int], accesses: int) -> str:
    """Names the largest part of the misses, unless they are too few to matter."""
    if split["misses"] <= ENOUGH * accesses:
        return "fits"
    parts = {
        "working set": split["unavoidable"],
        "admission": split["admission"],
        "policy": split["victim_choice"],
    }
    largest = max(parts, key=parts.__getitem__)
    mostly_first = 2 * split["compulsory"] > split["unavoidable"]
    return "cold start" if largest == "working set" and mostly_first else largest


def _sentence(points: list[Row]) -> str:
    splits = [point["split"]["best"] for point in points]
    return SENTENCES[points[0]["verdict"]].format(
        optimum=share_range(1 - point["hit_rate"]["belady-bypass"] for point in points),
        hits=share_range(point["hit_rate"][point["best"]] for point in points),
        admission=share_range(split["admission"] / (split["misses"] or 1) for split in splits),
        victim_choice=share_range(
            split["victim_choice"] / (split["misses"] or 1) for split in splits
        ),
    )
