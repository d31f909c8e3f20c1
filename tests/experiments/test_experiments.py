"""The experiments run from a trace to table, picture and page; here on a trace of a few passes.

About 25 seconds on an idle core, nearly all of it to compile one replay for each policy.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from experiments.collisions import run as collisions
from experiments.miss_ratio_curves import run as miss_ratio_curves
from specmd_jax.core.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"
PICTURES = {
    "collisions": ["collisions.png", "collisions_demand.png", "collisions_by_layer.png"],
    "miss_ratio_curves": ["miss_ratio_curves.png"],
}


def check_results(name: str, folder: Path) -> list[dict[str, Any]]:
    """Looks at what a run left in its folder, and returns the rows of its table."""
    page = (folder / f"{name}.md").read_text()
    assert "SIMULATED" in page
    for picture in PICTURES[name]:
        assert (folder / picture).read_bytes().startswith(PNG)
        assert f"]({picture})" in page
    assert len(list(folder.iterdir())) == len(PICTURES[name]) + 2  # nothing half-written is left
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_collisions(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    some = ("lru", "score-based", "least-stale R3")
    monkeypatch.setattr(collisions, "POLICIES", {name: collisions.POLICIES[name] for name in some})
    monkeypatch.setattr(collisions, "WITH_PREVIOUS", ("lru",))
    collisions.run_experiment((recorded,), passes=8, results=tmp_path / "results")
    rows = check_results("collisions", tmp_path / "results")
    assert {row["policy"] for row in rows} == set(some)
    assert {row["prefetch"] for row in rows} == {"none", "oracle 0.9", "previous"}
    for row in rows:
        assert row["passes"] == 8
        assert row["hits"] + row["misses"] == row["accesses"]
        assert sum(row["collisions_by_layer"]) == row["collisions"] <= row["misses"]
    in_vain = [row for row in rows if row["prefetch"] == "none" and row["cycles"] <= 15 / 16]
    assert in_vain and all(row["hits"] == 0 for row in in_vain if row["policy"] == "lru")


def test_miss_ratio_curves(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(miss_ratio_curves, "POLICIES", ("lru", "belady"))
    monkeypatch.setattr(miss_ratio_curves, "CAPACITIES", 6)
    miss_ratio_curves.run_experiment((recorded,), results=tmp_path / "results")
    rows = check_results("miss_ratio_curves", tmp_path / "results")
    for row in rows:
        if row["slots"] == row["all_experts"]:
            assert row["misses"] == row["compulsory"]
    misses = {(row["scope"], row["policy"], row["slots"]): row["misses"] for row in rows}
    for (scope, policy, slots), missed in misses.items():
        assert policy != "lru" or missed >= misses[scope, "belady", slots]


@pytest.mark.parametrize("name", PICTURES)
def test_without_traces_or_results_one_line_says_so(name: str, tmp_path: Path):
    run, report = (import_module(f"experiments.{name}.{part}") for part in ("run", "report"))
    with pytest.raises(InputError, match="no trace at"):
        run.run_experiment((tmp_path / "absent",), results=tmp_path)
    with pytest.raises(InputError, match="run the experiment first"):
        report.draw(tmp_path)
