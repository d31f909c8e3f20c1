"""Least-Stale beside LRU in the bundled model, under the paper's settings, whatever comes out.

    python experiments/least_stale.py run     # some minutes
    python experiments/least_stale.py draw    # seconds; reads what `run` wrote

int4 copies, 1 % and 5 % of the bf16 bytes, prefetch by next-gate scores over a running quantile, a
throttled link (SpecMD, sections 4.2 and 5.5). Writes least_stale.jsonl and least_stale.md.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from recordings import RESULTS, Rows, markdown_table, measured_on, write_page

from specmd_jax.choice import Choice, make_setup
from specmd_jax.models import open_model, open_tokenizer
from specmd_jax.models.library import BUNDLED
from specmd_jax.runtime.engine import Staging
from specmd_jax.runtime.link import ThrottledLink
from specmd_jax.runtime.measured import follow, summarise_run, warm_up
from specmd_jax.runtime.offloading import Offloading

PROMPTS = (
    "In the beginning of the year the old man went down to the river and",
    '"What do you mean to do with the money?" asked the lady, as she',
    "The house stood upon a hill, and from the windows one could see",
    "def read_file(path):",
)
TOKENS = 32
LINK_BYTES_PER_S = 20e6  # an int4 expert in 0.7 ms
CAPACITIES = ("1%", "5%")
EVICTIONS = ("lru", "least-stale", "least-stale-fifo", "least-stale-lru", "lfu", "score-based")
PREFETCHES = ("none", "next-gate-quantile")
COUNTS = ("accesses", "hits", "misses", "collisions", "loads", "prefetched", "prefetch_used")


def measure(offloading: Offloading, eviction: str, prefetch: str, capacity: str) -> dict[str, Any]:
    """Returns the sums over all prompts, each from a cold cache."""
    choice = Choice(eviction=eviction, prefetch=prefetch, capacity=capacity, precision=("int4",))
    link = ThrottledLink(LINK_BYTES_PER_S)
    model = offloading.model(make_setup(choice), link=link, staging=Staging(hopes=False))
    tokenizer = open_tokenizer(offloading.checkpoint)
    runs = []
    for text in PROMPTS:
        prompt = [tokenizer.encode(text).ids]
        warm_up(model, prompt, TOKENS)
        *_, made = follow(model, prompt, TOKENS)
        runs.append(summarise_run(model, made))
    model.close()
    row = {name: sum(run[name] for run in runs) for name in COUNTS}
    times = {name: float(np.mean([run[name] for run in runs])) for name in ("ttft_s", "tpot_s")}
    return {"eviction": eviction, "prefetch": prefetch, "capacity": capacity} | row | times


def run(results: Path = RESULTS) -> None:
    """Measure every combination, then draw.

    Args:
      results: folder of what is written.
    """
    offloading = Offloading(open_model(BUNDLED))
    path = results / "least_stale.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(r["eviction"], r["prefetch"], r["capacity"]) for r in map(json.loads, lines)}
    for capacity in CAPACITIES:
        for prefetch in PREFETCHES:
            for eviction in EVICTIONS:
                if (eviction, prefetch, capacity) in done:
                    continue
                row = measure(offloading, eviction, prefetch, capacity)
                with path.open("a") as file:
                    file.write(json.dumps(row | measured_on() | {"label": "MEASURED"}) + "\n")
                print(f"{capacity} {prefetch} {eviction}: TPOT {1e3 * row['tpot_s']:.1f} ms")
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
        f"experiments/least_stale.py run`. specmd-tiny, int4 copies, {len(PROMPTS)} prompts of "
        f"{TOKENS} new tokens, each from a cold cache; link {LINK_BYTES_PER_S / 1e6:.0f} MB/s. "
        "The change of TPOT is beside LRU with the same prefetcher.",
        "",
        "Counts repeat exactly; times do not. This machine did other work meanwhile: at 1 % "
        "without prefetch, rows of the same loads differ by as much as 70 %, so no smaller change "
        "of TPOT in this table means anything.",
    ]
    head = ["eviction", "hit rate", "collisions", "a miss", "loads", "TTFT", "TPOT", "change"]
    for capacity in CAPACITIES:
        for prefetch in PREFETCHES:
            part = [r for r in rows if (r["capacity"], r["prefetch"]) == (capacity, prefetch)]
            if not part:
                continue
            lru = next(row for row in part if row["eviction"] == "lru")
            table = [_cells(row, lru["tpot_s"]) for row in part]
            lines += ["", f"## {capacity}, prefetch {prefetch}", "", *markdown_table(head, table)]
    write_page(lines, results / "least_stale.md")


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
