"""BigMoeOnEdge's `# route_trace v1`: a preamble, then a CSV row for each expert chosen.

Preamble: `# model=... arch=... n_layer=... n_expert=... n_expert_used=...`, and for each layer
`# layer=... expert_bytes=... dense_bytes=...`. Columns, read by name because later engines append
some: turn (a request), phase (0 prefill, 1 decode), step (position), layer, slot (rank), expert,
weight (nan: the graph showed none), residency, expert_bytes (read just now, so not used here).
Prefill is one batched pass. llama.cpp computes the last layer for the last prompt token only: the
others are padded there. Learned from Helldez/BigMoeOnEdge/docs/telemetry.md and a recorded file.
"""

from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_line, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, real
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "bigmoe"
DESCRIPTION = "BigMoeOnEdge `# route_trace v1` CSV: phase, weights and bytes of an expert"

_NEEDED = ("turn", "phase", "step", "layer", "expert")
_PHASES = {0: PREFILL, 1: DECODE}


def detect(head: bytes, path: Path) -> bool:
    del path
    return first_line(head).startswith("# route_trace")


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the preamble and the rows."""
    builder, facts, sizes = TraceBuilder(), {}, {}
    columns: list[str] = []
    for number, line in numbered_lines(path):
        with at_line(number):
            if line.startswith("#"):
                _preamble(line, facts, sizes)
            elif not columns:
                columns = _header(line)
            else:
                _add(builder, dict(zip(columns, _cells(line, len(columns)), strict=True)))
    stated = facts.get("n_expert")
    return builder.build(
        options,
        Provenance(
            model=facts.get("model", ""),
            producer="bigmoe",
            source=path.name,
            recorded=f"BigMoeOnEdge, arch {facts.get('arch', 'not recorded')}",
        ),
        num_experts=None if stated is None else integer(stated, "n_expert"),
        expert_bytes=sizes,
    )


def _preamble(line: str, facts: dict[str, str], sizes: dict[int, int]) -> None:
    if line.startswith("# route_trace") and line.split()[-1] != "v1":
        raise InputError(f"route_trace {line.split()[-1]} is not supported: record v1")
    found = dict(word.split("=", 1) for word in line.split() if "=" in word)
    if "layer" in found and "expert_bytes" in found:
        layer = integer(found["layer"], "layer")
        sizes[layer] = integer(found["expert_bytes"], "expert_bytes")
    elif "model" in found or "n_expert" in found:
        facts.update(found)


def _header(line: str) -> list[str]:
    columns = [name.strip() for name in line.split(",")]
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise InputError(f"no column {', '.join(missing)}: the header is missing or cut off")
    return columns


def _cells(line: str, count: int) -> list[str]:
    cells = line.split(",")
    if len(cells) != count:
        raise InputError(f"{len(cells)} cells for {count} columns: was the line cut off?")
    return cells


def _add(builder: TraceBuilder, row: dict[str, str]) -> None:
    turn, code, step, layer = (integer(row[name], name) for name in _NEEDED[:4])
    phase = _PHASES.get(code)
    if phase is None or layer < 0:
        raise InputError(f"phase {code}, layer {layer}: expected phase 0 or 1, layers from 0")
    builder.choose_one(
        (turn, step),
        layer,
        integer(row["expert"], "expert"),
        _weight(row.get("weight", "nan")),
        request=turn,
        phase=phase,
        run=(turn, "prefill") if phase == PREFILL else None,
    )


def _weight(cell: str) -> float | None:
    """The engine writes `nan` where its graph has no node for weights."""
    return None if cell.strip().lower() in ("nan", "-nan") else real(cell, "weight")
