"""Rows as a file: parquet, CSV, JSON lines or Markdown, as its name says; and back."""

import csv
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import replace_file
from specmd_jax.core.json_files import parse_object
from specmd_jax.core.printable import printable_record

Row = Mapping[str, Any]
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_BETWEEN = re.compile(r"(?<!\\)\|")  # the cells of a line of Markdown


class Table(NamedTuple):
    """A way to write rows and to read them again."""

    write: Callable[[Sequence[Row], Path], None]
    read: Callable[[Path], list[dict[str, Any]]]


def table_kind(path: Path) -> Table:
    """Returns how a table of this name is written.

    Raises:
      InputError: its ending is none of a table's.
    """
    if path.suffix.lower() not in TABLES:
        endings = ", ".join(TABLES)
        raise InputError(f"{path}: a table ends in one of {endings}, which say how it is written")
    return TABLES[path.suffix.lower()]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Writes rows, a column for every key of any row, at once or not at all.

    Raises:
      InputError: the name is no table's, or the file cannot be written.
    """
    kind = table_kind(path)
    rows = printable_record(list(rows))  # names of files may hold bytes that are no text
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replace_file(path) as half:
        kind.write([{name: row.get(name) for name in names} for row in rows], half)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a table that `write_table` wrote.

    Of CSV and Markdown what looks like a number is one.

    Raises:
      InputError: it is none, or cannot be read.
    """
    kind = table_kind(path)
    try:
        return kind.read(path)
    except (OSError, ValueError, KeyError, pa.ArrowException, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: write it anew") from error


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    table = pa.table({name: _column([row[name] for row in rows]) for name in rows[0]})
    pq.write_table(table, path, compression="zstd")


def _column(values: list[Any]) -> pa.Array:
    """Returns a column of its values' type; a ratio that no row has is a number too."""
    column = pa.array(values)
    return column.cast(pa.float64()) if pa.types.is_null(column.type) else column


def _write_jsonl(rows: Sequence[Row], path: Path) -> None:
    path.write_text("".join(f"{json.dumps(dict(row))}\n" for row in rows), encoding="utf-8")


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [parse_object(line, str(path), "write it anew") for line in lines]


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(rows[0])
        lines.writerows([_text(value) for value in row.values()] for row in rows)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        names, *lines = csv.reader(file, strict=True)
    return [_row(names, line) for line in lines]


def _write_markdown(rows: Sequence[Row], path: Path) -> None:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    written = [f"| {' | '.join(_escape(cell) for cell in line)} |\n" for line in lines]
    path.write_text("".join(written), encoding="utf-8")


def _read_markdown(path: Path) -> list[dict[str, Any]]:
    names, _, *lines = [
        [html.unescape(cell.strip()).replace("\\|", "|") for cell in _BETWEEN.split(line)[1:-1]]
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [_row(names, line) for line in lines]


def _escape(cell: str) -> str:
    return html.escape(cell, quote=False).replace("|", "\\|")


def _row(names: list[str], line: list[str]) -> dict[str, Any]:
    return {name: _value(cell) for name, cell in zip(names, line, strict=True)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _value(text: str) -> Any:
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    if found := _NUMBER.fullmatch(text):
        return float(text) if any(found.groups()) else int(text)
    return text


TABLES = {
    ".parquet": Table(_write_parquet, lambda path: pq.read_table(path).to_pylist()),
    ".csv": Table(_write_csv, _read_csv),
    ".jsonl": Table(_write_jsonl, _read_jsonl),
    ".md": Table(_write_markdown, _read_markdown),
}
