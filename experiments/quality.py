"""The price of every lossy miss and routing policy, closed loop, on a model and held-out text.

    python experiments/quality.py run --text-tokens CORPUS   # about ten minutes on one core
    python experiments/quality.py draw                       # seconds; reads what `run` wrote

The text is the held-out part of the bundled model's corpus, an equal share of each source. Writes
results/quality.parquet, .md and .png; a run that is stopped goes on where it was.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Int
from recordings import RESULTS, Rows, measured_on, read_rows
from rich.console import Console

from specmd_jax.core.errors import InputError
from specmd_jax.models import BUNDLED, open_model
from specmd_jax.runtime.quality.measure import (
    Reading,
    cut,
    measure,
    read_exactly,
    summarise_quality,
)
from specmd_jax.study.choice import Choice, make_setup
from specmd_jax.study.journal import Journal, journal_of, write_table

# One, two and four passes of the bundled model: with less, LRU keeps nothing of a layer until it
# comes round again, and what looks for residents to use instead finds none.
CAPACITIES = ("12.5%", "25%", "50%")
LOW = ("bf16", "int4", "int2")
EVICTION = "lru"
POLICIES: dict[str, dict[str, Any]] = {
    "fetch": {},
    "drop-priority": {"miss": "drop-priority"},
    "drop-priority-cascade": {"miss": "drop-priority-cascade", "precision": ("bf16", "int4")},
    "fetch-lowest-bit int4": {"miss": "fetch-lowest-bit", "precision": ("bf16", "int4")},
    "fetch-lowest-bit int2": {"miss": "fetch-lowest-bit", "precision": ("bf16", "int2")},
    "fetch-priority": {"miss": "fetch-priority", "precision": LOW},
    "substitute": {"miss": "substitute"},
    "substitute-unbounded": {"miss": "substitute-unbounded"},
    "cache-prior": {"routing": "cache-prior"},
    "max-rank": {"routing": "max-rank"},
    "cumulative-mass": {"routing": "cumulative-mass"},
}


def _zero_fill(share: float) -> dict[str, Any]:
    """Misses are computed until `share` of the gate weight is served, and dropped after."""
    bounds = (("miss.high", str(share)), ("miss.low", str(share)))
    return {"miss": "drop-priority-cascade", "params": bounds}


def _stand_ins(alpha: float) -> dict[str, Any]:
    return {"miss": "substitute", "params": (("miss.alpha", str(alpha)),)}


# What an engine published for OLMoE, as nearly as these policies come to it: half of each layer's
# experts stay, misses are zero-filled or replaced by a cached expert.
HALF = "50%"  # of a layer's experts
FRONTIER: dict[str, dict[str, Any]] = {
    "fetch": {},
    "zero-fill past 0.9 of the weight": _zero_fill(0.9),
    "zero-fill past 0.75": _zero_fill(0.75),
    "zero-fill past 0.5": _zero_fill(0.5),
    "cached substitute, alpha 0.1": _stand_ins(0.1),
    "cached substitute, alpha 0.3": _stand_ins(0.3),
    "cached substitute, alpha 0.6": _stand_ins(0.6),
    "substitute all": {"miss": "substitute-unbounded"},
}


class Part(NamedTuple):
    """Configurations that are measured together: they differ only in capacity."""

    study: str  # policies or frontier
    policy: str
    scope: str
    capacities: tuple[str, ...]
    chosen: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.study} {EVICTION} {self.policy}"

    def rows(self, reading: Reading) -> Rows:
        """Returns a row for each capacity."""
        setups = [
            make_setup(
                Choice(eviction=EVICTION, scope=self.scope, capacity=capacity, **self.chosen)
            )
            for capacity in self.capacities
        ]
        about = {"study": self.study, "policy": self.policy}
        about |= {"eviction": EVICTION, "scope": self.scope}
        return [
            about | _flat(summarise_quality(one)) | measured_on()
            for one in measure(reading, setups)
        ]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"precisions": "+".join(row["precisions"])}


def parts() -> Iterator[Part]:
    """Yields what is measured, in the order of the page."""
    for policy, chosen in POLICIES.items():
        yield Part("policies", policy, "global", CAPACITIES, chosen)
    for policy, chosen in FRONTIER.items():
        yield Part("frontier", policy, "layer", (HALF,), chosen)


def texts(folder: Path, windows: int, length: int) -> Int[np.ndarray, "W S1"]:
    """Returns the same number of windows of every source, the sources in turn.

    Args:
      folder: with held-out-*.npy, of `bundled_corpus.py`.
      windows: of each source; one with less text is left out.
      length: tokens of each window.

    Raises:
      InputError: the folder holds no such text.
    """
    found = []
    for path in sorted(folder.glob("held-out-*.npy")):
        tokens = np.load(path, allow_pickle=False)
        if len(tokens) > windows * length:
            found.append(cut(tokens, length, windows * length))
    if not found:
        raise InputError(f"{folder} holds no held-out-*.npy: make it with bundled_corpus.py")
    return np.stack(found, axis=1).reshape(-1, length + 1)


def measure_all(reading: Callable[[], Reading], told: str, output: Path) -> Rows:
    """Measures what is not in the journal yet, and writes and returns all rows.

    Args:
      reading: is read when it is first needed.
      told: which texts and model; rows of others are not taken.
      output: a parquet file.
    """
    journal, console = Journal(journal_of(output)), Console(stderr=True, log_path=False)
    done, read = journal.rows(), None
    for part in parts():
        key = f"{told} {part.name}"
        if key not in done:
            console.log(part.name)
            read = read or reading()
            done[key] = {"rows": part.rows(read)}
            journal.append({key: done[key]})
    rows = [row for part in parts() for row in done[f"{told} {part.name}"]["rows"]]
    write_table(rows, output)
    journal.remove()
    return rows


def run_experiment(
    text_tokens: Path,
    model: str = BUNDLED,
    windows: int = 4,
    length: int = 128,
    results: Path = RESULTS,
) -> None:
    """Measure every policy, keep the counts, and draw.

    Args:
      text_tokens: folder with held-out-*.npy, of `bundled_corpus.py`.
      model: its tokenizer must have made them.
      windows: texts of each source.
      length: tokens of each.
      results: folder of the table, the picture and the page.
    """
    results.mkdir(parents=True, exist_ok=True)
    read = texts(text_tokens, windows, length)
    told = f"{model} {hashlib.sha256(read.tobytes()).hexdigest()[:16]}"
    measure_all(lambda: read_exactly(open_model(model), read), told, results / "quality.parquet")
    draw(results)


def draw(results: Path = RESULTS) -> None:
    """Draw the picture and write the page from what `run` kept."""
    from quality_report import draw_all  # matplotlib is slow to load

    draw_all(read_rows(results / "quality.parquet"), results)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run_experiment, "draw": draw})
