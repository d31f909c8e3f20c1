"""Quality and traffic side by side, one capacity a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import UNKNOWN, count, percent

HEADINGS = ("capacity", "hit rate", "loads", "NLL", "95 %", "KL", "top-1", "experts")
NOTES = (
    "NLL: rise over the exact model, nats a token; interval bootstrapped over texts.",
    "KL: of its predictions. Top-1, experts: share that agrees with it.",
)


def show_quality(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints the rows of one strategy, with what they stand beside."""
    first = rows[0]
    exact = f"exact: {first['nll_exact']:.3f} nats a token, {count(first['tokens'])} tokens"
    console.print()
    console.print(Text.assemble((f"  {first['strategy']}", "bold"), f"   {exact}"))
    console.print()
    table = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan", show_edge=False
    )
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(Padding(table, (0, 0, 1, 2), expand=False))
    for note in NOTES:
        console.print(Text(f"  {note}", "dim"))
    console.print(Text(f"  {first['label']}", "dim"))


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["nll_delta_low"], row["nll_delta_high"]
    return [
        f"{row['capacity']} ({row['capacity_slots']})",
        percent(row["hit_rate"]),
        count(row["loads"]),
        f"{row['nll_delta']:+.4f}",
        UNKNOWN if low is None else f"{low:+.3f}..{high:+.3f}",
        f"{row['kl']:.4f}",
        percent(row["same_top"]),
        percent(row["same_experts"]),
    ]
