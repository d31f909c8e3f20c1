"""Megatron-LM's RouterTracer: JSONL, one record per (step, block, layer), one file a rank.

Fields: step, stage, block ("decoder" or "mtp"), layer, rank, num_tokens, topk, top_indices
[tokens][k]. Heads that predict several tokens ("mtp") are left out. A folder joins the files of
ranks that hold different tokens; ranks that repeat each other (tensor parallel) count once, and
pipeline stages are refused. Requests are not recorded: each rank is one. Nor are phases: a step of
several tokens counts as prefill.
Learned from megatron/core/transformer/moe router tracing of NVIDIA/Megatron-LM, pull request 5220.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_object, json_objects
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, integers
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "megatron"
DESCRIPTION = "RouterTracer JSONL: top_indices per (step, layer, rank); a file or a folder of ranks"

_FILES = "router_trace_rank*.jsonl"

Layers = dict[int, list[list[int]]]  # of one step: the choices of all tokens by layer
Rank = dict[int, Layers]  # by step


def detect(head: bytes, path: Path) -> bool:
    return any(path.glob(_FILES)) if path.is_dir() else "top_indices" in first_object(head)


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads every rank and puts the tokens of one step side by side."""
    files = sorted(path.glob(_FILES)) if path.is_dir() else [path]
    by_rank: dict[int, Rank] = defaultdict(lambda: defaultdict(dict))
    for file in files:
        for number, record in json_objects(file):
            with at_line(number):
                _collect(record, by_rank)
    notes = ["phases not recorded: a step of several tokens is prefill, of one token decode"]
    ranks = _distinct(by_rank, notes)
    builder = TraceBuilder()
    by_step: dict[int, dict[int, Layers]] = defaultdict(dict)
    for rank, steps in ranks.items():
        for step, layers in steps.items():
            by_step[step][rank] = layers
    for step in sorted(by_step):
        _add_step(builder, step, by_step[step])
    provenance = Provenance(producer="megatron", source=path.name, recorded="RouterTracer")
    return builder.build(options, provenance, notes=notes)


def _collect(record: dict[str, Any], by_rank: dict[int, Rank]) -> None:
    if record.get("block", "decoder") != "decoder":
        return
    rank, step, layer = (integer(record.get(name), name) for name in ("rank", "step", "layer"))
    tokens = record.get("top_indices")
    if not isinstance(tokens, list) or not tokens:
        raise InputError("top_indices is missing or empty: expected [tokens][k]")
    choices = [integers(row, "top_indices") for row in tokens]
    stated = (record.get("num_tokens", len(choices)), record.get("topk", len(choices[0])))
    if stated != (len(choices), len(choices[0])):
        raise InputError(
            f"the record says {stated[0]} tokens of top-k {stated[1]} and holds "
            f"{len(choices)} of {len(choices[0])}"
        )
    if layer in by_rank[rank][step]:
        raise InputError(f"step {step}, layer {layer} of rank {rank} is given twice")
    by_rank[rank][step][layer] = choices


def _distinct(by_rank: dict[int, Rank], notes: list[str]) -> dict[int, Rank]:
    """Ranks that hold tokens of their own; notes those that only repeat another."""
    kept: dict[int, Rank] = {}
    first: dict[str, int] = {}  # the rank that holds something, by what it holds
    for rank, steps in sorted(by_rank.items()):
        same = first.setdefault(json.dumps(steps, sort_keys=True), rank)
        if same == rank:
            kept[rank] = steps
        else:
            notes.append(f"rank {rank} repeats rank {same}: left out")
    if not kept:
        raise InputError("no decoder record was found: record at least one step")
    layers = [set().union(*steps.values()) for steps in kept.values()]
    if any(other != layers[0] for other in layers):
        raise InputError(
            "ranks hold different layers (pipeline stages): give their files, not the folder, and "
            "they are merged"
        )
    return kept


def _add_step(builder: TraceBuilder, step: int, ranks: dict[int, Layers]) -> None:
    tokens = sum(max(map(len, layers.values())) for layers in ranks.values())
    phase = PREFILL if tokens > 1 else DECODE
    for rank, layers in ranks.items():
        for layer, choices in layers.items():
            for token, experts in enumerate(choices):
                choice = RoutedToken(experts)
                where = {"request": rank, "phase": phase, "run": step}
                builder.choose((step, rank, token), layer, choice, **where)
