"""What tuning came to, on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, percent, seconds
from specmd_jax.report.summary_table import labels, show_warnings


def show_tuning(record: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd tune --json` would hold."""
    title = Text.assemble("  ", (record["strategy"], "bold"), "   ") + labels(record)
    console.print()
    console.print(title)
    facts = (
        f"{record['objective']} on {record['hardware']} at {record['capacity']}, "
        f"{count(record['evaluations'])} simulations, led by {record['gradient']}"
    )
    console.print(Padding(Text(facts, "dim"), (0, 2, 1, 2), expand=False))
    console.print(Padding(_knobs(record), (0, 0, 1, 2), expand=False))
    console.print(Padding(_objectives(record), (0, 0, 1, 2), expand=False))
    if record["output"] is not None:
        console.print(Text(f"  {record['output']}", "dim"))
    show_warnings(record["warnings"], console)


def _knobs(record: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name in ("parameter", "default", "tuned", "range"):
        table.add_column(name, justify="left" if name == "parameter" else "right", no_wrap=True)
    for name, knob in record["knobs"].items():
        ends = f"{knob['low']:.3g} .. {knob['high']:.3g}"
        table.add_row(name, f"{knob['default']:.3g}", f"[bold]{knob['tuned']:.3g}[/bold]", ends)
    return table


def _objectives(record: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name in ("", "train", "held out", "gain", "simulations"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    default = record["objective_default"]
    rows = [("defaults", default, 1), ("tuned", record["objective_tuned"], record["evaluations"])]
    if "grid_best" in record:
        rows.append(("grid's best", record["grid_best"], record["grid_evaluations"]))
    for name, values, spent in rows:
        gain = percent(1 - values["held_out"] / default["held_out"])
        cells = (seconds(values["train"]), seconds(values["held_out"]), gain, count(spent))
        table.add_row(name, *cells, style="bold" if name == "tuned" else "")
    return table
