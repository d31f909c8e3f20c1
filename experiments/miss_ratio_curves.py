"""Miss ratio against capacity: every policy's distance from Belady's optimum on recorded traces.

    python experiments/miss_ratio_curves.py run     # about 3 minutes on two cores
    python experiments/miss_ratio_curves.py draw    # seconds; reads what `run` wrote

Writes miss_ratio_curves.parquet, .png and .md. No prefetch: what is compared is retention alone.
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from recordings import (
    RECORDED,
    RESULTS,
    Rows,
    load,
    markdown_table,
    read_table,
    write_page,
    write_table,
)
from rich.console import Console

from specmd_jax.metrics import SIMULATED, count_summary
from specmd_jax.report.plots import (
    GREY,
    POLICY_COLOURS,
    house_style,
    panels,
    save_picture,
)
from specmd_jax.strategy import SCOPES, make_strategy
from specmd_jax.study import Setup, run
from specmd_jax.traces import Trace

POLICIES = ("lru", "lfu", "least-stale", "score-based", "fld-cyclic", "belady")
CAPACITIES = 24
TABLE_SHARES = (0.05, 0.1, 0.25, 0.5)  # of the experts


def replay_all(
    traces: dict[str, Trace],
    policies: Sequence[str] = POLICIES,
    capacities: int = CAPACITIES,
    on_start: Callable[[str], None] = lambda what: None,
) -> Rows:
    """Returns one row for each model, scope, policy and capacity."""
    return [
        row
        for model, trace in traces.items()
        for scope in SCOPES
        for policy in policies
        for row in _curve(model, trace, scope, policy, capacities, on_start)
    ]


def _curve(
    model: str,
    trace: Trace,
    scope: str,
    policy: str,
    capacities: int,
    on_start: Callable[[str], None],
) -> Rows:
    on_start(f"{model}: {policy}, {scope}")
    strategy = make_strategy(policy, scope=scope)
    setups = [
        Setup(strategy, strategy.params, policy, capacity=str(slots))
        for slots in slots_of(trace, capacities)
    ]
    rows = []
    for answer in run(trace, setups):
        counts = count_summary(answer)
        rows.append(
            {
                "model": model,
                "scope": scope,
                "policy": policy,
                "slots": answer.capacity.slots,
                "all_experts": trace.shape.num_layers * trace.num_experts,
                "event_slots": trace.shape.num_layers * trace.shape.top_k,
                "passes": trace.num_passes,
                "accesses": counts["accesses"],
                "misses": counts["misses"],
                "compulsory": counts["compulsory"],
                "label": SIMULATED,
                "date": date.today().isoformat(),
            }
        )
    return rows


def slots_of(trace: Trace, count: int) -> list[int]:
    """Returns about `count` capacities, evenly spread on a logarithmic axis, and the table's."""
    whole = trace.shape.num_layers * trace.num_experts
    spaced = np.geomspace(trace.shape.top_k, whole, count).round().astype(int)
    in_table = [round(share * whole) for share in TABLE_SHARES]
    return sorted({*spaced.tolist(), *in_table})


@house_style()
def draw_curves(rows: Rows, path: Path) -> None:
    """Draws a row of panels for each scope, a column for each model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(len(SCOPES), len(models), (10.2, 6.4), sharey=True)
    figure.suptitle("Misses by capacity, without prefetch · SIMULATED", x=0.01, ha="left")
    for scope, line in zip(SCOPES, axes, strict=True):
        for model, axis in zip(models, line, strict=True):
            part = [row for row in rows if row["model"] == model and row["scope"] == scope]
            _draw_panel(axis, part)
            axis.set_title(f"{model} · " + ("one pool" if scope == "global" else "a pool a layer"))
        line[0].set_ylabel("misses among accesses, %")
    _name_policies(axes[0][0], rows)
    for axis in axes[-1]:
        axis.set_xlabel("slots, % of all experts")
    save_picture(figure, path)


def _draw_panel(axis: Axes, rows: Rows) -> None:
    whole = rows[0]["all_experts"]
    for policy in dict.fromkeys(row["policy"] for row in rows):
        part = [row for row in rows if row["policy"] == policy]
        share = [100 * row["slots"] / whole for row in part]
        misses = [100 * row["misses"] / row["accesses"] for row in part]
        axis.plot(share, misses, color=POLICY_COLOURS[policy], lw=1.4)
    axis.axvline(100 * rows[0]["event_slots"] / whole, color=GREY, lw=0.8, ls=":")
    axis.text(
        100 * rows[0]["event_slots"] / whole,
        101,
        "L·k",
        size=7,
        color=GREY,
        ha="center",
        backgroundcolor="white",
    )
    axis.set_xscale("log")
    axis.set_xlim(1, 100)
    axis.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axis.minorticks_off()
    axis.set_ylim(0, 105)


def _name_policies(axis: Axes, rows: Rows) -> None:
    """Writes each policy's name in its colour, worst first, where no curve runs."""
    wide = [row for row in rows if row["model"] == rows[0]["model"] and row["scope"] == "global"]
    area = dict.fromkeys(POLICY_COLOURS, 0)
    for row in wide:
        area[row["policy"]] += row["misses"]
    named = sorted({row["policy"] for row in wide}, key=lambda policy: -area[policy])
    for place, policy in enumerate(named):
        at = (95, 99 - 6.5 * place)
        axis.annotate(policy, at, color=POLICY_COLOURS[policy], ha="right", va="center", size=8)


def page(rows: Rows) -> list[str]:
    """Returns what the curves say, as lines of Markdown."""
    lines = [
        "# Miss-ratio curves",
        "",
        f"SIMULATED {max(row['date'] for row in rows)} on recorded routing by "
        "`python experiments/miss_ratio_curves.py`, without prefetch. `L·k` is what one token of "
        "one request touches: below it a global LRU has evicted each expert before its layer "
        "comes round again.",
        "",
        *[f"* {line}" for line in _findings(rows)],
        "",
        "![miss-ratio curves](miss_ratio_curves.png)",
        "",
        "Misses in % of accesses; behind them the share of LRU's avoidable misses (those above "
        "Belady with the same pool) that the policy avoids.",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        for scope in SCOPES:
            lines += ["", f"## {model}, {_pool(scope)}", "", *_table(rows, model, scope)]
    return lines


def _findings(rows: Rows) -> list[str]:
    """Returns how each policy stands to LRU, over all models, scopes and capacities."""
    misses = {(r["model"], r["scope"], r["policy"], r["slots"]): r["misses"] for r in rows}
    findings = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        pairs = [
            (misses[model, scope, "lru", slots], value, slots < row["event_slots"])
            for row in rows
            for model, scope, slots in [(row["model"], row["scope"], row["slots"])]
            for value in [row["misses"]]
            if row["policy"] == policy != "lru"
        ]
        for below, where in ((True, "below L·k"), (False, "from L·k on")):
            part = [(lru, mine) for lru, mine, is_below in pairs if is_below == below]
            if part:
                fewer = sum(mine < lru for lru, mine in part)
                more = sum(mine > lru for lru, mine in part)
                findings.append(
                    f"`{policy}`, {where}: fewer misses than LRU in {fewer} of {len(part)} "
                    f"places, more in {more}."
                )
    return findings


def _pool(scope: str) -> str:
    return "one pool" if scope == "global" else "a pool for each layer"


def _table(rows: Rows, model: str, scope: str) -> list[str]:
    part = [row for row in rows if row["model"] == model and row["scope"] == scope]
    ratio = {(row["policy"], row["slots"]): row["misses"] / row["accesses"] for row in part}
    slots = [round(share * part[0]["all_experts"]) for share in TABLE_SHARES]
    policies = list(dict.fromkeys(row["policy"] for row in part))
    body = [[policy, *(_cell(ratio, policy, count) for count in slots)] for policy in policies]
    header = [f"{share:.0%} of the experts" for share in TABLE_SHARES]
    return markdown_table(["policy", *header], body)


def _cell(ratio: dict[tuple[str, int], float], policy: str, slots: int) -> str:
    mine, lru, belady = (ratio[name, slots] for name in (policy, "lru", "belady"))
    shown = f"{100 * mine:.1f}"
    if policy in ("lru", "belady") or lru == belady:
        return shown
    return f"{shown} ({100 * (lru - mine) / (lru - belady):+.0f} %)"


def run_experiment(traces: Path = RECORDED, passes: int = 500, results: Path = RESULTS) -> None:
    """Replay the traces in the folder `traces`, `passes` passes of each, and keep the counts."""
    log = Console(stderr=True).log
    rows = replay_all(load(traces, passes), on_start=log)
    write_table(rows, results / "miss_ratio_curves.parquet")


def draw(results: Path = RESULTS) -> None:
    """Draw the picture and write the page from what `run` kept."""
    rows = read_table(results / "miss_ratio_curves.parquet")
    draw_curves(rows, results / "miss_ratio_curves.png")
    write_page(page(rows), results / "miss_ratio_curves.md")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run_experiment, "draw": draw})
