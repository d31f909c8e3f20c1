"""How fast the simulator replays on one core, beside other programs: `specmd bench simulator`.

    python -m experiments.speed.simulator_speed    # about five minutes; needs the extra `bench`

Writes bench_simulator.json, what the command printed, and bench_simulator.md. Run it while the
machine has nothing else to do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro

from experiments.shared.recordings import RESULTS, markdown_table, measured_on, write_page

ASKED = 3.0  # million accesses/s at 256 configurations
ASKED_COMPILE = 3.0  # s


def run_experiment(results: Path = RESULTS) -> None:
    """Run the benchmark in a process of its own, and write what it found.

    Args:
      results: folder of the data and the page.
    """
    command = [sys.executable, "-m", "specmd_jax.cli", "bench", "simulator", "--json"]
    load = os.getloadavg()[0]  # processes that wanted a core in the last minute
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout) | measured_on() | {"load_before": load}
    write_page([json.dumps(found, indent=1)], results / "bench_simulator.json")
    write_page(page(found), results / "bench_simulator.md")


def page(found: dict[str, Any]) -> list[str]:
    """Returns the lines of bench_simulator.md."""
    return [
        "# Speed of the simulator",
        "",
        f"MEASURED {found['date']} on one core of: {found['machine']}; commit {found['commit']}. "
        "By `python -m experiments.speed.simulator_speed`, which runs `specmd bench simulator "
        "--json`. A synthetic trace of OLMoE's shape (16 layers of 64 experts, top 8), all engines "
        "in one process on one core, rates by CPU time, best of three. An access is one expert "
        "demanded by one configuration.",
        "",
        f"Load average before: {found['load_before']:.1f}. Well above 0, the figures are lower "
        "bounds: others crowd the caches and the memory.",
        "",
        "## specmd, million accesses/s by number of configurations in one vmap",
        "",
        *_ours(found["rows"]),
        "",
        f"Bars: {ASKED:g} M/s at 256 configurations and {ASKED_COMPILE:g} s to compile. "
        + _verdict(found["rows"]),
        "",
        "## Others, one configuration a run",
        "",
        "They answer a narrower question: single objects, or single layers, one access at a time, "
        "without prefetch or time. libCacheSim with hashpower 12.",
        "",
        *_others(found["rows"]),
    ]


def _ours(rows: list[dict[str, Any]]) -> list[str]:
    mine = {(row["policy"], row["configs"]): row for row in rows if row["engine"] == "specmd"}
    counts = sorted({configs for _, configs in mine})
    body = []
    for policy in dict.fromkeys(policy for policy, _ in mine):
        rates = [_millions(mine[policy, count]) for count in counts]
        compiled = max(mine[policy, count]["compile_s"] for count in counts)
        body.append([policy, *rates, f"{compiled:.1f}"])
    return markdown_table(["policy", *map(str, counts), "slowest compile, s"], body)


def _others(rows: list[dict[str, Any]]) -> list[str]:
    body = [
        [f"{row['engine']} {row['policy']}", _millions(row)]
        for row in rows
        if row["engine"] != "specmd"
    ]
    return markdown_table(["engine", "million accesses/s"], body)


def _millions(row: dict[str, Any]) -> str:
    return f"{row['accesses_per_s'] / 1e6:.2f}"


def _verdict(rows: list[dict[str, Any]]) -> str:
    mine = [row for row in rows if row["engine"] == "specmd"]
    slow = [row for row in mine if row["configs"] == 256 and row["accesses_per_s"] < ASKED * 1e6]
    late = [row for row in mine if row["compile_s"] >= ASKED_COMPILE]
    told = [f"{row['policy']} at {row['configs']} is slower" for row in slow]
    told += [
        f"{row['policy']} at {row['configs']} takes {row['compile_s']:.1f} s to compile"
        for row in late
    ]
    return f"Missed: {'; '.join(told)}." if told else "All are met."


if __name__ == "__main__":
    tyro.cli(run_experiment)
