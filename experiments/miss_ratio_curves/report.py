"""Picture and page of `run.py`."""

from pathlib import Path

import tyro
from matplotlib.axes import Axes

from experiments.miss_ratio_curves.plan import TABLE_SHARES
from experiments.shared.recordings import (
    RESULTS,
    Rows,
    markdown_table,
    read_rows,
    where,
    write_page,
)
from specmd_jax.policies.strategy import SCOPES
from specmd_jax.report.plots import GREY, POLICY_COLOURS, house_style, panels, save_picture

POOLS = {"global": "one pool", "layer": "a pool for each layer"}


def draw_all(rows: Rows, results: Path) -> None:
    """Writes miss_ratio_curves.png and .md into the folder `results`."""
    draw_curves(rows, results / "miss_ratio_curves.png")
    write_page(page(rows), results / "miss_ratio_curves.md")


@house_style()
def draw_curves(rows: Rows, path: Path) -> None:
    """Draws a row of panels for each scope, a column for each model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    size = (0.9 + 3.1 * len(models), 6.2)
    figure, axes = panels(len(SCOPES), len(models), size, sharex=True, sharey=True)
    figure.suptitle("Misses by capacity, no prefetch · SIMULATED", x=0.01, ha="left")
    for scope, line in zip(SCOPES, axes, strict=True):
        for model, axis in zip(models, line, strict=True):
            _draw_panel(axis, where(rows, model=model, scope=scope))
            axis.set_title(f"{model} · {POOLS[scope]}")
        line[0].set_ylabel("misses among accesses, %")
    for axis in axes[-1]:
        axis.set_xlabel("slots, % of all experts")
    _name_policies(axes[0][0], where(rows, model=models[0], scope="global"))
    note = "fewer than k slots a layer:\nall policies are alike"
    axes[1][0].text(1.15, 4, note, color=GREY, size=7)
    save_picture(figure, path)


def _draw_panel(axis: Axes, rows: Rows) -> None:
    whole = rows[0]["all_experts"]
    for policy in dict.fromkeys(row["policy"] for row in rows):
        part = where(rows, policy=policy)
        share = [100 * row["slots"] / whole for row in part]
        misses = [100 * row["misses"] / row["accesses"] for row in part]
        axis.plot(share, misses, color=POLICY_COLOURS[policy], lw=1.4)
    one_pass = 100 * rows[0]["pass_slots"] / whole
    axis.axvline(one_pass, color=GREY, lw=0.8, ls=":", zorder=0)
    axis.text(one_pass, 2, "L·k ", size=7.5, color=GREY, ha="right")
    axis.set_xscale("log")
    axis.set_xlim(1, 100)
    axis.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axis.minorticks_off()
    axis.set_ylim(0, 103)


def _name_policies(axis: Axes, rows: Rows) -> None:
    """Writes each policy's name in its colour, worst first, where no curve runs."""
    area = {
        policy: sum(row["misses"] for row in where(rows, policy=policy))
        for policy in dict.fromkeys(row["policy"] for row in rows)
    }
    for place, policy in enumerate(sorted(area, key=lambda policy: -area[policy])):
        at = (95, 98 - 6.5 * place)
        axis.annotate(policy, at, color=POLICY_COLOURS[policy], ha="right", va="center", size=8)


def page(rows: Rows) -> list[str]:
    """Returns what the curves say, as lines of Markdown."""
    lines = [
        "# Miss-ratio curves",
        "",
        f"SIMULATED {max(row['date'] for row in rows)} on recorded routing, "
        f"{max(row['passes'] for row in rows)} passes a model, by "
        "`python -m experiments.miss_ratio_curves.run`, from cold, without prefetch; meanings in "
        "`docs/semantics.md`. `L·k` slots hold what one token touches in all layers. With much "
        "less, LRU over one pool hits nothing: the other layers have evicted an expert before its "
        "layer comes round again.",
        "",
        "## The finding",
        "",
        "Against LRU at the same capacity and scope, over all models and capacities drawn: in how "
        "many places a policy misses less and more, and the change of misses in the median place "
        "and at the extremes.",
        "",
        *_findings(rows),
        "",
        "![miss-ratio curves](miss_ratio_curves.png)",
        "",
        "## Misses in % of accesses",
        "",
        "In brackets the share of LRU's avoidable misses (those above Belady with the same pool) "
        "that a policy avoids.",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        for scope in SCOPES:
            part = where(rows, model=model, scope=scope)
            lines += ["", f"### {model}, {POOLS[scope]}", "", *_table(part)]
    return lines


def _findings(rows: Rows) -> list[str]:
    """Returns how each policy stands to LRU, by scope and side of L·k, as a table."""
    lru = {(row["model"], row["scope"], row["slots"]): row["misses"] for row in rows
           if row["policy"] == "lru"}  # fmt: skip
    body = []
    for policy in dict.fromkeys(row["policy"] for row in rows if row["policy"] != "lru"):
        cells = []
        for scope in SCOPES:
            for above in (False, True):
                changes = sorted(
                    row["misses"] / lru[row["model"], scope, row["slots"]] - 1
                    for row in where(rows, policy=policy, scope=scope)
                    if (row["slots"] >= row["pass_slots"]) == above
                )
                cells.append(_standing(changes))
        body.append([policy, *cells])
    sides = ("below L·k", "from L·k on")
    header = [f"{POOLS[scope]}, {side}" for scope in SCOPES for side in sides]
    return markdown_table(["policy", *header], body, numbers=False)


def _standing(changes: list[float]) -> str:
    """Writes changes of misses, in ascending order, as counts and extremes."""
    less, more = sum(c < 0 for c in changes), sum(c > 0 for c in changes)
    low, middle, high = (100 * changes[at] for at in (0, len(changes) // 2, -1))
    return (
        f"{less} less, {more} more of {len(changes)}: {middle:+.0f} % ({low:+.0f} to {high:+.0f})"
    )


def _table(rows: Rows) -> list[str]:
    ratio = {(row["policy"], row["slots"]): row["misses"] / row["accesses"] for row in rows}
    slots = [round(share * rows[0]["all_experts"]) for share in TABLE_SHARES]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    body = [[policy, *(_cell(ratio, policy, count) for count in slots)] for policy in policies]
    header = [f"{share:.0%} of the experts" for share in TABLE_SHARES]
    return markdown_table(["policy", *header], body)


def _cell(ratio: dict[tuple[str, int], float], policy: str, slots: int) -> str:
    mine, lru, belady = (ratio[name, slots] for name in (policy, "lru", "belady"))
    shown = f"{100 * mine:.1f}"
    if policy in ("lru", "belady") or lru == belady:
        return shown
    return f"{shown} ({100 * (lru - mine) / (lru - belady):+.0f} %)"


def draw(results: Path = RESULTS) -> None:
    """Draw the picture and write the page from what the experiment kept."""
    draw_all(read_rows(results / "miss_ratio_curves.parquet"), results)


if __name__ == "__main__":
    tyro.cli(draw)
