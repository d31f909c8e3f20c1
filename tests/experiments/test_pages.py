"""The committed pages say what the committed tables hold, worked out here once more.

A page that is only compared with what its own code makes of the table says the same wrong thing
twice.
"""

import re
from importlib import import_module
from typing import Any

import pytest

from experiments.shared.recordings import RESULTS, read_rows

PAGES = ("collisions.page", "miss_ratio_curves.report", "prefetch_guard.report", "quality.report")
Rows = list[dict[str, Any]]


def table_under(page: str, heading: str) -> dict[tuple[str, ...], list[str]]:
    """Returns the first table after `heading`: its lines by their cells that are words."""
    after = page[page.index(heading) :].splitlines()
    start = next(at for at, line in enumerate(after) if line.startswith("| ---"))
    lines = {}
    for line in after[start + 1 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        lines[tuple(cells)] = cells
    assert lines
    return lines


def read(name: str) -> tuple[str, Rows]:
    return (RESULTS / f"{name}.md").read_text("utf-8"), read_rows(RESULTS / f"{name}.parquet")


def check_quality(page: str, rows: Rows) -> int:
    """Counts, bytes and distances of every policy."""
    policies = [row for row in rows if row["study"] == "policies"]
    seen = 0
    for capacity in {row["capacity"] for row in policies}:
        lines = table_under(page, f"## {capacity} of the experts")
        shown = {cells[0]: cells[1:] for cells in lines.values()}
        of = {row["policy"]: row for row in policies if row["capacity"] == capacity}
        for policy, row in of.items():
            saved = 100 * (1 - row["bytes_loaded"] / of["fetch"]["bytes_loaded"])
            hits, misses, loads, bytes_saved, _, kl, top, _ = shown[policy]
            assert [int(n.replace(",", "")) for n in (hits, misses, loads)] == [
                row["hits"], row["misses"], row["loads"]]  # fmt: skip
            assert row["hits"] + row["misses"] == row["accesses"]
            assert float(bytes_saved.rstrip("%")) == pytest.approx(saved, abs=0.051)
            assert float(kl) == pytest.approx(row["kl"], abs=5.1e-5)
            assert float(top.rstrip("%")) == pytest.approx(100 * row["same_top"], abs=0.051)
            seen += 1
    return seen


def check_prefetch_guard(page: str, rows: Rows) -> int:
    """The time that each way saves of a token's, beside no prefetch."""
    time = {(r["model"], r["predictor"], f"{r['rho']:g}", r["way"]): r["tpot_s"] for r in rows}
    lines = list(table_under(page, "| model | predictor | rho |").values())
    for model, predictor, rho, *figures in lines:
        without = time[model, predictor, rho, "none"]
        for way, figure in zip(("unguarded", "guarded", "tuned"), figures, strict=False):
            saved = 100 * (without - time[model, predictor, rho, way]) / without
            assert float(figure.rstrip("% ")) == pytest.approx(saved, abs=0.0051)
    return len(lines)


def check_miss_ratio_curves(page: str, rows: Rows) -> int:
    """In how many places a policy misses less and more than LRU does."""
    places = {(r["model"], r["scope"], r["slots"], r["policy"]): r for r in rows}
    lines = list(table_under(page, "## The finding").values())
    for policy, *cells in lines:
        sides = [(scope, above) for scope in ("global", "layer") for above in (False, True)]
        for (scope, above), cell in zip(sides, cells, strict=True):
            pairs = [
                (row["misses"], places[model, pool, slots, "lru"]["misses"])
                for (model, pool, slots, name), row in places.items()
                if (name, pool) == (policy, scope) and (slots >= row["pass_slots"]) == above
            ]
            less, more = (sum(a < b for a, b in pairs), sum(a > b for a, b in pairs))
            assert cell.startswith(f"{less} less, {more} more of {len(pairs)}:")
    return len(lines)


def check_collisions(page: str, rows: Rows) -> int:
    """How many times fewer collisions Least-Stale has than LRU at 5 %, model by model."""
    claim = "Figure 4, 5 %: LS has fewer collisions than LRU"
    (line,) = (text for text in page.splitlines() if text.startswith(f"| {claim}"))
    models = list(dict.fromkeys(row["model"] for row in rows))
    found = {
        (row["model"], row["policy"]): row["collisions"]
        for row in rows
        if (row["share"], row["prefetch"], row["copies"]) == ("5%", "oracle 0.9", "int4")
    }
    ratios = [float(number) for number in re.findall(r"\| ([\d.]+) x", line)]
    wanted = [found[model, "lru"] / found[model, "least-stale R3"] for model in models]
    assert ratios == pytest.approx(wanted, abs=0.051) and len(ratios) == len(models)
    return len(ratios)


CHECKS = {
    "quality": check_quality,
    "prefetch_guard": check_prefetch_guard,
    "miss_ratio_curves": check_miss_ratio_curves,
    "collisions": check_collisions,
}


@pytest.mark.parametrize("module", PAGES)
def test_the_page_is_what_the_table_says(module: str) -> None:
    """Of one run, and by arithmetic that is not the page's own."""
    name = module.split(".")[0]
    page, rows = read(name)
    assert CHECKS[name](page, rows) > 2
    assert page == "\n".join(import_module(f"experiments.{module}").page(rows)) + "\n"


MISTAKES = {
    "quality": ("hits", "misses"),
    "prefetch_guard": ("tpot_s", "hit_rate"),
    "miss_ratio_curves": ("misses", "compulsory"),
    "collisions": ("collisions", "misses"),
}


@pytest.mark.parametrize("module", PAGES)
def test_a_page_that_reads_another_column_is_found_out(module: str) -> None:
    """A page written anew by code with a slip in it, as a table of other columns stands for."""
    name = module.split(".")[0]
    _, rows = read(name)
    right, wrong = MISTAKES[name]
    slipped = [row | {right: row[wrong]} for row in rows]
    page = "\n".join(import_module(f"experiments.{module}").page(slipped)) + "\n"
    with pytest.raises(AssertionError):
        CHECKS[name](page, rows)
