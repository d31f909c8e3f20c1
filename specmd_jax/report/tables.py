"""Tables and lines for terminals: an imported trace, configurations side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.report.quantities import count, nbytes, percent, seconds
from specmd_jax.traces import PREFILL, Trace

Row = Mapping[str, Any]


def describe_trace(trace: Trace) -> dict[str, Any]:
    """Returns what a trace holds and what was assumed in reading it, ready for JSON."""
    provenance = trace.provenance
    scores = ("weights", "logits", "predicted", "expert_bytes")
    return {
        "model": provenance.model or None,
        "layers": trace.shape.num_layers,
        "experts": trace.num_experts,
        "top_k": trace.shape.top_k,
        "tokens": trace.num_tokens,
        "passes": trace.num_passes,
        "requests": len(set(trace.request.tolist())),
        "prefill_tokens": int((trace.phase == PREFILL).sum()),
        "records": [name for name in scores if getattr(trace, name) is not None],
        "lookahead": trace.lookahead,
        "producer": provenance.producer or None,
        "licence": provenance.licence or None,
        "notes": list(provenance.notes),
    }


def show_trace(record: Row, console: Console) -> None:
    """Prints what `specmd import` wrote."""
    recorded = ", ".join(record["records"]) or "nothing"
    lines = [
        ("model", record["model"] or "not recorded"),
        (
            "router",
            f"{record['layers']} layers x {record['experts']} experts, top-{record['top_k']}",
        ),
        (
            "tokens",
            f"{count(record['tokens'])} ({count(record['prefill_tokens'])} prefill), "
            f"{count(record['passes'])} passes, {count(record['requests'])} request(s)",
        ),
        ("beside ids", recorded),
        ("producer", record["producer"] or "not recorded"),
        ("licence", record["licence"] or "not recorded"),
        *(("assumed", note) for note in record["notes"]),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in lines:
        style = "yellow" if name == "assumed" else ""
        table.add_row(Text(name, "cyan"), Text(value, style))
    console.print()
    console.print(Text(f"  {record['output']}", "bold"))
    console.print(Padding(table, (0, 2, 1, 2)))


class Column:
    """A column of a comparison: its heading, the key of its value and how that is written."""

    def __init__(self, heading: str, key: str, write: Any = str):
        self.heading, self.key, self.write = heading, key, write

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        return "" if value is None and self.write is str else self.write(value)


SETTINGS = (
    Column("trace", "trace"),
    Column("strategy", "strategy"),
    Column("capacity", "capacity"),
    Column("scope", "scope"),
    Column("machine", "hardware"),
)
RESULTS = (
    Column("hits", "hit_rate", percent),
    Column("coll./miss", "collisions_per_miss", percent),
    Column("loaded", "bytes_loaded", nbytes),
    Column("TTFT", "ttft_s", seconds),
    Column("TPOT", "tpot_s", seconds),
)
WIDE = 2  # settings that leave room in 80 columns for figures on traffic
TRAFFIC = ("collisions_per_miss", "bytes_loaded")


def show_comparison(rows: Sequence[Row], console: Console, most: int | None = None) -> None:
    """Prints the first `most` configurations, one a line: where all of them differ, and results."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold cyan", show_edge=False)
    settings = [column for column in SETTINGS if column.key == "strategy" or _vary(column, rows)]
    results = [column for column in RESULTS if any(row.get(column.key) for row in rows)]
    if len(settings) > WIDE:
        results = [column for column in results if column.key not in TRAFFIC]
    for column in settings:
        table.add_column(column.heading, no_wrap=column.key != "strategy", overflow="fold")
    for column in results:
        table.add_column(column.heading, justify="right", no_wrap=True)
    table.add_column("", style="yellow")
    for row in rows[:most]:
        cells = [Text(column.cell(row)) for column in (*settings, *results)]
        table.add_row(*cells, Text("open-loop" if row["open_loop"] else ""))
    console.print(Padding(table, (0, 2, 1, 2)))


def _vary(column: Column, rows: Sequence[Row]) -> bool:
    return len({row.get(column.key) for row in rows}) > 1
