"""What a trace holds, as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, plural


def show_trace(record: Mapping[str, Any], console: Console) -> None:
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
            f"{plural(record['passes'], 'pass')}, {plural(record['requests'], 'request')}",
        ),
        ("beside ids", recorded),
        ("producer", record["producer"] or "not recorded"),
        ("licence", record["licence"] or "not recorded"),
        *(("assumed", note) for note in record["notes"]),
        *(("in doubt", doubt) for doubt in record["doubts"]),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in lines:
        style = {"assumed": "yellow", "in doubt": "bold yellow"}.get(name, "")
        table.add_row(Text(name, "cyan"), Text(value, style))
    console.print()
    console.print(Text(f"  {record['output']}", "bold"))
    console.print(Padding(table, (0, 0, 1, 2), expand=False))
