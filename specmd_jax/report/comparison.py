"""Configurations side by side, one a line: where they differ, and what came of it."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import UNKNOWN, nbytes, percent, seconds

Row = Mapping[str, Any]
MARGIN = 2


def _rate(bytes_per_s: float) -> str:
    return f"{nbytes(bytes_per_s)}/s"


class Column(NamedTuple):
    """A column: its heading, the key of its value and how that is written."""

    heading: str
    key: str
    write: Callable[[Any], str] = str

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        return UNKNOWN if value is None else self.write(value)


SETTINGS = (  # shown where the rows differ in them, the strategy always
    Column("trace", "trace"),
    Column("prefill", "prefill_tokens"),
    Column("batch", "batch"),
    Column("strategy", "strategy"),
    Column("capacity", "capacity"),
    Column("scope", "scope"),
    Column("admission", "admission"),
    Column("ahead", "lookahead"),
    Column("copies", "precisions", lambda p: p if isinstance(p, str) else "+".join(p)),
    Column("start", "start"),
    Column("touch insert", "touch_on_prefetch_insert"),
    Column("touch hit", "touch_on_prefetch_hit"),
    Column("seed", "eviction.seed"),
    Column("seed", "prefetch.seed"),
    Column("machine", "hardware"),
    Column("link", "link_bytes_per_s", _rate),
    Column("latency", "latency_s", seconds),
    Column("context", "context"),
    Column("overlap", "overlap"),
)
RESULTS = (
    Column("hit rate", "hit_rate", percent),
    Column("coll./miss", "collisions_per_miss", percent),
    Column("loaded", "bytes_loaded", nbytes),
    Column("TTFT", "ttft_s", seconds),
    Column("TPOT", "tpot_s", seconds),
)
TRAFFIC = ("collisions_per_miss", "bytes_loaded")  # first to go where the terminal is narrow


def show_comparison(rows: Sequence[Row], console: Console, most: int | None = None) -> None:
    """Prints the first `most` configurations, in columns as many as fit."""
    rows = _with_short_names(rows)
    settings = [column for column in SETTINGS if column.key == "strategy" or _vary(column, rows)]
    results = [c for c in RESULTS if any(row.get(c.key) is not None for row in rows)]
    table = _table(settings, results, rows[:most])
    if console.measure(table).maximum + MARGIN > console.width:
        results = [column for column in results if column.key not in TRAFFIC]
        table = _table(settings, results, rows[:most])
    console.print(Padding(table, (0, 0, 1, MARGIN), expand=False))


def _table(settings: Sequence[Column], results: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan", show_edge=False
    )
    for column in settings:
        table.add_column(column.heading, no_wrap=column.key != "strategy", overflow="fold")
    for column in results:
        table.add_column(column.heading, justify="right", no_wrap=True)
    flagged = any(row["open_loop"] for row in rows)
    if flagged:
        table.add_column("", style="yellow", no_wrap=True)
    for row in rows:
        cells = [Text(column.cell(row)) for column in (*settings, *results)]
        flag = [Text("open-loop" if row["open_loop"] else "")] if flagged else []
        table.add_row(*cells, *flag)
    return table


def _with_short_names(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with the traces' paths cut to where they part."""
    paths = {str(row["trace"]) for row in rows if "trace" in row}
    if len(paths) < 2 or len({Path(path).is_absolute() for path in paths}) > 1:
        return list(rows)
    base = os.path.commonpath([Path(path).parent for path in paths])
    return [{**row, "trace": os.path.relpath(row["trace"], base or ".")} for row in rows]


def _vary(column: Column, rows: Sequence[Row]) -> bool:
    return len({column.cell(row) for row in rows}) > 1
