"""A forecast as a record for JSON and as a page for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, nbytes, percent, seconds
from specmd_jax.predict.forecast import BATCH, DRAFT, Band, Forecast, Question, bottleneck

ESTIMATED = "ESTIMATED"
BAR = 40  # characters that stand for the device's memory
_PARTS = (
    ("weights", "weights_bytes", "bright_black", "█"),
    ("KV cache", "kv_bytes", "yellow", "▓"),
    ("experts", "cached_bytes", "cyan", "█"),
    ("reserve", "reserve_bytes", "bright_black", "░"),
)
_WHY = {
    "link": "waiting for experts to come over the link",
    "software": "attention, router, dispatch and shared weights",
    "experts": "computing the routed experts",
}


def describe_forecast(
    question: Question,
    found: Forecast,
    source: str,
    bands: tuple[Band | None, Band | None],
) -> dict[str, Any]:
    """Returns a forecast ready for JSON: sizes in bytes, times in seconds.

    Args:
      source: of the hit rate, in words.
      bands: of TTFT and of TPOT, where they are known.
    """
    spec, memory, total = question.spec, found.memory, float(found.decode.total)
    one = spec.expert_bytes(question.precision)
    slots = memory.slots_per_layer * spec.num_moe_layers
    return {
        "model": spec.hf_id,
        "shape": list(spec.shape),
        "hardware": question.hardware.name,
        "precision": question.precision,
        "prompt": question.prompt,
        "context": question.context,
        "batch": question.batch,
        "label": ESTIMATED,
        "vram_bytes": memory.total,
        "reserve_bytes": memory.reserve,
        "weights_bytes": memory.weights,
        "kv_bytes": memory.kv,
        "expert_cache_bytes": memory.experts,
        "cached_bytes": slots * one,
        "all_experts_bytes": memory.all_experts,
        "fits": memory.slots_per_layer == spec.num_experts,
        "capacity_slots": slots,
        "slots_per_layer": memory.slots_per_layer,
        "cycles": memory.slots_per_layer / spec.top_k,
        "hit_rate": found.hit_rate,
        "hit_rate_source": source,
        "ttft_s": found.ttft_s,
        "ttft_band_s": _within(bands[0], found.ttft_s),
        "tpot_s": total,
        "tpot_band_s": _within(bands[1], total),
        "tokens_per_s": question.batch / total,
        "ttft_error": None if bands[0] is None else bands[0]._asdict(),
        "tpot_error": None if bands[1] is None else bands[1]._asdict(),
        "bottleneck": bottleneck(found.decode),
        "tpot_parts_s": {
            name: float(getattr(found.decode, name)) for name in ("software", "experts", "link")
        },
        "loads_per_token": float(found.decode.loads),
        "working_set_bytes": spec.top_k * spec.num_moe_layers * one,
        "working_set_vram_bytes": found.working_set_bytes,
        "near_full_vram_bytes": found.near_full_bytes,
        "double_speed_vram_bytes": found.doubled_bytes,
        "speculation": {"draft": DRAFT, "break_even_acceptance": found.draft_acceptance},
        "batching": {"batch": BATCH, "gain": found.batch_gain},
    }


def _within(band: Band | None, value: float) -> list[float] | None:
    return None if band is None else [band.low * value, band.high * value]


def show_forecast(record: Mapping[str, Any], console: Console) -> None:
    """Prints what `specmd predict --json` would hold."""
    layers, experts, top_k = record["shape"]
    title = Text.assemble("  ", (record["model"], "bold"), "   ", (ESTIMATED, "bold black on cyan"))
    console.print()
    console.print(title)
    facts = (
        f"{layers} layers x {experts} experts, top-{top_k}, {record['precision']} experts, "
        f"{record['hardware']}, batch {record['batch']}"
    )
    console.print(Padding(Text(facts, "dim"), (0, 2, 1, 2), expand=False))
    console.print(Padding(_memory(record), (0, 0, 1, 2), expand=False))
    console.print(Padding(_speed(record), (0, 0, 1, 2), expand=False))
    console.print(Padding(_advice(record), (0, 0, 1, 2), expand=False))
    for note in _footnotes(record):
        console.print(Padding(Text(note, "dim"), (0, 2), expand=False))
    console.print()


def _memory(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    bar = Text()
    for _, key, style, glyph in _PARTS:
        bar.append(glyph * round(BAR * record[key] / record["vram_bytes"]), style)
    table.add_row(Text("memory", "bold cyan"), bar, nbytes(record["vram_bytes"]))
    for name, key, style, glyph in _PARTS:
        share = record[key] / record["vram_bytes"]
        table.add_row("", Text.assemble((glyph, style), f" {name}"), nbytes(record[key]),
                      percent(share))  # fmt: skip
    return table


def _speed(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, key in (("TTFT", "ttft"), ("TPOT", "tpot")):
        band = record[f"{key}_band_s"]
        between = "" if band is None else f"{seconds(band[0])} to {seconds(band[1])}"
        what = f"prompt of {count(record['prompt'])}, cold cache" if key == "ttft" else ""
        if key == "tpot":
            what = f"{record['tokens_per_s']:.3g} tokens/s at {percent(record['hit_rate'])} hits"
        table.add_row(Text(name, "bold cyan"), Text(seconds(record[f"{key}_s"]), "bold"),
                      between, Text(what, "dim"))  # fmt: skip
    share = record["tpot_parts_s"][record["bottleneck"]] / record["tpot_s"]
    table.add_row(Text("slow by", "bold cyan"), Text(percent(share), "bold"),
                  Text(record["bottleneck"]), Text(_WHY[record["bottleneck"]], "dim"))  # fmt: skip
    return table


def _advice(record: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    held = record["slots_per_layer"]
    table.add_row(
        Text("cache", "bold cyan"),
        f"{count(held)} of {count(record['shape'][1])} experts a layer, "
        f"{record['cycles']:.2f} x what a token touches",
    )
    knee = record["working_set_vram_bytes"]
    table.add_row(
        Text("working set", "bold cyan"),
        f"needs {nbytes(knee)} of device memory (twice a token's experts)"
        + (": held" if knee <= record["vram_bytes"] else ": not held"),
    )
    doubled = record["double_speed_vram_bytes"]
    table.add_row(
        Text("twice as fast", "bold cyan"),
        "no budget does it: all experts resident are not enough"
        if doubled is None
        else f"from {nbytes(doubled)} on",
    )
    table.add_row(Text("speculation", "bold cyan"), _speculation(**record["speculation"]))
    table.add_row(Text("batching", "bold cyan"), _batching(**record["batching"]))
    return table


def _speculation(draft: int, break_even_acceptance: float | None) -> str:
    if break_even_acceptance is None:
        return f"{draft} drafts a pass never pay: they ask for too many other experts"
    return f"{draft} free drafts a pass pay from {percent(break_even_acceptance)} accepted on"


def _batching(batch: int, gain: float | None) -> str:
    if gain is None:
        return f"no room for the KV cache of {batch} sequences"
    return f"{batch} sequences together make {gain:.2f} x the tokens/s of one"


def _footnotes(record: Mapping[str, Any]) -> list[str]:
    notes = [f"hit rate: {record['hit_rate_source']}"]
    for name, key in (("TTFT", "ttft_error"), ("TPOT", "tpot_error")):
        band = record[key]
        notes.append(
            f"{name} band: none is claimed, no error table comes with this model"
            if band is None
            else f"{name} band: 95 % of {band['runs']} runs of its own error table, against "
            f"{band['against']} (median error {percent(band['median_error'])}, 95 % of them below "
            f"{percent(band['p95_error'])})"
        )
    return notes
