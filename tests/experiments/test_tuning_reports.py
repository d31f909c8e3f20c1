"""Pages and pictures of the tuning experiments, from made-up rows whose message is known."""

from pathlib import Path

import numpy as np
import pytest

from experiments.predict_error import tpot_vram
from experiments.prefetch_guard import plan
from experiments.prefetch_guard import report as guard_report
from experiments.prefetch_guard.run import link_of
from experiments.tuning import report as tuning_report
from specmd_jax.model_zoo import get_model


def tuning_rows(held_tuned: float) -> list[dict]:
    """One pair: a bowl over two knobs, its best known to the grid."""
    about = {"pair": "p", "trace": "m", "hardware": "h", "label": "SIMULATED"}
    about |= {"x_knob": "eviction.w_frequency", "y_knob": "eviction.w_nearness"}
    result = {
        "kind": "result", "x": 0.1, "y": 0.2, "default": 2.0, "tuned": 1.0, "grid_best": 1.0,
        "held_default": 2.0, "held_tuned": held_tuned, "held_grid": 1.0, "evaluations": 80,
        "grid_evaluations": 1600, "gradient": "surrogate", "agreement": 1.0,
        "es_agreement": 0.9, "surrogate_agreement": 0.8, "signed_share": 1.0,
        "es_agreement_clear": 1.0, "surrogate_agreement_clear": 0.95, "signed_share_clear": 0.5,
    }  # fmt: skip
    along = np.linspace(-1, 1, 5)
    grid = [
        {"kind": "grid", "x": x, "y": y, "tuned": 1 + x * x + y * y} for x in along for y in along
    ]
    path = [{"kind": "path 0", "x": x, "y": 0.5 * x, "tuned": 1 + x} for x in (0.9, 0.4, 0.1)]
    empty = dict.fromkeys(result)
    return [about | empty | row for row in (result, *grid, *path)]


@pytest.mark.parametrize(("held_tuned", "near"), [(1.005, "1 of 1 pairs"), (1.02, "0 of 1 pairs")])
def test_the_page_counts_the_pairs_within_a_percent(tmp_path: Path, held_tuned: float, near: str):
    tuning_report.write_all(tuning_rows(held_tuned), tmp_path)
    page = (tmp_path / "tuning.md").read_text()
    assert near in page and "SIMULATED" in page and "5.0% of its simulations" in page
    assert (tmp_path / "tuning.png").stat().st_size > 10_000


def guard_rows(tuned: float) -> list[dict]:
    times = {"none": 1.0, "unguarded": 1.1, "guarded": 1.0, "tuned": tuned}
    return [
        {"model": "m", "predictor": "oracle of precision 0.8", "rho": rho, "way": way,
         "margin": 0.1, "tpot_s": time, "prefetched": 9, "prefetch_precision": 0.6}
        for rho in plan.RHOS for way, time in times.items()
    ]  # fmt: skip


@pytest.mark.parametrize(("tuned", "verdict"), [(0.9, "never loses"), (1.05, "in 7 cases")])
def test_the_page_says_whether_a_tuned_guard_loses(tmp_path: Path, tuned: float, verdict: str):
    rows = guard_rows(tuned)
    guard_report.write_all(rows, tmp_path)
    page = (tmp_path / "prefetch_guard.md").read_text()
    assert verdict in page and "60 to 60 %" in page
    assert (tmp_path / "prefetch_guard.png").stat().st_size > 10_000
    assert guard_report.worst(rows, "unguarded") == pytest.approx(-0.1)


def test_links_are_chosen_by_rho():
    spec = get_model("olmoe-1b-7b-0924")
    slow, fast = (link_of(rho, spec) for rho in (4.0, 1.0))
    assert fast.h2d_bytes_per_s == pytest.approx(4 * slow.h2d_bytes_per_s)


def test_budgets_are_drawn_for_each_strategy(tmp_path: Path):
    rows = [
        {"model": "m", "strategy": strategy, "vram_bytes": gigabytes * 10**9, "tpot_s": 0.1 / place}
        for place, strategy in enumerate(tpot_vram.COLOURS, start=1)
        for gigabytes in (2, 4, 8)
    ]
    tpot_vram.draw_budgets(rows, tmp_path / "tpot_vram.png")
    assert (tmp_path / "tpot_vram.png").stat().st_size > 10_000
