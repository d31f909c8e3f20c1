"""Tables of any origin: CSV with a header, JSONL with one object a line, or JSON of such objects.

Columns are known by the words of their names, see `_columns`. Needed are layer, experts, and token
or step.

  experts  one id a row (then the rows of a token and layer are collected, in order), a list (JSON,
           `[13 9 10]`, or ids parted by blanks, `;` or `|`), or a column a slot (`expert_0`, ...);
           weights likewise
  request  any label; one request if it is absent
  token    position in its request, which must rise. Where it begins anew, see `_restarts`
  step     forward pass. With `token`, rows of one step are one pass. Alone, it also counts the
           tokens of each request; if it falls anywhere, each request has its own passes, else
           requests share those of equal step
  phase    prefill or prompt; decode, generate, generated or generation. Prefill tokens of a
           request are one pass where there is no step
  model    of the row; rows of several models are refused until `--model` says which are meant
  logits, probabilities   of all experts (JSON only); probabilities become logits by the logarithm
Rows may lie in a list inside a record, whose fields they inherit. Records without experts state
facts about what follows: model and num_experts.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from specmd_jax.core.errors import InputError
from specmd_jax.core.model_name import plain_model_name
from specmd_jax.core.names import plain
from specmd_jax.traces.importers._build import TraceBuilder
from specmd_jax.traces.importers._columns import (
    COUNTS,
    field_of,
    holds_counts,
    key_names,
    nearly_usable,
    slot_of,
)
from specmd_jax.traces.importers._lines import at_line, first_object
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._passes import Passes
from specmd_jax.traces.importers._records import Row, columns_of, read_rows
from specmd_jax.traces.importers._restarts import Place, RowError, stretches
from specmd_jax.traces.importers._typed import typed
from specmd_jax.traces.importers._values import integer
from specmd_jax.traces.trace import Provenance, Trace

NAME = "table"
DESCRIPTION = "CSV or JSONL with columns like request, token, step, layer, experts, weights, phase"


class _Numbered(NamedTuple):
    """A row and the line that it stands in."""

    line: int
    row: Row


def detect(head: bytes, path: Path) -> bool:
    """Whether the names say that a table of routing is meant, even if one of them is missing."""
    del path
    start = head.decode("utf-8-sig", errors="replace").lstrip()
    if start.startswith(("{", "[")):
        stated = {field_of(name) for name in first_object(head)}
        return nearly_usable(_fields(key_names(head))) or bool({"num_experts", "model"} & stated)
    for line in start.splitlines():
        try:
            columns = columns_of(line)
        except InputError:  # two columns of one meaning: a table, and `load` says so
            return True
        if columns is not None and nearly_usable(columns.fields):
            return True
        if not line.lstrip().startswith("#") and line.strip():
            return False
    return False


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads all rows, then decides which tokens share a pass."""
    rows, num_experts = _read(path)
    rows, model = _of_one_model(rows, options)
    rows, stretch = _in_stretches(rows, options.restarts)
    passes = Passes([row for _, row in rows], stretch, options.restarts)
    builder = TraceBuilder()
    for (line, row), number in zip(rows, stretch, strict=True):
        with at_line(line):
            passes.add(builder, row, number)
    return builder.build(
        options,
        Provenance(model=model, producer="table", source=path.name, doubts=passes.doubts),
        num_experts=num_experts,
        notes=passes.notes,
        ragged=True,
    )


def _fields(names: Iterable[str]) -> set[str]:
    return {field for name in names if (field := field_of(name) or slot_of(name))}


def _read(path: Path) -> tuple[list[_Numbered], int | None]:
    """The rows, each with the model that is said of it, and how many experts a layer has."""
    rows: list[_Numbered] = []
    model, counts, names = None, set(), set()
    for line, row in read_rows(path):
        with at_line(line):
            names.update(row.get("names", ()))
            model = row.get("model", model)
            if row.get("num_experts") is not None:
                counts.add(integer(row["num_experts"], "num_experts"))
            if "experts" in row or nearly_usable(row):
                rows.append(_Numbered(line, typed(row | {"model": model})))
    if not rows:
        counted = holds_counts(names)
        raise InputError(COUNTS if counted else "no routing decision was found: record one pass")
    if len(counts) > 1:
        raise InputError(f"models of {sorted(counts)[:4]} experts a layer: give rows of one model")
    return rows, counts.pop() if counts else None


def _of_one_model(rows: list[_Numbered], options: ImportOptions) -> tuple[list[_Numbered], str]:
    """The rows of the model that is meant, where there are several, and its name."""
    count = Counter(row["model"] for _, row in rows)
    named = [model for model in count if model]
    if len(named) <= 1:
        return rows, named[0] if named else ""
    meant = [model for model in named if _alike(model, options.model)]
    if len(meant) != 1:
        listed = ", ".join(f"{model} ({count[model]})" for model in named[:6])
        raise InputError(
            f"rows of {len(named)} models: {listed}; --model {named[0]} reads the rows of one"
        )
    return [one for one in rows if one.row["model"] == meant[0]], meant[0]


def _alike(one: str, other: str) -> bool:
    """Whether two names are of one model, whoever's repository they stand in."""
    one, other = (plain(plain_model_name(name).rsplit("/", 1)[-1]) for name in (one, other))
    return one == other != ""


def _in_stretches(rows: list[_Numbered], restarts: str | None) -> tuple[list[_Numbered], list[int]]:
    """The rows and the stretch of each, see `_restarts`; 0 where rows say no token.

    Rows that somebody sorted by token come back in the order of their stretches.
    """
    placed = [one for one in rows if "token" in one.row]
    try:
        found = iter(stretches([_place(row) for _, row in placed], restarts))
    except RowError as error:
        raise InputError(f"line {placed[error.at].line}: {error}") from error
    stretch = [next(found) if "token" in row else 0 for _, row in rows]
    last: dict[str, int] = {}
    for (_, row), number in zip(rows, stretch, strict=True):
        request = row.get("request", "")
        if number < last.get(request, 0):
            order = np.lexsort((stretch, _numbers(rows)))
            return [rows[at] for at in order], [stretch[at] for at in order]
        last[request] = number
    return rows, stretch


def _place(row: Row) -> Place:
    whole = isinstance(row["experts"], list)
    return Place(row.get("request", "0"), row["layer"], row["token"], whole)


def _numbers(rows: list[_Numbered]) -> list[int]:
    """The request of each row, numbered in order of first mention."""
    known: dict[str, int] = {}
    return [known.setdefault(row.get("request", ""), len(known)) for _, row in rows]
