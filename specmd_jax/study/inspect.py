"""What a trace is like, and whether its misses are the policy's fault or the working set's."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from specmd_jax.core.quantities import percent, plural
from specmd_jax.study.capacity_split import capacity_curve, verdicts
from specmd_jax.traces import Trace, slice_passes
from specmd_jax.traces.analysis import (
    describe_trace,
    foreseen_recall,
    foreseen_recall_by_layer,
    summarise,
)

if TYPE_CHECKING:
    from specmd_jax.model_zoo import ModelSpec

MAX_PASSES = 4000


def inspect_trace(
    trace: Trace,
    spec: "ModelSpec | None" = None,
    *,
    scope: str = "global",
    max_passes: int = MAX_PASSES,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Returns what a trace is like and how its misses split at ten capacities, ready for JSON.

    Args:
      spec: the model, for sizes in bytes; None: the zoo's, if the trace names one.
      scope: "global": policies may pool all layers; "layer": each layer keeps its own slots.
      max_passes: only the first so many passes are replayed; the facts are of all of them.
      on_progress: called with the share of the replays that is done.

    Raises:
      InputError: the model or the scope does not fit, or no pass is left to replay.
    """
    from specmd_jax.study.metrics import SIMULATED  # late: it loads all of JAX

    facts = describe_trace(trace) | _without_nan(summarise(trace)._asdict()) | _foresight(trace)
    replayed = slice_passes(trace, 0, min(max_passes, trace.num_passes))
    curve = capacity_curve(replayed, spec, scope, on_progress)
    return {
        "facts": facts,
        "label": SIMULATED,
        "scope": scope,
        "replayed_passes": replayed.num_passes,
        "curve": curve,
        "verdicts": verdicts(curve),
        "warnings": _warnings(facts, replayed.num_passes) + facts["doubts"],
    }


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces what is not defined by None: JSON has no NaN."""
    undefined = (k for k, v in values.items() if isinstance(v, float) and math.isnan(v))
    return values | dict.fromkeys(undefined)


def _foresight(trace: Trace) -> dict[str, Any]:
    """Returns recall@k of the predictions by lookahead, and by layer; None: not foreseen."""
    if trace.predicted is None:
        return {"foreseen_recall": None, "foreseen_recall_by_layer": None}
    overall, by_layer = foreseen_recall(trace), foreseen_recall_by_layer(trace)
    return {
        "foreseen_recall": _defined(overall.tolist()),
        "foreseen_recall_by_layer": [_defined(row) for row in by_layer.tolist()],
    }


def _defined(shares: list[float]) -> list[float | None]:
    return [None if math.isnan(share) else share for share in shares]


def _warnings(facts: dict[str, Any], replayed: int) -> list[str]:
    notes = []
    if facts["loops"]:
        notes.append(
            f"{facts['loops']} of {plural(facts['requests'], 'request')} fell into repetition "
            f"({_first(facts['loop_requests'])}), {percent(facts['loop_share'])} of the decode "
            "tokens"
            + (": a stress case, its hit rates are no evidence" if facts["is_loop"] else "")
        )
    if replayed < facts["passes"]:
        notes.append(f"the curve replays the first {replayed:,} of {facts['passes']:,} passes only")
    return notes


def _first(numbers: tuple[int, ...], most: int = 5) -> str:
    """Names the first few requests."""
    named = ", ".join(map(str, numbers[:most]))
    return f"number {named}" + (", ..." if len(numbers) > most else "")
