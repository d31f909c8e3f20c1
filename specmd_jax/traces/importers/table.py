"""Tables of any origin: CSV with a header, or JSONL with one object a line.

Column names are compared without case, and `-` counts as `_`. A column is recognised by any of
the names in `_NAMES` below. Needed are layer, experts, and token or step.

  experts  one id a row (then the rows of a token and layer are collected, in order), or a list:
           a JSON list, or ids parted by blanks, `;` or `|`; weights likewise
  request  any label; one request if it is absent
  token    position in its request, which must rise
  step     forward pass. With `token`, rows of one step are one pass. Alone, it also counts the
           tokens of each request; if it falls anywhere, each request has its own passes, else
           requests share those of equal step
  phase    prefill or prompt; decode, generate, generated or generation. Prefill tokens of a
           request are one pass where there is no step
  logits, probabilities   of all experts (JSONL only); probabilities become logits by the logarithm
Lines that hold no experts but `num_experts` or `model` are taken as meta data (JSONL only).
"""

import csv
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._build import RoutedToken, TraceBuilder
from specmd_jax.traces.importers._lines import (
    at_line,
    first_line,
    first_object,
    json_object,
    json_value,
    numbered_lines,
)
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._values import (
    integer,
    integers,
    log_probabilities,
    real,
    reals,
    text,
)
from specmd_jax.traces.trace import DECODE, PREFILL, Provenance, Trace

NAME = "table"
DESCRIPTION = "CSV or JSONL with columns like request, token, step, layer, experts, weights, phase"

_NAMES = {
    "request": "request request_id req req_id prompt prompt_id seq seq_id sequence sequence_id "
    "sample sample_id",
    "token": "token token_idx token_index token_pos token_position position pos",
    "step": "step pass pass_id forward_pass forward_pass_id iteration",
    "layer": "layer layer_idx layer_index layer_id",
    "experts": "experts expert expert_ids expert_id selected_experts selected_ids topk_ids "
    "topk_indices top_experts routed_experts",
    "weights": "weights weight gate_weights gate_weight gates gate scores router_scores "
    "routing_weight routing_weights topk_weights selected_probabilities",
    "phase": "phase",
    "logits": "logits router_logits",
    "probabilities": "probabilities router_softmax softmax",
}
_FIELD = {name: field for field, names in _NAMES.items() for name in names.split()}
_PHASES = {"prefill": PREFILL, "prompt": PREFILL} | dict.fromkeys(
    ("decode", "generate", "generated", "generation"), DECODE
)
_GAP = re.compile(r"[\s;|]+")

Row = dict[str, Any]  # by the keys of _NAMES


def detect(head: bytes, path: Path) -> bool:
    del path
    record = first_object(head)
    if record:
        return _usable(_renamed(record)) or {"num_experts", "model"} & record.keys() != set()
    return _usable(dict.fromkeys(_header(first_line(head))))


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads all rows, then decides which tokens share a pass."""
    meta: dict[str, Any] = {}
    rows: list[tuple[int, Row]] = []
    for number, row in _rows(path):
        if "experts" in row:
            rows.append((number, row))
        else:
            meta.update(row["meta"])
    shared = _steps_never_fall(rows)
    builder, last = TraceBuilder(), {}
    for number, row in rows:
        with at_line(number):
            _check_order(row, last)
            _add(builder, row, shared)
    stated = meta.get("num_experts")
    return builder.build(
        options,
        Provenance(model=text(meta.get("model")), producer="table", source=path.name),
        num_experts=None if stated is None else integer(stated, "num_experts"),
        ragged=True,
    )


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    columns: list[str] | None = None
    for number, line in numbered_lines(path):
        with at_line(number):
            if columns is None and line.lstrip().startswith("{"):
                row = _renamed(json_object(line))
            elif columns is None:
                columns = _checked(_header(line))
                continue
            else:
                row = _cells(line, columns)
            row = _typed(row)
        yield number, row


def _renamed(record: dict[str, Any]) -> Row:
    """Known fields by our names; a record without experts becomes meta data."""
    row = {_FIELD[_plain(key)]: value for key, value in record.items() if _plain(key) in _FIELD}
    return row if "experts" in row else {"meta": record}


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _header(line: str) -> list[str]:
    """Our names of the columns of a CSV header, "" for those of no interest."""
    return [_FIELD.get(_plain(name), "") for name in re.split(r"[,\t]", line)]


def _usable(row: Row) -> bool:
    return {"layer", "experts"} <= row.keys() and bool({"token", "step"} & row.keys())


def _checked(columns: list[str]) -> list[str]:
    if not _usable(dict.fromkeys(columns)):
        raise InputError("the header needs columns layer, experts, and token or step")
    named = [name for name in columns if name]
    if len(named) > len(set(named)):
        raise InputError(f"two columns of the header mean the same among {', '.join(named)}")
    return columns


def _cells(line: str, columns: list[str]) -> Row:
    try:
        cells = next(csv.reader([line], delimiter="\t" if "\t" in line else ","))
    except csv.Error as error:
        raise InputError(f"not CSV ({error})") from error
    if len(cells) != len(columns):
        raise InputError(f"{len(cells)} cells for {len(columns)} columns: was the line cut off?")
    row = dict(zip(columns, cells, strict=True))
    row.pop("", None)
    return {
        name: _listed(cell) if name in ("experts", "weights") else cell.strip()
        for name, cell in row.items()
    }


def _listed(cell: str) -> Any:
    """A cell of one number stays text; one of several becomes a list."""
    cell = cell.strip()
    if cell.startswith("["):
        return json_value(cell)
    parts = _GAP.split(cell)
    return parts if len(parts) > 1 else cell


def _typed(row: Row) -> Row:
    """Checks every value of a row that has experts."""
    if "experts" not in row:
        return row
    if not _usable(row):
        raise InputError(f"a row of {', '.join(row)} lacks layer, or token and step")
    one = not isinstance(row["experts"], list)
    typed = {
        "layer": integer(row["layer"], "layer"),
        "experts": integer(row["experts"], "expert")
        if one
        else integers(row["experts"], "experts"),
        "request": json.dumps(row.get("request", 0)),
        "phase": _phase(row.get("phase", "decode")),
    }
    for name in ("token", "step"):
        if row.get(name) is not None:
            typed[name] = integer(row[name], name)
    if row.get("weights") not in (None, "", []):
        read = real if one else reals
        typed["weights"] = read(row["weights"], "weights")
    if row.get("logits") is not None:
        typed["logits"] = reals(row["logits"], "logits")
    elif row.get("probabilities") is not None:
        typed["logits"] = log_probabilities(row["probabilities"], "probabilities")
    return typed


def _phase(value: object) -> int:
    phase = _PHASES.get(value.strip().lower()) if isinstance(value, str) else None
    if phase is None:
        raise InputError(f"phase is {str(value)[:20]!r}: expected one of {', '.join(_PHASES)}")
    return phase


def _steps_never_fall(rows: list[tuple[int, Row]]) -> bool:
    steps = [row["step"] for _, row in rows if "step" in row]
    return all(a <= b for a, b in pairwise(steps))


def _check_order(row: Row, last: dict[str, int]) -> None:
    """Positions of a request may only rise, layer by layer if need be."""
    if "token" not in row:
        return
    stream = f"{row['request']} {row['layer']}"
    if row["token"] < last.get(stream, row["token"]):
        raise InputError(
            f"request {row['request']}: token {row['token']} comes after {last[stream]}: "
            "sort the rows"
        )
    last[stream] = row["token"]


def _add(builder: TraceBuilder, row: Row, shared: bool) -> None:
    request, phase, step = row["request"], row["phase"], row.get("step")
    run = None
    if step is not None:
        run = step if shared else (request, step)
    elif phase == PREFILL:
        run = (request, "prefill")
    token = (request, row.get("token", step))
    where = {"request": request, "phase": phase, "run": run}
    if isinstance(row["experts"], int):
        builder.choose_one(token, row["layer"], row["experts"], row.get("weights"), **where)
    else:
        choice = RoutedToken(row["experts"], row.get("weights"), row.get("logits"))
        builder.choose(token, row["layer"], choice, **where)
