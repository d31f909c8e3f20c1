"""moe-policylang's trace recorder, as JSONL or parquet.

JSONL: a header (model_name, num_layers, num_experts, top_k, num_entries), then one object per
(prompt p, token t, layer l): experts e, scores s, full softmax sm, phase ph, router logits lg_l.
Parquet has the same columns under long names and no header. Logits are kept where they were
recorded, else the logarithm of the softmax. Old parquet files hold the softmax alone: give top-k
and the experts are its largest. Without phases every token is a decode pass.
Learned from moe_policylang/integrations/trace_recorder.py of moe-policylang 1.15.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.inputs import open_input
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import at_line, first_object, json_objects
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._parquet import parquet_rows
from specmd_jax.traces.importers._values import (
    integer,
    integers,
    log_probabilities,
    reals,
    text,
)
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "policylang"
DESCRIPTION = "moe-policylang trace: JSONL or parquet, optionally with the full softmax"

_PARQUET = b"PAR1"
_SHORT = {  # the names of JSONL by those of parquet
    "prompt_id": "p",
    "token_idx": "t",
    "layer_idx": "l",
    "selected_experts": "e",
    "router_scores": "s",
    "router_softmax": "sm",
    "phase": "ph",
    "router_logits": "lg_l",
}
_PHASES = {None: DECODE, "decode": DECODE, "prefill": PREFILL}

Entry = dict[str, Any]  # by the short names


def detect(head: bytes, path: Path) -> bool:
    del path
    return head.startswith(_PARQUET) or {"model_name", "num_entries"} <= first_object(head).keys()


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the entries, in the order of the file."""
    with open_input(path) as file:
        parquet = file.read(len(_PARQUET)) == _PARQUET
    builder, header, count = TraceBuilder(), {}, 0
    for number, entry in _parquet(path) if parquet else json_objects(path):
        with at_line(number):
            if "model_name" in entry:
                header = entry
                continue
            count += 1
            _add(builder, entry, options.known_top_k)
    if header.get("num_entries", count) != count:
        raise InputError(
            f"the header says {header['num_entries']} entries and the file has {count}:"
            " was it cut off?"
        )
    stated = header.get("num_experts")
    return builder.build(
        options,
        Provenance(
            model=text(header.get("model_name")),
            producer="policylang",
            source=path.name,
            recorded="moe-policylang forward hooks",
        ),
        num_experts=None if stated is None else integer(stated, "num_experts"),
    )


def _add(builder: TraceBuilder, entry: Entry, top_k: int | None) -> None:
    prompt, token, layer = (
        integer(entry.get(key, 0 if key == "p" else None), key) for key in ("p", "t", "l")
    )
    label = entry.get("ph")
    if not (label is None or label in ("decode", "prefill")):
        raise InputError(f"ph is {str(label)[:20]!r}: expected prefill or decode")
    logits = _logits(entry)
    if entry.get("e") is not None:
        experts = integers(entry["e"], "e")
        weights = None if entry.get("s") is None else reals(entry["s"], "s")
    else:
        experts, weights = _largest(logits, top_k), None
    builder.choose(
        (prompt, token),
        layer,
        RoutedToken(experts, weights, logits),
        request=prompt,
        phase=_PHASES[label],
        run=(prompt, "prefill") if label == "prefill" else None,
    )


def _logits(entry: Entry) -> list[float] | None:
    if entry.get("lg_l") is not None:
        return reals(entry["lg_l"], "lg_l")
    if entry.get("sm") is not None:
        return log_probabilities(entry["sm"], "sm")
    return None


def _largest(logits: list[float] | None, top_k: int | None) -> list[int]:
    if logits is None or top_k is None:
        raise InputError("no experts are recorded: give top-k to take them from a softmax")
    return sorted(range(len(logits)), key=lambda expert: -logits[expert])[:top_k]


def _parquet(path: Path) -> Iterator[tuple[int, Entry]]:
    """Rows of the known columns, renamed as in JSONL, numbered from 1."""
    names = [name for name in _SHORT if name != "phase"]
    for number, row in parquet_rows(path, names, ["phase"]):
        yield number, {_SHORT[name]: value for name, value in row.items()}
