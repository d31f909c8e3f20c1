"""The price of every lossy miss and routing policy, closed loop, on a model and held-out text.

    python -m experiments.quality.run --text-tokens CORPUS   # about ten minutes on one core
    python -m experiments.quality.report                     # seconds; draws what `run` wrote

The text is the held-out part of the bundled model's corpus, an equal share of each source. Writes
results/quality.parquet, .md and .png; a run that is stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Int
from rich.console import Console

from experiments.quality.plan import CAPACITIES, EVICTION, FRONTIER, HALF, POLICIES
from experiments.quality.report import draw
from experiments.shared.recordings import RESULTS, Rows, measured_on
from specmd_jax.core.errors import InputError
from specmd_jax.models import BUNDLED, open_model
from specmd_jax.runtime.quality.measure import (
    Reading,
    cut,
    measure,
    read_exactly,
    summarise_quality,
)
from specmd_jax.study.choice import Choice
from specmd_jax.study.journal import Journal, journal_of
from specmd_jax.study.setup import make_setup
from specmd_jax.study.table import write_table


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
      folder: with held-out-*.npy, of `experiments.bundled_model.corpus`.
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
        raise InputError(
            f"{folder} holds no held-out-*.npy: make it with experiments.bundled_model.corpus"
        )
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
            done[key] = {"rows": json.dumps(part.rows(read))}  # the journal holds scalars
            journal.append({key: done[key]})
    found = (json.loads(done[f"{told} {part.name}"]["rows"]) for part in parts())
    rows = [row for part_rows in found for row in part_rows]
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
      text_tokens: folder with held-out-*.npy, of `experiments.bundled_model.corpus`.
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


if __name__ == "__main__":
    tyro.cli(run_experiment)
