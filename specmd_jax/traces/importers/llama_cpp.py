"""llama.cpp's moe-trace: CSV of routed activations, in order of execution.

Two variants are known, and told apart by their columns:
  layer,expert          pull request 28544: one row an activation, a token's experts side by side,
                        a header line or none. Top-k is not written down, see `_topk`
  pos,layer,id,id,...   thecodacus's fork: one row a token and layer, positions of prompt tokens
                        negative, no header
A pass ends where the layer falls. In a prefill the last layer has only the tokens whose logits are
wanted, the last ones; the others are padded there. Learned from the pull request and the fork's
tools/moe-trace/moe-trace.cpp; whether the former writes a header could not be settled.
"""

import re
from itertools import groupby
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_line, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._topk import settle_top_k
from specmd_jax.traces.importers._values import integer
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "llama.cpp"
DESCRIPTION = "moe-trace CSV: layer,expert rows, or pos,layer,id,id,... rows"

_HEADER = "layer,expert"
_ROW = re.compile(r"-?\d+(,\d+)+")

Run = tuple[int, list[int]]  # a layer, and the experts it named one after another


def detect(head: bytes, path: Path) -> bool:
    del path
    line = first_line(head)
    return line.replace(" ", "") == _HEADER or _ROW.fullmatch(line) is not None


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads either variant."""
    rows = _rows(path)
    if not rows:
        raise InputError("no routing decision was found: record at least one pass")
    width = len(rows[0])
    if width < 2:
        raise InputError("one number a row: expected layer,expert or pos,layer,id,id,...")
    for index, row in enumerate(rows, 1):
        if len(row) != width:
            raise InputError(
                f"row {index} has {len(row)} numbers, the first has {width}: was the line cut off?"
            )
    provenance = Provenance(producer="llama.cpp", source=path.name, recorded="moe-trace")
    if width == 2:
        return _from_activations(rows, options, provenance)
    return _from_positions(rows, options, provenance)


def _rows(path: Path) -> list[list[int]]:
    rows = []
    for number, line in numbered_lines(path):
        if number == 1 and line.replace(" ", "") == _HEADER:
            continue
        with at_line(number):
            rows.append([integer(cell, "a cell") for cell in line.split(",")])
    return rows


def _from_activations(
    rows: list[list[int]], options: ImportOptions, provenance: Provenance
) -> Trace:
    """Runs of one layer, cut into tokens of top-k experts."""
    runs = [(layer, [row[1] for row in run]) for layer, run in groupby(rows, lambda row: row[0])]
    top_k, notes = settle_top_k([experts for _, experts in runs], options.known_top_k)
    builder, token = TraceBuilder(), 0
    for number, run in enumerate(_passes(runs)):
        tokens = max(len(experts) for _, experts in run) // top_k
        phase = PREFILL if tokens > 1 else DECODE
        for layer, experts in run:
            chosen = [experts[at : at + top_k] for at in range(0, len(experts), top_k)]
            for row, choice in enumerate(chosen, token + tokens - len(chosen)):
                builder.choose(row, layer, RoutedToken(choice), phase=phase, run=number)
        token += tokens
    return builder.build(options, provenance, notes=notes)


def _passes(runs: list[Run]) -> list[list[Run]]:
    """A new pass begins where the layer does not rise."""
    passes: list[list[Run]] = []
    for run in runs:
        if not passes or run[0] <= passes[-1][-1][0]:
            passes.append([])
        passes[-1].append(run)
    return passes


def _from_positions(rows: list[list[int]], options: ImportOptions, provenance: Provenance) -> Trace:
    """Rows that say their position; negative ones are the prompt."""
    builder = TraceBuilder()
    for position, layer, *experts in rows:
        prefill = position < 0
        builder.choose(
            position,
            layer,
            RoutedToken(experts),
            phase=PREFILL if prefill else DECODE,
            run="prefill" if prefill else None,
        )
    return builder.build(options, provenance)
