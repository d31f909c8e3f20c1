"""`specmd inspect`: what a trace is like, and whether its misses are the policy's fault."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from specmd_jax.core.quantities import count, nbytes, percent, plural
from specmd_jax.study.capacity_split import OPTIMA, share_range

if TYPE_CHECKING:
    pass

BAR = 18  # characters that stand for all accesses
PARTS = (  # of a miss bar, each with its glyph, so that it reads without colours too
    ("unavoidable", "█", "bright_black"),
    ("admission", "▓", "yellow"),
    ("victim_choice", "▒", "red"),
)
COLUMNS = {
    "lru": "LRU",
    "lru per layer": "LRU a\nlayer",
    "lfu": "LFU",
    "belady": "Belady",
    "belady-bypass": "bypass",
}
TONES = {"working set": "cyan", "cold start": "cyan", "fits": "green"}  # others: yellow


def show_inspection(result: dict[str, Any], console: Console) -> None:
    """Prints an inspection on one screen: the facts, the curve with its split, the verdicts."""
    facts = result["facts"]
    title = Text.assemble(
        (facts["model"] or "unknown model", "bold"),
        (f"  {facts['layers']} layers x {facts['experts']} experts, top-{facts['top_k']}", "dim"),
    )
    console.print()
    console.print(Padding(title, (0, 2), expand=False))
    if facts["is_loop"]:
        console.print(Padding(_alarm(result["warnings"][0]), (0, 2)))
    console.print(Padding(_facts_table(facts), (1, 2), expand=False))
    console.print(Padding(_curve_table(result["curve"]), (0, 0, 0, 2), expand=False))
    console.print(Padding(_legend(), (0, 0, 1, 2), expand=False))
    console.print(Padding(_verdict_table(result["verdicts"]), (0, 2, 1, 2), expand=False))
    for note in _footnotes(result):
        console.print(Padding(Text(note, "dim"), (0, 2), expand=False))
    console.print()


def _alarm(warning: str) -> Panel:
    return Panel(Text(warning), title="REPETITION LOOP", style="bold red", box=box.HEAVY)


def _facts_table(facts: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value, remark in list_facts(facts):
        table.add_row(Text(name, "cyan"), Text(value), Text(remark, "dim"))
    return table


def list_facts(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the lines of the table of facts: name, value, remark."""
    total = facts["layers"] * facts["experts"]
    return [
        (
            "tokens",
            count(facts["tokens"]),
            f"{plural(facts['requests'], 'request')}, {plural(facts['passes'], 'pass')}, "
            f"{percent(facts['prefill_share'])} prefill",
        ),
        (
            "popularity",
            percent(facts["entropy_share"]),
            f"of log2 N entropy; the top 10 / 20 / 40 % of experts take "
            f"{_whole(facts['top_10_percent'])} / {_whole(facts['top_20_percent'])} / "
            f"{_whole(facts['top_40_percent'])} %",
        ),
        (
            "repetition",
            percent(facts["overlap"]),
            f"of a token's experts were the last token's; chance "
            f"{percent(facts['overlap_uniform'])}, popularity "
            f"{percent(facts['overlap_popularity'])}, topic {percent(facts['overlap_topic'])}",
        ),
        (
            "working set",
            percent(facts["pass_experts"] / total),
            f"of all {count(total)} experts in one pass, "
            f"{percent(facts['eight_pass_experts'] / total)} in eight",
        ),
        (
            "reuse",
            f"{count(facts['reuse_median'])} slots",
            f"let LRU hit half of all repeated uses, {count(facts['reuse_90_percent'])} let it hit "
            f"90 %; {percent(facts['first_use_share'])} are first uses",
        ),
        *_foreseen(facts),
        ("recorded", ", ".join(facts["records"]) or "ids only", _use_of(facts["records"])),
    ]


def _foreseen(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Tells how well the next layers were foreseen, where anything was."""
    recall = facts["foreseen_recall"]
    if not recall or recall[0] is None:
        return []
    further = [
        f"{percent(share)} {ahead} ahead"
        for ahead, share in enumerate(recall[1:], 2)
        if share is not None
    ]
    shares = {
        layer: share
        for layer, share in enumerate(facts["foreseen_recall_by_layer"][0])
        if share is not None
    }
    worst = min(shares, key=shares.__getitem__)
    remark = "; ".join(
        [
            "of a token's experts were in the top k foreseen one layer ahead",
            *further,
            f"worst: layer {worst}, {percent(shares[worst])}",
        ]
    )
    return [("foresight", percent(recall[0]), remark)]


def _use_of(records: list[str]) -> str:
    """Says which policies the trace cannot serve."""
    needs = {
        "weights": "gate-weight policies see 1/k",
        "logits": "no cache-aware routing",
        "predicted": "no next-gate prefetch",
    }
    return "; ".join(need for name, need in needs.items() if name not in records)


def _whole(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def _curve_table(curve: list[dict[str, Any]]) -> Table:
    table = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan", show_edge=False
    )
    names = [name for name in COLUMNS if name in curve[0]["hit_rate"]]
    for heading in ("size", "slots", "C/Lk", *(COLUMNS[name] for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("misses of best *", no_wrap=True)
    for point in curve:
        rates = [_rate(point, name) for name in names]
        table.add_row(
            f"{100 * point['share']:.0f} %", count(point["slots"]), f"{point['cycles']:.2f}",
            *rates, _bar(point["split"]["best"], point["accesses"]),
        )  # fmt: skip
    return table


def _rate(point: dict[str, Any], name: str) -> Text:
    """Writes a hit rate in percent; the best practical policy stands out, with a star."""
    style = "bold" if name == point["best"] else "dim" if name in OPTIMA else ""
    star = "" if name in OPTIMA else "*" if name == point["best"] else " "
    return Text(f"{100 * point['hit_rate'][name]:.1f}{star}", style)


def _bar(split: dict[str, int], accesses: int) -> Text:
    """Draws the misses as shares of all accesses, rounded so that the whole bar is right."""
    bar, done, drawn = Text(), 0, 0
    for part, glyph, style in PARTS:
        done += split[part]
        end = round(BAR * done / accesses)
        bar.append(glyph * (end - drawn), style)
        drawn = max(drawn, end)
    return bar.append("·" * (BAR - drawn), "bright_black")


def _legend() -> Text:
    legend = Text("hit rates in %, * best   ", "dim")
    for part, glyph, style in PARTS:
        legend.append(glyph, style).append(f" {part.replace('_', ' ')}  ", "dim")
    return legend.append("· hits", "dim")


def _verdict_table(stretches: list[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for stretch in stretches:
        shares = share_range((stretch["from_share"], stretch["to_share"]))
        name = stretch["verdict"]
        table.add_row(shares, Text(name, f"bold {TONES.get(name, 'yellow')}"), stretch["text"])
    return table


def _footnotes(result: dict[str, Any]) -> list[str]:
    facts, curve = result["facts"], result["curve"]
    notes = [
        f"{result['label']}, scope {result['scope']}, cold start, no prefetch; the optima know the "
        "future, so victim choice is an upper bound."
    ]
    in_vain = [point["cycles"] for point in curve if point["hit_rate"]["lru"] == 0]
    if in_vain and result["scope"] == "global":
        notes.append(
            f"LRU over one pool hits nothing up to C/Lk {max(in_vain):.2f}: by the time a layer's "
            "turn comes again the other layers have evicted what it used."
        )
    middle = next((p for p in curve if p["share"] >= 0.1 and p["lru_share_for_belady"]), None)
    if middle:
        notes.append(
            f"Perfect victims at {percent(middle['share'])} hit what LRU hits at "
            f"{percent(middle['lru_share_for_belady'])} of the experts."
        )
    if curve[-1]["bytes"] is not None:
        notes.append(f"{percent(curve[-1]['share'])} is {nbytes(curve[-1]['bytes'])} of experts.")
    shown = 1 if facts["is_loop"] else 0  # the first warning then stands in the alarm
    return notes + [f"{note[0].upper()}{note[1:]}." for note in result["warnings"][shown:]]
