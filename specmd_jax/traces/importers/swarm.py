"""Swarm's expert_indices.json: one JSON object, `expert_trace[layer]` = [tokens][k].

Also there: model, num_layers, num_experts, top_k, generated_ids, config. Decode of one request;
-1 marks a token that was not routed (the last one, which is only sampled).
Learned from a recorded file of Techburst36/Swarm.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._lines import json_object, numbered_lines
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, integers, text
from specmd_jax.traces.trace import Provenance, Trace

NAME = "swarm"
DESCRIPTION = "expert_indices.json: expert_trace[layer] = [tokens][k], one request"


def detect(head: bytes, path: Path) -> bool:
    del path
    starts = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return starts and (b'"expert_trace"' in head or b'"num_generated_tokens"' in head)


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the object and turns it from layers of tokens to tokens of layers."""
    record = json_object("\n".join(line for _, line in numbered_lines(path)))
    experts = _by_token(_layers(record))
    tokens = len(experts)
    stated = record.get("num_experts")
    return finish(
        experts,
        step=np.arange(tokens),
        request=np.zeros(tokens, np.int32),
        phase=np.zeros(tokens, np.uint8),
        options=options,
        num_experts=None if stated is None else integer(stated, "num_experts"),
        provenance=Provenance(
            model=text(record.get("model")),
            producer="swarm",
            source=path.name,
            recorded=f"decode, {record['config']}" if "config" in record else "decode",
        ),
    )


def _layers(record: dict[str, Any]) -> list[Any]:
    trace = record.get("expert_trace")
    if isinstance(trace, dict):
        trace = [trace[key] for key in sorted(trace, key=lambda key: integer(key, "layer"))]
    if not isinstance(trace, list) or not trace:
        raise InputError("expert_trace is missing or empty: was the file cut off?")
    stated = record.get("num_layers", len(trace))
    if stated != len(trace):
        raise InputError(f"num_layers says {stated} and expert_trace has {len(trace)} layers")
    return trace


def _by_token(layers: list[Any]) -> Integer[np.ndarray, "T L K"]:
    sizes = {len(layer) if isinstance(layer, list) else -1 for layer in layers}
    if len(sizes) > 1 or min(sizes) < 1:
        raise InputError(f"layers of {sorted(sizes)[:4]} tokens: every layer needs all tokens")
    rows = [[integers(row, "an expert id") for row in layer] for layer in layers]
    widths = {len(row) for layer in rows for row in layer}
    if len(widths) > 1 or min(widths) < 1:
        raise InputError(f"tokens choose {min(widths)} to {max(widths)} experts: top-k must be one")
    return np.array(rows, np.int64).transpose(1, 0, 2)
