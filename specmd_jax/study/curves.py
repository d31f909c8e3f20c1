"""Miss-ratio curves: many policies over one trace, each at every capacity."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from specmd_jax.core.errors import InputError
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.strategy import Strategy, make_strategy
from specmd_jax.simulator.engines.curve import Curve, capacity_curve, why_no_curve
from specmd_jax.simulator.events import check_recorded
from specmd_jax.traces import Trace

DEFAULT = ("lru", "lfu", "least-stale", "fld-cyclic", "belady")

COUNTS = ("hits", "misses", "collisions", "streamed", "evictions")


class Curves(NamedTuple):
    """The curves that there are, and why there are not more."""

    found: dict[str, Curve]  # by eviction policy
    refused: dict[str, str]  # the reason, by eviction policy


def curves_of(
    trace: Trace,
    evictions: Sequence[str],
    scope: str = "global",
    on_progress: Callable[[float], None] = lambda share: None,
) -> Curves:
    """Walks a trace once for each policy.

    Args:
      evictions: names of policies; "all" stands for every one.
      scope: "global": one pool of slots; "layer": a quota for each layer.
      on_progress: called with the share of the policies that are done.

    Raises:
      InputError: a policy is unknown, or none of them has a curve.
    """
    names = list(EVICTIONS) if "all" in evictions else list(evictions)
    strategies = {name: make_strategy(name, scope=scope) for name in names}
    found: dict[str, Curve] = {}
    refused: dict[str, str] = {}
    for number, (name, strategy) in enumerate(strategies.items(), start=1):
        reason = _refusal(trace, strategy)
        if reason is None:
            found[name] = capacity_curve(trace, strategy)
        else:
            refused[name] = reason
        on_progress(number / len(strategies))
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise InputError(f"none of these has a curve in one walk: {reasons}; use specmd sweep")
    return Curves(found, refused)


def _refusal(trace: Trace, strategy: Strategy) -> str | None:
    """Returns why there is no curve, of a policy or of this trace; None if there is one."""
    reason = why_no_curve(strategy)
    if reason is None:
        try:
            check_recorded(trace, strategy.reads, strategy.lookahead)
        except InputError as error:
            reason = str(error)
    return reason


def curve_record(name: str, scope: str, curve: Curve) -> dict[str, Any]:
    """Returns a curve as lists over its capacities, from one slot on, summed over layers."""
    counts = {count: getattr(curve, count)[:, 1:].sum(axis=0).tolist() for count in COUNTS}
    return {
        "eviction": name,
        "scope": scope,
        "capacity": list(range(1, curve.hits.shape[1])),
        "accesses": int(curve.accesses.sum()),
        "compulsory": int(curve.compulsory.sum()),
        **counts,
        "loads": counts["misses"],
    }


def curve_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a `curve_record` as the rows of a table, one a capacity."""
    lists = {name: values for name, values in record.items() if isinstance(values, list)}
    once = {name: value for name, value in record.items() if name not in lists}
    return [
        once | dict(zip(lists, values, strict=True)) | {"hit_rate": _rate(once, lists, place)}
        for place, values in enumerate(zip(*lists.values(), strict=True))
    ]


def _rate(once: Mapping[str, Any], lists: Mapping[str, list[int]], place: int) -> float | None:
    return lists["hits"][place] / once["accesses"] if once["accesses"] else None
