"""The rows of a table, by our names of its columns: CSV, JSONL, or JSON with rows inside."""

import csv
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._columns import (
    chosen_names,
    field_of,
    missing,
    renamed,
    slot_of,
    usable,
)
from specmd_jax.traces.importers._lines import at_line, json_value, numbered_lines

Row = dict[str, Any]  # by our names of its fields

_DEPTH = 8  # of lists and records that rows lie in
_LIST = re.compile(r"[^\[(]*[\[(]+(.*?)[\])].*", re.DOTALL)  # also `array([1, 2], dtype=int32)`
_GAP = re.compile(r"[\s,;|]+")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields rows, and whatever a file says beside them, with the numbers of their lines.

    What has no experts is no row: facts such as a model or a number of experts, of all that
    follows.

    Raises:
      InputError: a line is neither JSON nor a row of the table; the message names it.
    """
    lines = numbered_lines(path)
    for number, line in lines:
        if line.lstrip()[0] in "{[":
            yield from _json_rows(path)
            return
        columns = columns_of(line)
        if columns is not None:
            yield from _csv_rows(columns, lines)
            return
        if not line.lstrip().startswith("#"):
            with at_line(number):
                raise InputError(_no_header(line))


def listed(cell: str) -> Any:
    """A cell of one value stays text; `[13 9 10]`, `13;9` or `(13, 9)` becomes a list."""
    match = _LIST.fullmatch(cell)
    inner = (match[1] if match else cell).strip(" \t\n[]()")
    parts = [part.strip("'\"") for part in _GAP.split(inner)] if inner else []
    return parts if match or len(parts) > 1 else inner


class Columns:
    """A header: which cell is which field."""

    def __init__(self, names: list[str], delimiter: str) -> None:
        self.delimiter = delimiter
        self.names = names
        chosen = {name: field for field, name in chosen_names(names).items()}
        self.single = {at: chosen[name] for at, name in enumerate(names) if name in chosen}
        self.slots = {at: field for at, name in enumerate(names) if (field := slot_of(name))}
        self.rest = "..." in (name.strip() for name in names)  # expert_0, ..., expert_k

    @property
    def fields(self) -> set[str]:
        return {*self.single.values(), *self.slots.values()}

    def row(self, cells: list[str]) -> Row:
        """The cells by our names.

        Raises:
          InputError: there are more or fewer of them than columns.
        """
        if self.rest and self.slots:
            first = min(self.slots)
            row = {field: cells[at] for at, field in self.single.items() if at < first}
            return row | {"experts": [cell for cell in cells[first:] if cell.strip()]}
        if len(cells) != len(self.names):
            raise InputError(
                f"{len(cells)} cells for {len(self.names)} columns: was the line cut off?"
            )
        row: Row = {
            field: listed(cells[at]) if field in ("experts", "weights") else cells[at].strip()
            for at, field in self.single.items()
        }
        for at, field in self.slots.items():
            if cells[at].strip():
                row.setdefault(field, []).append(cells[at])
        return row


def columns_of(line: str) -> Columns | None:
    """The header of a CSV, whatever parts its cells and even if it is commented; else None."""
    text = line.strip().lstrip("#").strip()
    for delimiter in (",", "\t", ";", "|"):
        names = _split(text, delimiter)
        if len(names) > 1 and any(field_of(name) or slot_of(name) for name in names):
            return Columns(names, delimiter)
    return None


def _no_header(line: str) -> str:
    return f"expected a header such as token,layer,expert, got {line[:40]!r}"


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"not CSV ({error})") from error


def _csv_rows(columns: Columns, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    if not usable(columns.fields):
        raise InputError(missing(columns.fields, columns.names))
    number = 1

    def text() -> Iterator[str]:
        nonlocal number
        for at, line in lines:  # a quoted cell may go on in the next line
            number = at
            if not line.startswith("#"):
                yield f"{line}\n"

    rows = csv.reader(text(), delimiter=columns.delimiter, skipinitialspace=True)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise InputError(f"line {number}: not CSV ({error})") from error
        if cells is None:
            return
        with at_line(number):
            row = columns.row(cells)
        yield number, row


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """One object a line, or one JSON value over many lines."""
    lines, records = numbered_lines(path), count()
    number, line = next(lines)
    try:
        value = json_value(line)
    except InputError:
        if line.strip() not in ("{", "["):  # as what is pretty-printed begins
            with at_line(number):
                raise
        whole = "\n".join(text for _, text in numbered_lines(path))
        yield from ((number, row) for row in _flat(json_value(whole), {}, records))
        return
    yield from ((number, row) for row in _flat(value, {}, records))
    for number, line in lines:
        with at_line(number):
            rows = list(_flat(json_value(line), {}, records))
        yield from ((number, row) for row in rows)


def _flat(value: object, outer: Row, records: Iterator[int], depth: int = 0) -> Iterator[Row]:
    """The rows of a record, or of the lists of records inside it, which inherit its fields.

    Args:
      outer: the fields that are inherited; `record` is the request where none is named, for a
        record of several tokens is one.
      records: numbers them.
    """
    if isinstance(value, list) and depth < _DEPTH:
        for item in value:
            yield from _flat(item, outer, records, depth + 1)
        return
    if not isinstance(value, Mapping):
        raise InputError(f"expected a JSON object, got {str(value)[:40]!r}")
    inner = {name: item for name, item in value.items() if _holds_records(item)}
    row = outer | renamed({name: item for name, item in value.items() if name not in inner})
    if "experts" in row:
        implied = {"request": row["record"]} if "record" in row else {}
        yield implied | row | {"names": list(value)}
    elif not inner or depth >= _DEPTH:
        yield row | {"names": _all_names(value)}
    else:
        yield {field: row[field] for field in ("model", "num_experts") if field in row}
        if not {"token", "step"} & row.keys():
            row["record"] = f"record {next(records)}"
        for item in inner.values():
            yield from _flat(item, row, records, depth + 1)


def _all_names(value: object) -> list[str]:
    """Names at any depth, for what is no row and may be something else."""
    if isinstance(value, Mapping):
        return [*value, *(name for item in value.values() for name in _all_names(item))]
    return [name for item in value for name in _all_names(item)] if isinstance(value, list) else []


def _holds_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)
