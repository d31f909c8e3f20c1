"""moe-cache-lab's `moe-cache-lab.routing-jsonl`, versions 1 and 2.

The first record is metadata (model_id; version 1: num_experts, experts_per_token; version 2:
routing_stages), every other a routing_selection: phase, token_position, layer, selected_experts,
selected_probabilities. Prompt tokens are one prefill pass. Version 2 tells an encoder from a
decoder: the decoder is read where there is one, the encoder otherwise, never both as one. A token
that the capacity left unassigned is padding.
Learned from TRACE_FORMAT.md and the JSON schemas of birkansit/moe-cache-lab.
"""

from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_line, json_objects
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import integer, integers, reals, text
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "cache-lab"
DESCRIPTION = "moe-cache-lab.routing-jsonl, versions 1 and 2"

_FORMAT = "moe-cache-lab.routing-jsonl"
_PHASES = {
    "prompt": PREFILL,
    "generated": DECODE,
    "source": PREFILL,
    "decoder_prompt": PREFILL,
    "decoder_generated": DECODE,
}


def detect(head: bytes, path: Path) -> bool:
    del path
    return f'"{_FORMAT}"' in first_line(head)


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the metadata and the selections of one routing stage."""
    builder, stage, skipped = TraceBuilder(), {}, 0
    meta: dict[str, Any] = {}
    for number, record in json_objects(path):
        with at_line(number):
            if not meta:
                meta, stage = _metadata(record), _stage(record)
            elif record.get("record_type") != "routing_selection":
                raise InputError(
                    f"record_type is {text(record.get('record_type'))[:30]!r}: "
                    "expected routing_selection"
                )
            elif record.get("routing_stage", "decoder") == stage.get("routing_stage", "decoder"):
                _add(builder, record)
            else:
                skipped += 1
    stated = stage.get("num_experts")
    return builder.build(
        options,
        Provenance(
            model=text(meta.get("model_id")),
            producer="moe-cache-lab",
            source=path.name,
            recorded=text(meta.get("capture_method")),
            date=text(meta.get("created_at")),
        ),
        num_experts=None if stated is None else integer(stated, "num_experts"),
        ragged=True,
        notes=[f"{skipped} selections of the encoder left out"] if skipped else [],
    )


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    if record.get("record_type") != "metadata" or record.get("format") != _FORMAT:
        raise InputError(f"the first record must be metadata of {_FORMAT}")
    if record.get("format_version") not in (1, 2):
        raise InputError(
            f"format_version {str(record.get('format_version'))[:20]} is not "
            "supported: give version 1 or 2"
        )
    return record


def _stage(meta: dict[str, Any]) -> dict[str, Any]:
    """The stage to read, with its number of experts."""
    if meta["format_version"] == 1:
        return {"num_experts": meta.get("num_experts")}
    stages = meta.get("routing_stages")
    stages = (
        [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    )
    if not stages:
        raise InputError("version 2 needs routing_stages in its metadata")
    return next((s for s in stages if s.get("routing_stage") == "decoder"), stages[0])


def _add(builder: TraceBuilder, record: dict[str, Any]) -> None:
    label = text(record.get("phase"))
    if label not in _PHASES:
        raise InputError(f"phase is {label[:20]!r}: expected one of {', '.join(_PHASES)}")
    phase = _PHASES[label]
    experts = integers(record.get("selected_experts"), "selected_experts")
    given = reals(record.get("selected_probabilities") or [], "selected_probabilities")
    unassigned = record.get("assignment_state") == "unassigned"
    if not experts and not unassigned:
        raise InputError("selected_experts is empty: name at least one expert")
    builder.choose(
        integer(record.get("token_position"), "token_position"),
        integer(record.get("layer"), "layer"),
        RoutedToken(experts, given if given else None),
        phase=phase,
        run="prompt" if phase == PREFILL else None,
    )
