"""grouped-nf4-gemm's JSONL: a meta line, then {step, routed: {layer: [ids]}} a decode token.

The meta line gives model, prompt, steps, layers, top_k, n_experts (may be null), prompt_tokens.
Learned from recorded files of pjordanandrsn/grouped-nf4-gemm.
"""

from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_object, json_objects
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, integers, text
from specmd_jax.traces.trace import Provenance, Trace

NAME = "grouped-nf4"
DESCRIPTION = "JSONL: a meta line, then {step, routed: {layer: [ids]}} for each decode token"


def detect(head: bytes, path: Path) -> bool:
    del path
    record = first_object(head)
    return isinstance(record.get("meta"), dict) or "routed" in record


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads one decode pass a line; steps must rise one by one."""
    builder, meta, expected = TraceBuilder(), {}, 0
    for number, record in json_objects(path):
        with at_line(number):
            if isinstance(record.get("meta"), dict):
                meta = record["meta"]
                continue
            step = integer(record.get("step"), "step")
            if step != expected:
                raise InputError(
                    f"step {step} where {expected} comes next: a line is missing or out of order"
                )
            expected += 1
            _add(builder, step, record.get("routed"))
    _check_meta(meta, expected)
    stated = meta.get("n_experts")
    provenance = Provenance(
        model=text(meta.get("model")),
        producer="grouped-nf4-gemm",
        source=path.name,
        recorded=f"decode, prompt {text(meta.get('prompt')) or 'not recorded'}",
    )
    count = None if stated is None else integer(stated, "n_experts")
    trace = builder.build(options, provenance, num_experts=count)
    _check_shape(meta, trace)
    return trace


def _add(builder: TraceBuilder, step: int, routed: Any) -> None:
    if not isinstance(routed, dict):
        raise InputError(f"step {step} has no 'routed' object")
    for layer, experts in routed.items():
        choice = RoutedToken(integers(experts, f"layer {layer[:20]}"))
        builder.choose(step, integer(layer, "layer"), choice)


def _check_meta(meta: dict[str, Any], steps: int) -> None:
    if meta.get("steps", steps) != steps:
        raise InputError(
            f"the meta line says {meta['steps']} steps and the file has {steps}: was it cut off?"
        )


def _check_shape(meta: dict[str, Any], trace: Trace) -> None:
    for key, found in (("layers", trace.shape.num_layers), ("top_k", trace.shape.top_k)):
        if meta.get(key) not in (None, found):
            raise InputError(f"the meta line says {key} {meta[key]} and the file has {found}")
