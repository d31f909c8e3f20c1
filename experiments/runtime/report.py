"""The page and the picture of `run.py`."""

import json
from pathlib import Path

import numpy as np
import tyro

from experiments.runtime.machine import machine
from experiments.shared.recordings import RESULTS, Rows, write_page
from specmd_jax.hardware.profiles import write_profile
from specmd_jax.report.plots import (
    BLACK,
    GREY,
    VERMILION,
    house_style,
    in_milliseconds,
    panels,
    save_picture,
)

EXPERT_BYTES = 98304  # one expert of the bundled model, in float32


def draw(results: Path = RESULTS) -> None:
    """Write runtime_runs.md, runtime_runs.png and machine.json from runtime_runs.jsonl.

    Args:
      results: folder of all four.
    """
    rows: Rows = [json.loads(line) for line in (results / "runtime_runs.jsonl").open()]
    _picture(rows, results / "runtime_runs.png")
    write_page(_page(rows), results / "runtime_runs.md")
    measured = {name: rows[0][name] for name in ("date", "machine", "commit")}
    write_profile(machine(rows), results / "machine.json", measured)


def errors(rows: Rows, name: str) -> np.ndarray:
    """Returns |simulated / measured - 1| of TTFT or TPOT."""
    measured = np.asarray([row[f"{name}_s"] for row in rows])
    return np.abs(np.asarray([row[f"simulated_{name}_s"] for row in rows]) / measured - 1)


def _page(rows: Rows) -> list[str]:
    first = rows[0]
    lines = [
        "# SIMULATED beside MEASURED: the bundled model over throttled links",
        "",
        f"{len(rows)} runs, {first['date']}, {first['machine']}, commit {first['commit']}; "
        "`python -m experiments.runtime.run`.",
        "Each strategy and capacity is calibrated once, on the machine's own link; the times on "
        "throttled links are then the simulator's own. Every MEASURED figure is the median of "
        "three runs.",
        "",
        *_errors(rows),
    ]
    lines += _overlap(rows) + _hidden(rows)
    lines += ["", "![measured against simulated](runtime_runs.png)", ""]
    for capacity in dict.fromkeys(row["capacity"] for row in rows):
        lines += _table([row for row in rows if row["capacity"] == capacity], capacity)
    return lines


def _errors(rows: Rows) -> list[str]:
    """Returns the error of the simulated times, by strategy."""
    lines = [
        "| strategy | TTFT: median error | 90 % below | worst | TPOT: median error | 90 % below "
        "| worst |",
        "|---|---|---|---|---|---|---|",
    ]
    by_strategy = {name: [] for name in dict.fromkeys(row["strategy"] for row in rows)}
    for row in rows:
        by_strategy[row["strategy"]].append(row)
    for name, some in {**by_strategy, "**all**": rows}.items():
        cells = []
        for figure in ("ttft", "tpot"):
            error = 100 * errors(some, figure)
            cells += [np.median(error), np.quantile(error, 0.9), error.max()]
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f} %' for cell in cells)} |")
    return lines


def _overlap(rows: Rows) -> list[str]:
    """Returns how close to the link's own time runs come whose link is the bottleneck."""
    bound = [row for row in rows if _link_s(row) > 2 * _compute_s(row)]
    if not bound:
        return []
    ratio = np.asarray([row["seconds"] / max(_link_s(row), _compute_s(row)) for row in bound])
    ahead = np.asarray([bool(row["prefetched"]) for row in bound])
    return [
        "",
        f"Overlap: in the {len(bound)} runs whose link was busy more than twice as long as "
        "computing takes, wall time is "
        f"{np.median(ratio):.2f} x the larger of the two (worst {max(ratio):.2f}): "
        f"{np.median(ratio[ahead]):.2f} x with a prefetcher, {np.median(ratio[~ahead]):.2f} x on "
        "demand, where the link has nothing to do from a layer's last arrival to the next gate.",
    ]


def _hidden(rows: Rows) -> list[str]:
    """Returns what prefetching hides where computing takes longer than the link."""
    shares = []
    for row in rows:
        useful = row["prefetch_used"] + row["prefetch_late"]
        one = EXPERT_BYTES / row["link_bytes_per_s"]
        if useful and _link_s(row) < _compute_s(row):
            shares.append(1 - row["stall_late_s"] / (useful * one))
    if not shares:
        return []
    return [
        "",
        f"Prefetching: in the {len(shares)} compute-bound runs with a prefetcher, "
        f"{100 * np.median(shares):.0f} % of the transfer time of what was useful is hidden "
        f"(worst {100 * min(shares):.0f} %).",
    ]


def _link_s(row: dict) -> float:
    return row["bytes_loaded"] / row["link_bytes_per_s"]


def _compute_s(row: dict) -> float:
    return row["compute_ttft_s"] + (row["tokens"] - 1) * row["compute_tpot_s"]


def _table(rows: Rows, capacity: str) -> list[str]:
    lines = [
        f"## Capacity {capacity}",
        "",
        "| strategy | link | hits | TTFT MEASURED | SIMULATED | TPOT MEASURED | SIMULATED | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [
            f"{1e3 * row[name]:.1f} ms"
            for name in ("ttft_s", "simulated_ttft_s", "tpot_s", "simulated_tpot_s")
        ]
        error = 100 * (row["simulated_tpot_s"] / row["tpot_s"] - 1)
        lines.append(
            f"| {row['strategy']} | {row['link_bytes_per_s'] / 1e6:.0f} MB/s "
            f"| {100 * row['hit_rate']:.1f} % | {' | '.join(times)} | {error:+.1f} % |"
        )
    return [*lines, ""]


@house_style()
def _picture(rows: Rows, path: Path) -> None:
    figure, ((*axes,),) = panels(1, 2, (9.0, 4.2))
    for ax, name in zip(axes, ("ttft", "tpot"), strict=True):
        measured = 1e3 * np.asarray([row[f"{name}_s"] for row in rows])
        simulated = 1e3 * np.asarray([row[f"simulated_{name}_s"] for row in rows])
        ahead = np.asarray(["+" in row["strategy"] for row in rows])
        for mask, colour, label in ((~ahead, GREY, "on demand"), (ahead, VERMILION, "prefetching")):
            ax.scatter(measured[mask], simulated[mask], s=16, color=colour, label=label)
        both = np.concatenate([measured, simulated])
        ends = [both.min() / 1.2, both.max() * 1.2]
        ax.plot(ends, ends, color=BLACK, linewidth=1)
        ax.fill_between(ends, [0.9 * end for end in ends], [1.1 * end for end in ends], alpha=0.12)
        in_milliseconds(ax, (ends[0], ends[1]))
        ax.set_xlabel("MEASURED, ms")
        ax.set_ylabel("SIMULATED, ms")
        ax.set_title(f"{name.upper()}: median error {100 * np.median(errors(rows, name)):.1f} %")
    axes[0].legend(loc="upper left")
    title = "Bundled model over throttled links; the band is 10 %"
    figure.suptitle(title, x=0.01, ha="left")
    save_picture(figure, path)


if __name__ == "__main__":
    tyro.cli(draw)
