"""Page of `run.py`: what its counts say of the paper's claims."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.shared.recordings import Rows, markdown_table, where

LAYER_MODEL = "OLMoE-1B-7B-0924"  # the paper shows its layers; of these it measured this one only
LS = "least-stale R3"
CLEARLY = 1.05  # times: less than that is no difference
PREFETCHERS = {
    "oracle 0.9": "a predictor of recall 0.9",
    "previous": "what the token before used (`previous`)",
    "none": "no prefetch",
}

Row = dict[str, Any]
At = Callable[[str, str], Row]  # the row of a share and a policy, of one model


class Claim(NamedTuple):
    """A sentence of the paper that the counts can bear out or not."""

    text: str
    measure: Callable[[At], float]  # of one model, by its rows in the paper's setting
    holds: Callable[[float], bool]
    shown: str  # how the measure is written


CLAIMS = (
    Claim(
        f"Figure 4, 5 %: LS has fewer collisions than LRU (by {CLEARLY} times or more)",
        lambda at: _fewer(at, "5%", "lru"), lambda times: times >= CLEARLY, "{:.1f} x",
    ),
    Claim(
        "the same, 2.6 to 8.6 times fewer",
        lambda at: _fewer(at, "5%", "lru"), lambda times: times >= 2.6, "{:.1f} x",
    ),
    Claim(
        "Figure 4, 5 %: LS has 58 to 91 times fewer collisions than score-based",
        lambda at: _fewer(at, "5%", "score-based"), lambda times: times >= 58, "{:.1f} x",
    ),
    Claim(
        f"Figure 4, 5 %: LS misses less than LRU (by {CLEARLY} times or more)",
        lambda at: _more_misses(at, "5%"), lambda more: more <= 100 / CLEARLY - 100, "{:+.1f} %",
    ),
    Claim(
        "Figure 5, 1 %: LRU reaches 8 % collisions among the misses of some layer",
        lambda at: max(percent_by_layer(at("1%", "lru"))), lambda worst: worst >= 8, "{:.0f} %",
    ),
    Claim(
        "Figure 5, 1 %: LS stays near zero (under 2 %) in every layer",
        lambda at: max(percent_by_layer(at("1%", LS))), lambda worst: worst < 2, "{:.0f} %",
    ),
    Claim(
        "Figure 8, 1 %: LS has 10 to 34 times fewer collisions than LRU",
        lambda at: _fewer(at, "1%", "lru"), lambda times: times >= 10, "{:.1f} x",
    ),
    Claim(
        "1 %: LS hits 88 to 92 %",
        lambda at: 100 * at("1%", LS)["hit_rate"], lambda rate: 88 <= rate <= 92, "{:.1f} %",
    ),
    Claim(
        "but so does LRU, as the predictor's recall is 90 %",
        lambda at: 100 * at("1%", "lru")["hit_rate"], lambda rate: 88 <= rate <= 92, "{:.1f} %",
    ),
)  # fmt: skip


def page(rows: Rows) -> list[str]:
    """Returns what the counts say of the paper's claims, as lines of Markdown."""
    return [
        "# Collisions by eviction policy",
        "",
        f"SIMULATED {max(row['date'] for row in rows)} on recorded routing, "
        f"{max(row['passes'] for row in rows)} passes a model, by "
        "`python -m experiments.collisions.run`; meanings in `docs/semantics.md`. A collision is "
        "a miss on an expert that was evicted earlier in the same pass. LS is reading R3 of "
        "Least-Stale, which fits the paper's text and figures best. Not the paper's models but "
        "OLMoE, nor its prompts: a claim that fails here may hold there.",
        "",
        "## The finding",
        "",
        *_finding(rows),
        "",
        "## Reproduced or refuted",
        "",
        "In the paper's setting: int4 copies, capacity as a share of the bf16 bytes, a predictor "
        "of recall 0.9. At 25 % every expert fits, so nothing is left to compare.",
        "",
        *_verdicts(rows),
        "",
        "![misses and collisions with prefetch](collisions.png)",
        "",
        "## Least-Stale against LRU",
        "",
        "Times fewer collisions (change of all misses):",
        "",
        *_against_lru(rows),
        "",
        *_tables(rows),
        "",
        "## By layer",
        "",
        "![collisions by layer](collisions_by_layer.png)",
    ]


def percent_by_layer(row: Row) -> list[float]:
    """Returns the share of collisions among the misses of each layer, in percent."""
    pairs = zip(row["collisions_by_layer"], row["misses_by_layer"], strict=True)
    return [100 * collisions / max(misses, 1) for collisions, misses in pairs]


def _finding(rows: Rows) -> list[str]:
    """Returns in figures what LS wins over LRU at 5 %, and who misses least, by predictor."""
    lines = []
    for prefetch, named in PREFETCHERS.items():
        part = where(rows, prefetch=prefetch, copies="int4", share="5%")
        at = {model: of for model, of in _by_model(part).items() if _has_both(part, model)}
        if not at:
            continue
        times = _span([_fewer(of, "5%", "lru") for of in at.values()], "{:.1f}")
        share = _span(
            [100 * (of("5%", "lru")["collisions_per_miss"] or 0) for of in at.values()], "{:.0f}"
        )
        change = _span([_more_misses(of, "5%") for of in at.values()], "{:+.1f}")
        best = ", ".join(f"{_best(where(part, model=model))} on {model}" for model in at)
        lines.append(
            f"* With {named}, at 5 % and int4: collisions are {share} % of LRU's misses. LS has "
            f"{times} times fewer of them, and its misses change by {change} %. Fewest misses "
            f"without knowing the future: {best}."
        )
    return lines


def _best(rows: Rows) -> str:
    """Returns the policy with the fewest misses, those aside that know the future."""
    return min((r for r in rows if r["policy"] != "belady"), key=lambda r: r["misses"])["policy"]


def _has_both(rows: Rows, model: str) -> bool:
    return {"lru", LS} <= {row["policy"] for row in where(rows, model=model)}


def _verdicts(rows: Rows) -> list[str]:
    at = _by_model(where(rows, prefetch="oracle 0.9", copies="int4"))
    body = []
    for claim in CLAIMS:
        found = {model: claim.measure(of) for model, of in at.items()}
        shown = [_written(value, claim.shown) for value in found.values()]
        held = [model for model, value in found.items() if claim.holds(value)]
        body.append([claim.text, *shown, _verdict(held, list(found))])
    return markdown_table(["claim", *at, "verdict"], body, numbers=False)


def _verdict(held: Sequence[str], models: Sequence[str]) -> str:
    if len(held) == len(models):
        return "reproduced"
    return f"only on {', '.join(held)}" if held else "refuted"


def _against_lru(rows: Rows) -> list[str]:
    """Returns a line for each predictor, copy size and capacity."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    settings = dict.fromkeys((row["prefetch"], row["copies"], row["share"]) for row in rows)
    body = []
    for prefetch, copies, share in settings:
        part = where(rows, prefetch=prefetch, copies=copies, share=share)
        cells = [
            _duel(where(part, model=model), share) if _has_both(part, model) else ""
            for model in models
        ]
        cycles = [f"{row['cycles']:.1f}" for row in where(part, policy="lru")]
        body.append([f"{prefetch}, {copies}, {share}", " / ".join(cycles), *cells])
    return markdown_table(["predictor, copies, bytes", "C/Lk", *models], body)


def _duel(rows: Rows, share: str) -> str:
    (at,) = _by_model(rows).values()
    return f"{_written(_fewer(at, share, 'lru'), '{:.1f}')} ({_more_misses(at, share):+.1f} %)"


def _tables(rows: Rows) -> list[str]:
    """Returns all policies in three settings, each with its heading."""
    settings = (("oracle 0.9", "int4", "5%"), ("previous", "int4", "5%"), ("none", "bf16", "25%"))
    lines = []
    for prefetch, copies, share in settings:
        lines += [
            f"## All policies: {PREFETCHERS[prefetch]}, {copies}, {share[:-1]} %",
            "",
            *_by_policy(where(rows, prefetch=prefetch, copies=copies, share=share)),
            "",
        ]
    return [*lines, "![misses and collisions without prefetch](collisions_demand.png)"]


def _by_policy(rows: Rows) -> list[str]:
    models = list(dict.fromkeys(row["model"] for row in rows))
    body = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        cells = [where(rows, policy=policy, model=model) for model in models]
        body.append([policy, *(_cell(*cell) for cell in cells)])
    return markdown_table(["collisions among misses, % (hit rate, %)", *models], body)


def _cell(row: Row) -> str:
    return f"{100 * (row['collisions_per_miss'] or 0):.1f} ({100 * row['hit_rate']:.1f})"


def _by_model(rows: Rows) -> dict[str, At]:
    cells = {(row["model"], row["share"], row["policy"]): row for row in rows}
    models = dict.fromkeys(row["model"] for row in rows)
    return {model: lambda share, policy, of=model: cells[of, share, policy] for model in models}


def _fewer(at: At, share: str, other: str) -> float:
    """Returns how many times fewer collisions LS has; NaN where neither has any."""
    mine, others = at(share, LS)["collisions"], at(share, other)["collisions"]
    return others / mine if mine else math.inf if others else math.nan


def _more_misses(at: At, share: str) -> float:
    """Returns the change of misses from LRU to LS, in percent."""
    return 100 * (at(share, LS)["misses"] / max(at(share, "lru")["misses"], 1) - 1)


def _written(value: float, shown: str) -> str:
    if math.isnan(value):
        return "no collisions"
    return shown.format(value) if math.isfinite(value) else "none left"


def _span(values: Sequence[float], shown: str) -> str:
    low, high = shown.format(min(values)), shown.format(max(values))
    return low if low == high else f"{low} to {high}"
