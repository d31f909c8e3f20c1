"""The result of one simulation on a terminal: what was run, counts, ratios, times, warnings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import UNKNOWN, count, nbytes, percent, plural, seconds

PHASES = ("prefill", "decode")
Lines = list[tuple[str, str]]
ABREAST = 3  # blocks of figures, which fit 80 columns


def show_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd simulate --json` would hold, but for the layers one by one."""
    console.print()
    console.print(_title(summary))
    for line in _facts(summary):
        console.print(Padding(Text(line, style="dim"), (0, 2), expand=False))
    console.print()
    blocks = [block("Demand", _demand(summary)), block("Traffic", _traffic(summary))]
    if all(summary[phase]["accesses"] for phase in PHASES):
        blocks += [block(phase.capitalize(), phase_lines(summary[phase])) for phase in PHASES]
    if summary["prefetch"] != "none":
        blocks.append(block("Prefetch", _prefetch(summary)))
    if summary["hardware"] is not None:
        blocks.append(block("Time", _times(summary)))
    if "belady_misses" in summary:
        blocks.append(block("Beside the optimum", _optimum(summary)))
    for start in range(0, len(blocks), ABREAST):
        line = Table.grid(padding=(0, 4))
        line.add_row(*blocks[start : start + ABREAST])
        console.print(Padding(line, (0, 0, 1, 2), expand=False))
    show_warnings(summary["warnings"], console)


def show_warnings(warnings: list[str], console: Console) -> None:
    """Prints each warning as a paragraph of its own, last of all."""
    for warning in warnings:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(" !", style="bold yellow"), Text(warning, style="yellow"))
        console.print(line)
    console.print()


def labels(summary: Mapping[str, Any]) -> Text:
    """Returns what a result must never be quoted without."""
    text = Text(summary["label"], style="bold black on cyan")
    if summary["open_loop"]:
        text += Text("  ") + Text("OPEN-LOOP", style="bold black on yellow")
    return text


def _title(summary: Mapping[str, Any]) -> Text:
    return Text("  ") + Text(summary["strategy"], style="bold") + Text("   ") + labels(summary)


def _facts(summary: Mapping[str, Any]) -> list[str]:
    layers, experts, top_k = summary["shape"]
    size = summary["capacity_bytes"]
    params = ", ".join(f"{name} {value}" for name, value in summary["params"].items())
    facts = [
        f"{summary['model'] or 'unknown model'}, {layers} layers x {experts} experts, top-{top_k}",
        f"{'/'.join(Path(summary['trace']).parts[-2:])}, {plural(summary['tokens'], 'token')} in "
        f"{plural(summary['passes'], 'pass')} of {plural(summary['requests'], 'request')}",
        f"{summary['capacity']} = {count(summary['capacity_slots'])} slots"
        f"{'' if size is None else f' in {nbytes(size)}'}, "
        f"{summary['cycles']:.2f} x what a token touches",
        f"scope {summary['scope']}, {summary['admission']} admission, "
        f"{summary['start']} start, copies {'/'.join(summary['precisions'])}",
    ]
    if summary["hardware"] is not None:
        facts.append(_machine(summary))
    return [*facts, params] if params else facts


def _machine(summary: Mapping[str, Any]) -> str:
    latency = f"{seconds(summary['latency_s'])} a copy"
    overlap = "" if summary["overlap"] else ", compute waits for every load"
    return (
        f"{summary['hardware']}, link {nbytes(summary['link_bytes_per_s'])}/s and {latency}, "
        f"{count(summary['context'])} tokens of context{overlap}"
    )


def block(title: str, lines: Lines) -> Table:
    """Returns figures under a heading."""
    table = Table(box=None, show_header=True, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(Text(title, style="bold cyan"), no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value in lines:
        table.add_row(name, value)
    return table


def _demand(summary: Mapping[str, Any]) -> Lines:
    lines = [
        ("hit rate", f"[bold]{percent(summary['hit_rate'])}[/bold]"),
        ("accesses", count(summary["accesses"])),
        ("hits", count(summary["hits"])),
        ("misses", count(summary["misses"])),
        ("  first of all", count(summary["compulsory"])),
        ("  collisions", count(summary["collisions"])),
        ("  per miss", percent(summary["collisions_per_miss"])),
    ]
    fates = ("dropped", "substituted", "on_host")
    return lines + [(f"  {f.replace('_', ' ')}", count(summary[f])) for f in fates if summary[f]]


def _traffic(summary: Mapping[str, Any]) -> Lines:
    lines = [
        ("loads", count(summary["loads"])),
        ("  on demand", count(summary["demand_loads"])),
        ("  streamed", count(summary["streamed"])),
        ("  by prefetch", count(summary["prefetched"])),
        ("evictions", count(summary["evictions"])),
        ("bytes", nbytes(summary["bytes_loaded"])),
    ]
    if summary["swapped"]:
        lines.append(("rerouted", count(summary["swapped"])))
    return lines


def phase_lines(phase: Mapping[str, Any]) -> Lines:
    """Returns the figures of one phase."""
    return [
        ("hit rate", percent(phase["hit_rate"])),
        ("hits", count(phase["hits"])),
        ("misses", count(phase["misses"])),
        ("collisions", count(phase["collisions"])),
        ("loads", count(phase["loads"])),
        ("bytes", nbytes(phase["bytes_loaded"])),
    ]


def _prefetch(summary: Mapping[str, Any]) -> Lines:
    return [
        ("precision", percent(summary["prefetch_precision"])),
        ("coverage", percent(summary["prefetch_coverage"])),
        ("in time", percent(summary["prefetch_timeliness"])),
        ("used", count(summary["prefetch_used"])),
        ("late", count(summary["prefetch_late"])),
        ("wasted", count(summary["prefetch_wasted"])),
        ("not started", count(summary["prefetch_dropped"])),
    ]


def _times(summary: Mapping[str, Any]) -> Lines:
    per_pass = summary["stall_percentiles_s"] or {}
    return [
        ("TTFT", seconds(summary["ttft_s"])),
        ("TPOT", f"[bold]{seconds(summary['tpot_s'])}[/bold]"),
        *rates(summary),
        ("stalled", percent(summary["stall_share"])),
        *((f"stall {name}", seconds(value)) for name, value in per_pass.items()),
    ]


def rates(summary: Mapping[str, Any]) -> Lines:
    """Returns tokens a second: those decoded, and those of prompts."""
    names = {"tokens/s": "tokens_per_s", "prefill tokens/s": "prefill_tokens_per_s"}
    given = {name: summary[key] for name, key in names.items()}
    return [(k, UNKNOWN if rate is None else f"{rate:.3g}") for k, rate in given.items()]


def _optimum(summary: Mapping[str, Any]) -> Lines:
    return [
        ("Belady misses", count(summary["belady_misses"])),
        ("  with bypass", count(summary["belady_bypass_misses"])),
        ("regret", count(summary["regret"])),
        ("  of the misses", percent(summary["regret_share"])),
        ("  by admission", percent(summary["admission_share"])),
    ]
