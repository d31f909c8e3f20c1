"""What `specmd demo` found, on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import nbytes, percent, seconds

WIDTH = 24  # of a bar, on a terminal that has room for it
LEAST_WIDTH = 6  # narrower ones say nothing
NUMBERS = 50  # columns that the figures and the word on the text take, with their gaps

HEADER = """
  specmd-tiny, really offloaded: {experts} experts in host memory, copied to
  device slots over a link throttled to {link}/s. Copies are int4, in specmd-3
  of three precisions; the device has room for 5 % and 25 % of the int4 experts.
  All figures are MEASURED on this machine, after a warm-up.
"""


def show_demo(shown: Mapping[str, Any], console: Console) -> None:
    """Prints the text of the model whole, and a table for each capacity."""
    whole, *rows = shown["rows"]
    link = nbytes(shown["link_bytes_per_s"])
    console.print(Text(HEADER.format(experts=shown["experts"], link=link)))
    text = Text("  ") + Text(shown["prompt"], "bold") + Text(whole["text"].replace("\n", " "))
    console.print(text, soft_wrap=False)
    console.print(
        Text(
            f"\n  all on the device: TTFT {seconds(whole['ttft_s'])}, "
            f"TPOT {seconds(whole['tpot_s'])}\n",
            "dim",
        )
    )
    for capacity in dict.fromkeys(row["capacity"] for row in rows):
        part = [row for row in rows if row["capacity"] == capacity]
        slots, size = part[-1]["capacity_slots"], part[-1]["capacity_bytes"]
        title = f"  {capacity}: {slots} slots of int4, {nbytes(size)}, "
        console.print(Text(f"{title}{part[-1]['cycles']:.1f} x what a token touches", "bold"))
        console.print(Padding(_table(part, console.width), (0, 0, 1, 2), expand=False))


def _table(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    longest = max(len(row["strategy"]) for row in rows)
    room = min(WIDTH, width - longest - NUMBERS - 6)
    room = room if room >= LEAST_WIDTH else 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan")
    table.add_column("strategy", no_wrap=True)
    for heading in ("hit rate", "loaded", "TTFT", "TPOT"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("text")
    slowest = max(row["tpot_s"] for row in rows)
    fastest = min(row["tpot_s"] for row in rows if row["lossless"] or row["same_text"])
    for row in rows:
        mark = row["tpot_s"] == fastest
        bar = Text(
            "█" * max(round(room * row["tpot_s"] / slowest), min(room, 1)),
            "green" if mark else "dim",
        )
        table.add_row(
            Text(row["strategy"], "bold" if mark else ""),
            percent(row["hit_rate"]),
            nbytes(row["bytes_loaded"]),
            seconds(row["ttft_s"]),
            seconds(row["tpot_s"]),
            bar,
            Text("identical", "green") if row["same_text"] else Text("differs", "yellow"),
        )
    return table
