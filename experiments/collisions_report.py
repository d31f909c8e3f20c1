"""Pictures and page of `collisions.py`: its counts, and what they say of the paper."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from recordings import Rows, markdown_table, write_page

from specmd_jax.report.plots import (
    BLACK,
    GREY,
    PALE,
    POLICY_COLOURS,
    VERMILION,
    house_style,
    panels,
    save_picture,
    spread,
)

PAPER_MODEL = "OLMoE-1B-7B"
NEAR_ZERO = 2  # % of a layer's misses
CLEARLY = 1.05  # times: less than that is no difference
BY_LAYER = {
    "lru": POLICY_COLOURS["lru"],
    "score-based": POLICY_COLOURS["score-based"],
    "fld-cyclic": POLICY_COLOURS["fld-cyclic"],
    "least-stale R3": POLICY_COLOURS["least-stale"],
}


def draw_all(rows: Rows, results: Path) -> None:
    """Writes the three pictures and collisions.md into the folder `results`."""
    draw_misses(
        _where(rows, prefetch="oracle 0.9", copies="int4"),
        ("1%", "5%"),
        "Misses with a predictor of recall 0.9, int4 copies (at 25 % every expert fits)",
        results / "collisions.png",
    )
    draw_misses(
        _where(rows, prefetch="none", copies="bf16"),
        ("5%", "25%"),
        "Misses without prefetch, bf16 copies",
        results / "collisions_demand.png",
    )
    draw_by_layer(
        _where(rows, model=PAPER_MODEL, prefetch="oracle 0.9", copies="int4"),
        ("1%", "5%"),
        results / "collisions_by_layer.png",
    )
    write_page(page(rows), results / "collisions.md")


@house_style()
def draw_misses(rows: Rows, shares: Sequence[str], title: str, path: Path) -> None:
    """Draws misses and, within them, collisions by policy: the paper's Figures 4 and 8."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(len(shares), len(models), (9.6, 2.9 * len(shares)), sharex="row")
    figure.suptitle(f"{title} · SIMULATED", x=0.01, ha="left")
    for share, line in zip(shares, axes, strict=True):
        for model, axis in zip(models, line, strict=True):
            part = _where(rows, model=model, share=share)
            if part:
                _bars(axis, part)
                cycles = part[0]["cycles"]
                slots = f"{share[:-1]} %: {part[0]['slots']} slots, C/Lk {cycles:.1f}"
                axis.set_title(f"{model} · {slots}", size=8.5)
            if axis is not line[0]:
                axis.set_yticklabels([])
    for axis in axes[-1]:
        axis.set_xlabel("misses in 1000 accesses, of these collisions")
    save_picture(figure, path)


def _bars(axis: Axes, rows: Rows) -> None:
    places = range(len(rows))
    misses = [1000 * row["misses"] / row["accesses"] for row in rows]
    collisions = [1000 * row["collisions"] / row["accesses"] for row in rows]
    axis.barh(places, misses, color=PALE, height=0.72)
    axis.barh(places, collisions, color=VERMILION, height=0.72)
    for place, row, value in zip(places, rows, misses, strict=True):
        share = 100 * (row["collisions_per_miss"] or 0)
        axis.text(value, place, f" {share:.1f} %", va="center", size=6.5, color=VERMILION)
    axis.set_yticks(places, [row["policy"] for row in rows])
    for label in axis.get_yticklabels():
        label.set_color(BLACK if label.get_text().startswith("least-stale") else GREY)
    axis.invert_yaxis()
    axis.margins(x=0.14)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)


@house_style()
def draw_by_layer(rows: Rows, shares: Sequence[str], path: Path) -> None:
    """Draws collisions among the misses of each layer: the paper's Figure 5."""
    figure, (line,) = panels(1, len(shares), (9.6, 3.2), sharey=True)
    figure.suptitle(
        f"Where collisions happen: {PAPER_MODEL}, recall 0.9, int4 copies · SIMULATED",
        x=0.01,
        ha="left",
    )
    for share, axis in zip(shares, line, strict=True):
        part = [row for row in _where(rows, share=share) if row["policy"] in BY_LAYER]
        curves = {row["policy"]: _percent_by_layer(row) for row in part}
        for policy, curve in curves.items():
            axis.plot(curve, color=BY_LAYER[policy], marker="o", markersize=2.5)
        if curves:
            last = [curve[-1] for curve in curves.values()]
            step = 0.055 * max(1, *(max(curve) for curve in curves.values()))
            for policy, place in zip(curves, spread(last, step), strict=True):
                at = (len(curves[policy]) - 0.6, place)
                axis.annotate(policy, at, color=BY_LAYER[policy], va="center", size=7.5)
            axis.set_xlim(-0.5, len(next(iter(curves.values()))) + 3.4)
        axis.set_title(f"{share[:-1]} % of the bytes")
        axis.set_xticks(range(0, len(part[0]["misses_by_layer"]), 3))
        axis.set_xlabel("layer")
        axis.grid(axis="y", color=GREY, alpha=0.2)
    line[0].set_ylabel("collisions among misses, %")
    save_picture(figure, path)


def _percent_by_layer(row: dict) -> list[float]:
    pairs = zip(row["collisions_by_layer"], row["misses_by_layer"], strict=True)
    return [100 * collisions / max(misses, 1) for collisions, misses in pairs]


def page(rows: Rows) -> list[str]:
    """Returns what the counts say of the paper's claims, as lines of Markdown."""
    dates = sorted({row["date"] for row in rows})
    return [
        "# Collisions by eviction policy",
        "",
        f"SIMULATED {dates[-1]} on recorded routing by `python experiments/collisions.py`; "
        "meanings in `docs/semantics.md`. A collision is a miss on an expert that was evicted "
        "earlier in the same pass.",
        "",
        "![misses and collisions with prefetch](collisions.png)",
        "",
        *_claims(rows),
        "",
        "## Reproduced or refuted",
        "",
        *_verdicts(rows),
        "",
        "## Collisions among misses at 5 %, in %",
        "",
        "With a predictor of recall 0.9 and int4 copies, the paper's setting:",
        "",
        *_by_policy(rows, "oracle 0.9", "int4", "5%"),
        "",
        "![misses and collisions without prefetch](collisions_demand.png)",
        "",
        "Without prefetch, at 25 % with bf16 copies:",
        "",
        *_by_policy(rows, "none", "bf16", "25%"),
        "",
        "## By layer",
        "",
        "![collisions by layer](collisions_by_layer.png)",
    ]


def _claims(rows: Rows) -> list[str]:
    """Returns the paper's numbers beside ours, all with its setting: int4 copies and prefetch."""
    cells = _where(rows, prefetch="oracle 0.9", copies="int4", share="5%")
    by_model = {
        model: {row["policy"]: row for row in _where(cells, model=model)}
        for model in dict.fromkeys(row["model"] for row in cells)
    }
    header = ["claim, at 5 % (SpecMD 5.2)", "paper", *by_model]
    lines = [
        ("LS: collisions among misses, %", "1.6-1.9", lambda p: _collisions(p["least-stale R3"])),
        ("LRU: the same", "4.5-12.6", lambda p: _collisions(p["lru"])),
        ("SB: the same", "42.6-60.9", lambda p: _collisions(p["score-based"])),
        ("fewer collisions than LRU, times", "2.6-8.6", lambda p: _fewer(p, "lru")),
        ("fewer collisions than SB, times", "58-91", lambda p: _fewer(p, "score-based")),
        ("hit rate of LRU, %", "", lambda p: _hits(p["lru"])),
        ("hit rate of LS, %", "", lambda p: _hits(p["least-stale R3"])),
        ("hit rate of LFU, %", "", lambda p: _hits(p["lfu"])),
        ("hit rate of Belady, %", "", lambda p: _hits(p["belady"])),
    ]
    body = [
        [what, paper, *(value(policies) for policies in by_model.values())]
        for what, paper, value in lines
    ]
    return [
        "LS is reading R3 of Least-Stale, the one that fits the paper's text and figures best.",
        "",
        *markdown_table(header, body),
    ]


def _verdicts(rows: Rows) -> list[str]:
    """Returns in which models each claim holds, in the paper's setting; at 25 % nothing misses."""
    cells = _where(rows, prefetch="oracle 0.9", copies="int4")
    at = {(row["model"], row["share"], row["policy"]): row for row in cells}
    models = list(dict.fromkeys(row["model"] for row in cells))

    def less(what: str, share: str, other: str, times: float = CLEARLY) -> dict[str, bool]:
        pairs = {
            m: [at[m, share, name][what] for name in ("least-stale R3", other)] for m in models
        }
        return {model: times * mine <= others for model, (mine, others) in pairs.items()}

    def near_zero(share: str) -> dict[str, bool]:
        return {
            m: max(_percent_by_layer(at[m, share, "least-stale R3"])) < NEAR_ZERO for m in models
        }

    claims = [
        ("Figure 4, 5 %: LS collides less than LRU", less("collisions", "5%", "lru")),
        ("the same, 2.6 times less or more", less("collisions", "5%", "lru", 2.6)),
        ("Figure 4, 5 %: LS collides less than SB", less("collisions", "5%", "score-based")),
        ("Figure 4, 5 %: LS misses less than LRU", less("misses", "5%", "lru")),
        (f"Figure 5, 1 %: LS under {NEAR_ZERO} % in every layer", near_zero("1%")),
        ("Figure 8, 1 %: LS collides less than LRU", less("collisions", "1%", "lru")),
    ]
    body = [[claim, _verdict(holds)] for claim, holds in claims]
    return markdown_table([f"claim (less: {CLEARLY} times or more)", "on these traces"], body)


def _verdict(holds: dict[str, bool]) -> str:
    where = [model for model, held in holds.items() if held]
    if len(where) == len(holds):
        return "reproduced"
    return f"only on {', '.join(where)}" if where else "refuted"


def _collisions(row: dict) -> str:
    return f"{100 * (row['collisions_per_miss'] or 0):.1f}"


def _hits(row: dict) -> str:
    return f"{100 * row['hit_rate']:.1f}"


def _fewer(policies: dict[str, dict], other: str) -> str:
    mine = policies["least-stale R3"]["collisions"]
    return f"{policies[other]['collisions'] / mine:.1f}" if mine else "none left"


def _by_policy(rows: Rows, prefetch: str, copies: str, share: str) -> list[str]:
    part = _where(rows, prefetch=prefetch, copies=copies, share=share)
    models = list(dict.fromkeys(row["model"] for row in part))
    body = []
    for policy in dict.fromkeys(row["policy"] for row in part):
        cells = [_where(part, policy=policy, model=model) for model in models]
        shown = [f"{_collisions(cell[0])} ({_hits(cell[0])})" if cell else "" for cell in cells]
        body.append([policy, *shown])
    return markdown_table([f"policy (hit rate), {share}", *models], body)


def _where(rows: Rows, **wanted: str) -> Rows:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
