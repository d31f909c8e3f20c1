"""The result of one run on a terminal: what was run, how fast, and why."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import UNKNOWN, count, nbytes, percent, seconds
from specmd_jax.report.summary_table import (
    PHASES,
    Lines,
    block,
    phase_lines,
    rates,
    show_warnings,
)


def show_run(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd generate --json` would hold, but for the text and the layers."""
    console.print()
    title = Text("  ") + Text(summary["strategy"] or "", style="bold") + Text("   ")
    console.print(title + Text(summary["label"], style="bold black on green"))
    for fact in _facts(summary):
        console.print(Padding(Text(fact, style="dim"), (0, 2), expand=False))
    console.print()
    grid = Table.grid(padding=(0, 4))
    grid.add_row(
        block("Time", _times(summary)),
        block("Demand", _demand(summary)),
        block("Link", _link(summary)),
    )
    console.print(Padding(grid, (0, 0, 1, 2), expand=False))
    if all(summary[phase]["accesses"] for phase in PHASES):
        by_phase = Table.grid(padding=(0, 4))
        by_phase.add_row(*(block(one.capitalize(), phase_lines(summary[one])) for one in PHASES))
        console.print(Padding(by_phase, (0, 0, 1, 2), expand=False))
    show_warnings(summary["warnings"], console)


def _facts(summary: Mapping[str, Any]) -> list[str]:
    size = summary["capacity_bytes"]
    link = summary["link"]
    return [
        f"{summary['model']}, copies {'/'.join(summary['precisions'])}, "
        f"{'lossless' if summary['lossless'] else 'lossy'}",
        f"{summary['capacity']} = {count(summary['capacity_slots'])} slots"
        f"{'' if size is None else f' in {nbytes(size)}'}, "
        f"{summary['cycles']:.2f} x what a token touches",
        "the device's own link" if link is None else f"link throttled to {link}",
    ]


def _times(summary: Mapping[str, Any]) -> Lines:
    between = summary["inter_token_s"] or {}
    return [
        ("TTFT", _seconds(summary["ttft_s"])),
        ("TPOT", f"[bold]{_seconds(summary['tpot_s'])}[/bold]"),
        *[(f"  {name}", _seconds(value)) for name, value in between.items()],
        *rates(summary),
        ("stalled", _seconds(summary["stall_s"])),
        ("tokens", count(summary["tokens"])),
    ]


def _demand(summary: Mapping[str, Any]) -> Lines:
    lines = [
        ("hit rate", f"[bold]{percent(summary['hit_rate'])}[/bold]"),
        ("accesses", count(summary["accesses"])),
        ("misses", count(summary["misses"])),
        ("  collisions", count(summary["collisions"])),
    ]
    fates = ("dropped", "substituted", "on_host")
    return lines + [(f"  {f.replace('_', ' ')}", count(summary[f])) for f in fates if summary[f]]


def _link(summary: Mapping[str, Any]) -> Lines:
    lines = [
        ("busy", percent(summary["link_busy_share"])),
        ("bytes", nbytes(summary["bytes_loaded"])),
        ("demand loads", count(summary["demand_loads"])),
    ]
    if not summary["prefetched"]:
        return lines
    return [
        *lines,
        ("prefetched", count(summary["prefetched"])),
        ("  useful", count(summary["prefetch_used"])),
        ("  late", count(summary["prefetch_late"])),
        ("  wasted", count(summary["prefetch_wasted"])),
    ]


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else seconds(value)
