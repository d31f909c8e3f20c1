"""Hits and collision misses by eviction policy: the paper's Figures 4, 5 and 8 on recorded traces.

    python -m experiments.collisions.run      # minutes; goes on where it was stopped
    python -m experiments.collisions.report   # seconds; draws what `run` wrote

Writes collisions.parquet, collisions.png (with prefetch, int4 copies: the paper's setting),
collisions_demand.png (no prefetch, bf16 copies), collisions_by_layer.png and collisions.md.

A capacity is a share of the bytes that all routed experts take at bf16. The paper's residents are
int4 copies, so 5 % of the bytes are 20 % of the experts; both readings are replayed.
"""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import tyro

from experiments.collisions.report import draw
from experiments.shared.recordings import RECORDED, RESULTS, Parts, Rows, finish, load
from specmd_jax.hardware.capacity import copies_of, find_model, parse_capacity
from specmd_jax.policies.prefetch.noisy_oracle import NoisyOracleParams
from specmd_jax.policies.strategy import Strategy, make_strategy
from specmd_jax.study.metrics import SIMULATED, count_summary
from specmd_jax.study.run import RunResult, compare
from specmd_jax.study.setup import Setup
from specmd_jax.traces import Trace

SHARES = ("1%", "5%", "25%")
PRECISIONS = ("bf16", "int4")
RECALL = 0.9
ORACLE, PREVIOUS, NOTHING = "oracle 0.9", "previous", "none"

# In the order of the pictures: by what a policy looks at, from nothing to the future.
POLICIES: dict[str, Strategy] = {
    "random": make_strategy("random"),
    "lru": make_strategy("lru"),
    "lru, gate only": make_strategy("lru", touch_on_prefetch_insert=False),
    "lfu": make_strategy("lfu"),
    "lfru": make_strategy("lfru"),
    "sieve": make_strategy("sieve"),
    "s3-fifo": make_strategy("s3-fifo"),
    "score-based": make_strategy("score-based"),
    "fld": make_strategy("fld"),
    "fld-cyclic": make_strategy("fld-cyclic"),
    "least-stale R1": make_strategy("least-stale-fifo"),
    "least-stale R2": make_strategy("least-stale-lru"),
    "least-stale R3": make_strategy("least-stale"),
    "belady": make_strategy("belady"),
}
WITH_PREVIOUS = ("lru", "lfu", "score-based", "fld-cyclic", "least-stale R3", "belady")
KEPT = (
    "accesses", "hits", "misses", "hit_rate", "collisions", "collisions_per_miss",
    "collisions_per_access", "compulsory", "loads", "evictions", "prefetched",
    "prefetch_precision", "hit_rate_by_layer", "misses_by_layer", "collisions_by_layer",
)  # fmt: skip


def parts(traces: dict[str, Trace]) -> Parts:
    """Returns what computes the rows: one part for each model, policy and kind of predictor."""
    found: dict[str, Callable[[], Rows]] = {}
    for model, trace in traces.items():
        for policy in POLICIES:
            found[f"{model}: {policy}"] = partial(_with_oracle, model, trace, policy)
            if policy in WITH_PREVIOUS:
                about = f"{model}: {policy}, prefetch previous"
                found[about] = partial(_with_previous, model, trace, policy)
    return found


def _with_oracle(model: str, trace: Trace, policy: str) -> Rows:
    """Replays with a predictor of recall 0.9 and, as recall 0 names nothing, without any."""
    strategy = POLICIES[policy]._replace(prefetch=make_strategy(prefetch="noisy-oracle").prefetch)
    plan = {}
    for prefetch, recall in ((NOTHING, 0.0), (ORACLE, RECALL)):
        params = strategy.params._replace(prefetch=NoisyOracleParams(recall=recall))
        for cell, slots in slots_of(trace).items():
            plan[prefetch, *cell] = Setup(strategy, params, policy, capacity=slots)
    return _rows(model, trace, plan)


def _with_previous(model: str, trace: Trace, policy: str) -> Rows:
    """Replays with the guess that a token uses what the token before it used."""
    strategy = POLICIES[policy]._replace(prefetch=make_strategy(prefetch="previous").prefetch)
    plan = {
        (PREVIOUS, *cell): Setup(strategy, strategy.params, policy, capacity=slots)
        for cell, slots in slots_of(trace).items()
    }
    return _rows(model, trace, plan)


def slots_of(trace: Trace) -> dict[tuple[str, str], str]:
    """Returns the slots of each (precision, share): all copies are of one size, so slots do."""
    spec = find_model(trace.provenance.model, trace.shape)
    cells = {}
    for precision in PRECISIONS:
        copies = copies_of(trace.shape, (precision,), spec)
        for share in SHARES:
            cells[precision, share] = str(
                parse_capacity(share, copies, trace.shape, "global").slots
            )
    return cells


def _rows(model: str, trace: Trace, plan: dict[tuple[str, str, str], Setup]) -> Rows:
    answers = compare(trace, list(plan.values()))
    return [_row(model, trace, cell, answer) for cell, answer in zip(plan, answers, strict=True)]


def _row(model: str, trace: Trace, cell: tuple[str, str, str], answer: RunResult) -> dict:
    prefetch, precision, share = cell
    counts = count_summary(answer)
    spec = find_model(trace.provenance.model, trace.shape)
    slots = answer.capacity.slots
    return {
        "model": model,
        "policy": answer.setup.name,
        "prefetch": prefetch,
        "copies": precision,
        "share": share,
        "slots": slots,
        "all_experts": trace.shape.num_layers * trace.num_experts,
        "cycles": slots / (trace.shape.num_layers * trace.shape.top_k),
        "passes": trace.num_passes,
        "label": SIMULATED,
        "date": date.today().isoformat(),
        "bytes_loaded": counts["loads"] * spec.expert_bytes(precision) if spec else None,
        **{name: counts[name] for name in KEPT},
    }


def run_experiment(
    traces: tuple[Path, ...] = RECORDED, passes: int = 500, results: Path = RESULTS
) -> None:
    """Replay `passes` passes of each trace, keep the counts, and draw.

    Args:
      traces: of any known format, each of another model.
      results: folder of the table, the pictures and the page.
    """
    recorded = load(traces, passes)
    finish(parts(recorded), recorded, results / "collisions.parquet")
    draw(results)


if __name__ == "__main__":
    tyro.cli(run_experiment)
