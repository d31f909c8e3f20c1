"""Least-Stale beside LRU in the bundled model, under the paper's settings, whatever comes out.

    python -m experiments.runtime.least_stale run     # a quarter of an hour; can be stopped
    python -m experiments.runtime.least_stale draw    # seconds; reads what `run` wrote

int4 copies, 1 % and 5 % of the bf16 bytes, prefetch by next-gate scores over a running quantile, a
throttled link (SpecMD, sections 4.2 and 5.5). Every combination is measured in several turns, with
all others between two of its own, and the page gives medians and how far the turns are apart.
Writes least_stale.jsonl and least_stale.md.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.shared.recordings import (
    RESULTS,
    Rows,
    markdown_table,
    measured_on,
    where,
    write_page,
)
from specmd_jax.models import open_model, open_tokenizer
from specmd_jax.models.checkpoints.library import BUNDLED
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.runs.generation import follow, summarise_run, warm_up
from specmd_jax.runtime.runs.offloading import Offloading
from specmd_jax.runtime.transfer.link import ThrottledLink
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import make_setup

PROMPTS = (
    "In the beginning of the year the old man went down to the river and",
    '"What do you mean to do with the money?" asked the lady, as she',
    "The house stood upon a hill, and from the windows one could see",
    "def read_file(path):",
)
TOKENS = 32
TURNS = 3
LINK_BYTES_PER_S = 20e6  # an int4 expert in 0.7 ms
CAPACITIES = ("1%", "5%")
EVICTIONS = ("lru", "least-stale", "least-stale-fifo", "least-stale-lru", "lfu", "score-based")
PREFETCHES = ("none", "next-gate-quantile")
SETTING = ("turn", "capacity", "prefetch", "eviction")
COUNTS = ("accesses", "hits", "misses", "collisions", "loads", "prefetched", "prefetch_used")
TIMES = ("ttft_s", "tpot_s")


def measure(offloading: Offloading, eviction: str, prefetch: str, capacity: str) -> dict[str, Any]:
    """Returns the sums over all prompts, each from a cold cache."""
    choice = Choice(eviction=eviction, prefetch=prefetch, capacity=capacity, precision=("int4",))
    link = ThrottledLink(LINK_BYTES_PER_S)
    model = offloading.model(make_setup(choice), link=link, options=RunOptions(whole_passes=False))
    tokenizer = open_tokenizer(offloading.checkpoint)
    runs = []
    for text in PROMPTS:
        prompt = [tokenizer.encode(text).ids]
        warm_up(model, prompt, TOKENS)
        *_, made = follow(model, prompt, TOKENS)
        runs.append(summarise_run(model, made))
    model.close()
    row = {name: sum(run[name] for run in runs) for name in COUNTS}
    times = {name: float(np.mean([run[name] for run in runs])) for name in TIMES}
    return {"eviction": eviction, "prefetch": prefetch, "capacity": capacity} | row | times


def run(results: Path = RESULTS) -> None:
    """Measure every combination, then draw.

    Args:
      results: folder of what is written.
    """
    offloading = Offloading(open_model(BUNDLED))
    path = results / "least_stale.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {tuple(row[name] for name in SETTING) for row in map(json.loads, lines)}
    for setting in product(range(TURNS), CAPACITIES, PREFETCHES, EVICTIONS):
        if setting in done:
            continue
        turn, capacity, prefetch, eviction = setting
        row = {"turn": turn} | measure(offloading, eviction, prefetch, capacity)
        with path.open("a") as file:
            file.write(json.dumps(row | measured_on() | {"label": "MEASURED"}) + "\n")
        told = f"{capacity} {prefetch} {eviction}: TPOT {1e3 * row['tpot_s']:.1f} ms"
        print(f"turn {turn + 1} of {TURNS}: {told}")
    draw(results)


def draw(results: Path = RESULTS) -> None:
    """Write least_stale.md from least_stale.jsonl.

    Args:
      results: folder of both.
    """
    rows: Rows = [json.loads(line) for line in (results / "least_stale.jsonl").open()]
    first = rows[0]
    lines = [
        "# Least-Stale beside LRU, inside the running model",
        "",
        f"MEASURED {first['date']} on {first['machine']}, commit {first['commit']}, by `python "
        "-m experiments.runtime.least_stale run`. specmd-tiny, int4 copies, "
        f"{len(PROMPTS)} prompts of {TOKENS} new tokens, each from a cold cache; "
        f"link {LINK_BYTES_PER_S / 1e6:.0f} MB/s. "
        "The change of TPOT is beside LRU with the same prefetcher.",
        "",
        f"Medians of {TURNS} turns, each through all rows. Counts repeat exactly without prefetch; "
        f"times do not: {_apart(rows)} Rows of the same loads are the same work.",
    ]
    head = ["eviction", "hit rate", "collisions", "a miss", "loads", "TTFT", "TPOT", "change"]
    for capacity, prefetch in product(CAPACITIES, PREFETCHES):
        part = [_median(turns) for turns in _by_eviction(rows, capacity, prefetch)]
        if part:
            table = [_cells(row, part[0]["tpot_s"]) for row in part]
            lines += ["", f"## {capacity}, prefetch {prefetch}", "", *markdown_table(head, table)]
    write_page(lines, results / "least_stale.md")


def _by_eviction(rows: Rows, capacity: str, prefetch: str) -> list[Rows]:
    """Returns the turns of each combination that was measured, LRU's first."""
    every = (
        where(rows, capacity=capacity, prefetch=prefetch, eviction=eviction)
        for eviction in EVICTIONS
    )
    return [turns for turns in every if turns]


def _median(turns: Rows) -> dict[str, Any]:
    """Returns the medians of a combination's turns."""
    numbers = {name: np.median([row[name] for row in turns]) for name in (*COUNTS, *TIMES)}
    return turns[0] | numbers | {name: round(numbers[name]) for name in COUNTS}


def _apart(rows: Rows) -> str:
    """Returns a sentence on how far the turns of one row are apart in TPOT."""
    spans = []
    for capacity, prefetch in product(CAPACITIES, PREFETCHES):
        for turns in _by_eviction(rows, capacity, prefetch):
            times = [row["tpot_s"] for row in turns]
            spans.append((max(times) - min(times)) / float(np.median(times)))
    return (
        f"the turns of a row are {np.median(spans):.0%} of TPOT apart in the median and "
        f"{max(spans):.0%} at most, so no smaller change means anything."
    )


def _cells(row: dict[str, Any], lru_s: float) -> list[str]:
    return [
        row["eviction"],
        f"{100 * row['hits'] / row['accesses']:.1f} %",
        f"{row['collisions']:,}",
        f"{100 * row['collisions'] / max(row['misses'], 1):.1f} %",
        f"{row['loads']:,}",
        f"{1e3 * row['ttft_s']:.0f} ms",
        f"{1e3 * row['tpot_s']:.1f} ms",
        f"{100 * (row['tpot_s'] / lru_s - 1):+.1f} %",
    ]


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "draw": draw})
