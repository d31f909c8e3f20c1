"""The recorded traces that the experiments replay, and the tables that they leave behind."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specmd_jax.errors import InputError
from specmd_jax.traces import Trace, import_trace, slice_passes, slice_requests

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SPECMD_RECORDINGS", ROOT.parent / "shared"))
RECORDED = SHARED / "traces"
RESULTS = Path(__file__).parent / "results"

MODELS = {
    "OLMoE-1B-7B": "olmoe-sampled",
    "DeepSeek-V2-Lite": "deepseek-v2-lite-intent",
    "gpt-oss-20b": "gpt-oss-20b",
}

Rows = list[dict[str, Any]]


def load(folder: Path, passes: int, models: Mapping[str, str] = MODELS) -> dict[str, Trace]:
    """Returns about `passes` passes of each model's trace, by model.

    Raises:
      InputError: the folder holds none of them.
    """
    found = {model: folder / name for model, name in models.items() if (folder / name).is_dir()}
    if not found:
        raise InputError(
            f"{folder} holds none of the traces {', '.join(models.values())}: give their folder "
            "with --traces"
        )
    return {model: sample(import_trace(path), passes) for model, path in found.items()}


def sample(trace: Trace, passes: int) -> Trace:
    """Returns `passes` passes from whole requests evenly spread over the trace, the last one cut.

    Neighbouring requests of a recording tend to be alike; its first passes would not stand for it.
    """
    if trace.num_passes <= passes:
        return trace
    requests = np.unique(trace.request)
    for count in range(1, len(requests) + 1):
        places = np.linspace(0, len(requests) - 1, count).round().astype(int)
        chosen = slice_requests(trace, requests[places].tolist())
        if chosen.num_passes >= passes:
            return slice_passes(chosen, 0, passes)
    return slice_passes(trace, 0, passes)


def write_table(rows: Rows, path: Path) -> None:
    """Writes the rows as parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    pq.write_table(pa.Table.from_pylist(rows), half, compression="zstd")
    os.replace(half, path)


def read_table(path: Path) -> Rows:
    """Returns the rows that `write_table` wrote.

    Raises:
      InputError: the file is not there.
    """
    if not path.exists():
        raise InputError(f"{path.name} is not in {path.parent}: run the experiment first")
    return pq.read_table(path).to_pylist()


def write_page(lines: Sequence[str], path: Path) -> None:
    """Writes the lines as a text file, whole or not at all."""
    half = path.with_name(f".{path.name}.part")
    half.write_text("\n".join(lines) + "\n", "utf-8")
    os.replace(half, path)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a Markdown table, numbers to the right of a first column of names."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
