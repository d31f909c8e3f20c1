"""The recorded traces that the experiments replay, and the tables that they leave behind."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.study.journal import Journal, journal_of
from specmd_jax.study.table import write_table
from specmd_jax.traces import Trace, import_trace, slice_passes, slice_requests

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = Path(os.environ.get("SPECMD_RECORDINGS", ROOT.parent / "shared"))
RECORDED = tuple(
    RECORDINGS / "traces" / name
    for name in ("olmoe-sampled", "deepseek-v2-lite-intent", "gpt-oss-20b")
)
RESULTS = ROOT / "experiments" / "results"

Rows = list[dict[str, Any]]
Parts = Mapping[str, Callable[[], Rows]]


def load(paths: Sequence[Path], passes: int) -> dict[str, Trace]:
    """Returns about `passes` passes of each trace, by the short name of its model.

    Raises:
      InputError: one is not there, or two are of one model.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError(
            f"no trace at {', '.join(missing)}: name recorded traces with --traces, or the folder "
            "that holds traces/ with SPECMD_RECORDINGS"
        )
    traces: dict[str, Trace] = {}
    for path in paths:
        trace = import_trace(path)
        name = short_name(trace.provenance.model or path.stem)
        if name in traces:
            raise InputError(f"{path} is a second trace of {name}: give one trace a model")
        traces[name] = sample(trace, passes)
    return traces


def short_name(model: str) -> str:
    """Returns a model's name without its maker and without remarks in brackets."""
    return model.split("/")[-1].split(" (")[0]


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


def finish(parts: Parts, traces: Mapping[str, Trace], output: Path) -> None:
    """Computes all parts and writes their rows, in order, as one parquet file.

    Each part is kept in a journal beside `output` as soon as it is done, so that a run that was
    stopped goes on where it was. A part is known by its name and the traces: the journal must be
    removed when what a part computes has changed. What is being computed is told on stderr.

    Args:
      parts: what computes the rows, by name.
      traces: what they are computed from.

    Raises:
      InputError: the output cannot be written.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    journal, told = Journal(journal_of(output)), digest(traces)
    console = Console(stderr=True, highlight=False, log_path=False)
    done = journal.rows()
    for number, (name, compute) in enumerate(parts.items(), start=1):
        key = f"{told} {name}"
        if key not in done:
            console.log(f"{number}/{len(parts)} {name}")
            done[key] = {"rows": json.dumps(compute())}  # the journal holds scalars
            journal.append({key: done[key]})
    found = (json.loads(done[f"{told} {name}"]["rows"]) for name in parts)
    write_table([row for rows in found for row in rows], output)
    journal.remove()


def digest(traces: Mapping[str, Trace]) -> str:
    """Returns what tells the routing of these traces from that of others."""
    told = hashlib.sha256()
    for trace in traces.values():
        told.update(f"{trace.shape}".encode())
        for array in (trace.experts, trace.step, trace.request):
            told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()[:16]


@cache
def measured_on() -> dict[str, str]:
    """Returns what a measurement must say of itself: the day, the machine, and the commit."""
    cpus = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else None
    name = found[1].strip() if found else "unknown processor"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {name}",
        "commit": commit or "unknown",
    }


def read_rows(path: Path) -> Rows:
    """Returns the rows that `finish` wrote.

    Raises:
      InputError: the file is not there.
    """
    if not path.exists():
        raise InputError(f"{path.name} is not in {path.parent}: run the experiment first")
    return pq.read_table(path).to_pylist()


def where(rows: Rows, **wanted: str) -> Rows:
    """Returns the rows that have all these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def write_page(lines: Sequence[str], path: Path) -> None:
    """Writes the lines as a text file, whole or not at all."""
    with replace_file(path) as half:
        half.write_text("\n".join(lines) + "\n", "utf-8")


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True
) -> list[str]:
    """Returns a Markdown table: a first column of names, then numbers to the right, or words."""
    rule = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
