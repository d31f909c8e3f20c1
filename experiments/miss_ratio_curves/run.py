"""Miss ratio against capacity: every policy's distance from Belady's optimum on recorded traces.

    python -m experiments.miss_ratio_curves.run      # minutes; goes on where it was stopped
    python -m experiments.miss_ratio_curves.report   # seconds; draws what `run` wrote

Writes miss_ratio_curves.parquet, .png and .md. No prefetch: what is compared is retention alone.
"""

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from experiments.miss_ratio_curves.plan import CAPACITIES, POLICIES, TABLE_SHARES
from experiments.miss_ratio_curves.report import draw
from experiments.shared.recordings import RECORDED, RESULTS, Parts, Rows, finish, load
from specmd_jax.policies.strategy import SCOPES, make_strategy
from specmd_jax.study.metrics import SIMULATED, count_summary
from specmd_jax.study.run import RunResult, compare
from specmd_jax.study.setup import Setup
from specmd_jax.traces import Trace


def parts(traces: dict[str, Trace]) -> Parts:
    """Returns what computes the rows: one part for each model, scope and policy."""
    return {
        f"{model}: {policy}, {scope}": partial(_curve, model, trace, scope, policy)
        for model, trace in traces.items()
        for scope in SCOPES
        for policy in POLICIES
    }


def _curve(model: str, trace: Trace, scope: str, policy: str) -> Rows:
    strategy = make_strategy(policy, scope=scope)
    setups = [
        Setup(strategy, strategy.params, policy, capacity=str(slots))
        for slots in slots_of(trace, CAPACITIES)
    ]
    about = {"model": model, "scope": scope, "policy": policy}
    return [about | _row(trace, answer) for answer in compare(trace, setups)]


def _row(trace: Trace, answer: RunResult) -> dict:
    layers, experts, top_k = trace.shape
    counts = count_summary(answer)
    return {
        "slots": answer.capacity.slots,
        "all_experts": layers * experts,
        "pass_slots": layers * top_k,
        "passes": trace.num_passes,
        **{name: counts[name] for name in ("accesses", "misses", "compulsory")},
        "label": SIMULATED,
        "date": date.today().isoformat(),
    }


def slots_of(trace: Trace, count: int) -> list[int]:
    """Returns about `count` capacities, evenly spread on a logarithmic axis, and the table's."""
    whole = trace.shape.num_layers * trace.num_experts
    spaced = np.geomspace(trace.shape.top_k, whole, count).round().astype(int)
    in_table = [round(share * whole) for share in TABLE_SHARES]
    return sorted({*spaced.tolist(), *in_table})


def run_experiment(
    traces: tuple[Path, ...] = RECORDED, passes: int = 500, results: Path = RESULTS
) -> None:
    """Replay `passes` passes of each trace, keep the counts, and draw.

    Args:
      traces: of any known format, each of another model.
      results: folder of the table, the picture and the page.
    """
    recorded = load(traces, passes)
    finish(parts(recorded), recorded, results / "miss_ratio_curves.parquet")
    draw(results)


if __name__ == "__main__":
    tyro.cli(run_experiment)
