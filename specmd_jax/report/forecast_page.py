"""A forecast as a page for a terminal, from the record that `specmd predict --json` prints."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, device_memory, nbytes, percent, seconds

BAR = 40  # characters that stand for the device's memory
# What takes it, with a style and with a glyph: told apart also where there is no colour.
_PARTS = (
    ("weights", "weights_bytes", "bright_black", "█"),
    ("KV cache", "kv_bytes", "yellow", "▓"),
    ("experts", "cached_bytes", "cyan", "▒"),
    ("free", "free_bytes", "dim", "·"),
    ("reserve", "reserve_bytes", "bright_black", "░"),
)
_WHY = {
    "link": "waiting for experts over the link",
    "software": "attention, router, dispatch, shared",
    "experts": "computing the routed experts",
}


def show_forecast(record: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd predict --json` would hold."""
    console.print()
    console.print(Text.assemble("  ", (_title(record["model"]), "bold"), "   ",
                                (record["label"], "bold black on cyan")))  # fmt: skip
    for line in _facts(record):
        console.print(Padding(Text(line, "dim"), (0, 2), expand=False))
    for part in (_memory(record), _speed(record), _advice(record)):
        console.print(Padding(part, (1, 0, 0, 2), expand=False))
    console.print()
    for note in _footnotes(record):
        console.print(Padding(Text(note, "dim"), (0, 2), expand=False))
    console.print()


def _title(model: str) -> str:
    """Returns a model's id, of a config.json the folder that it lies in."""
    path = PurePath(model)
    return path.parent.name if path.name == "config.json" and path.parent.name else model


def _facts(record: Mapping[str, Any]) -> tuple[str, str]:
    layers, experts, top_k = record["shape"]
    total, active = (_parameters(record[key]) for key in ("total_params", "active_params"))
    return (
        f"{total} parameters, {active} active: {layers} layers x {experts} experts, top-{top_k}",
        f"{record['precision']} experts, {record['non_expert_precision']} attention, "
        f"{record['hardware']}, batch {record['batch']}",
    )


def _parameters(number: int) -> str:
    scale, unit = (1e9, "B") if number >= 1e9 else (1e6, "M")
    return f"{number / scale:.0f}{unit}" if number >= 100 * scale else f"{number / scale:.3g}{unit}"


def _memory(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    bar = Text()
    for (_, _, style, glyph), cells in zip(_PARTS, _cells(record), strict=True):
        bar.append(glyph * cells, style)
    whole = device_memory(record["vram_bytes"])
    table.add_row(Text("memory", "bold cyan"), Text.assemble(bar, "  ", whole))
    rows = Table.grid(padding=(0, 2))
    rows.add_column(width=11)
    rows.add_column(justify="right", width=8)
    rows.add_column(justify="right", width=7)
    for name, key, style, glyph in _PARTS:
        rows.add_row(Text.assemble((glyph, style), f" {name}"), nbytes(record[key]),
                     percent(record[key] / record["vram_bytes"]), _held(record, name))  # fmt: skip
    table.add_row("", rows)
    return table


def _held(record: Mapping[str, Any], part: str) -> str:
    if part != "experts":
        return ""
    return f"{count(record['slots_per_layer'])} of {count(record['shape'][1])} a layer"


def _cells(record: Mapping[str, Any]) -> list[int]:
    """Returns the bar's characters for each part: together all of them, what is left over first."""
    exact = [BAR * record[key] / record["vram_bytes"] for _, key, _, _ in _PARTS]
    cells = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: cells[i] - exact[i])
    for place in by_rest[: BAR - sum(cells)]:
        cells[place] += 1
    return cells


def _speed(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    rates = {
        "ttft": f"prompt of {count(record['prompt'])}, cold cache",
        "tpot": f"{_rate(record['tokens_per_s'])} tokens/s at {percent(record['hit_rate'])} hits",
    }
    for key, what in rates.items():
        band = record[f"{key}_band_s"]
        between = "" if band is None else f"{seconds(band[0])} to {seconds(band[1])}"
        table.add_row(Text(key.upper(), "bold cyan"), Text(seconds(record[f"{key}_s"]), "bold"),
                      between, Text(what, "dim"))  # fmt: skip
    share = record["tpot_parts_s"][record["bottleneck"]] / record["tpot_s"]
    table.add_row(Text("slow by", "bold cyan"), Text(percent(share), "bold"),
                  Text(record["bottleneck"]), Text(_WHY[record["bottleneck"]], "dim"))  # fmt: skip
    return table


def _rate(per_s: float) -> str:
    return count(round(per_s)) if per_s >= 1000 else f"{per_s:.3g}"


def _advice(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    knee, doubled = record["working_set_vram_bytes"], record["double_speed_vram_bytes"]
    lines = {
        "cache": f"{record['cycles']:.2f} x what a token touches",
        "working set": f"{nbytes(knee)} of device memory (twice a token's experts)"
        + (": held" if knee <= record["vram_bytes"] else ": not held"),
        "twice as fast": "no budget does it: all experts resident are not enough"
        if doubled is None
        else f"from {nbytes(doubled)} on",
        "speculation": _speculation(**record["speculation"]),
        "batching": _batching(**record["batching"]),
    }
    for name, line in lines.items():
        table.add_row(Text(name, "bold cyan"), line)
    return table


def _speculation(draft: int, break_even_acceptance: float | None) -> str:
    if break_even_acceptance is None:
        return f"{draft} drafts a pass never pay: they ask for too many others"
    return f"{draft} free drafts a pass pay from {percent(break_even_acceptance)} accepted on"


def _batching(batch: int, gain: float | None) -> str:
    if gain is None:
        return f"no room for the KV cache of {batch} sequences"
    return f"{batch} sequences together make {gain:.2f} x the tokens/s of one"


def _footnotes(record: Mapping[str, Any]) -> list[str]:
    notes = [*record["notes"], f"hit rate: {record['hit_rate_source']}"]
    for name, key in (("TTFT", "ttft_error"), ("TPOT", "tpot_error")):
        notes.append(f"{name} band: {_bounds(record[key])}")
    return notes


def _bounds(band: Mapping[str, Any] | None) -> str:
    if band is None:
        return "none is claimed, no error table comes with this model"
    runs = f"{band['runs']} runs{' with ' if band['scope'] else ''}{band['scope']}"
    unbiased = "" if band["center"] == 1 else f", its bias of x {1 / band['center']:.2f} taken off"
    return (
        f"95 % of {runs} in its own error table, against {band['against']} "
        f"(median error {percent(band['median_error'])}{unbiased})"
    )
