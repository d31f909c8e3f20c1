"""`specmd demo`: the paper's comparison on a trace that it draws itself; 15 s of compiling."""

import numpy as np
import pytest

from specmd_jax.cli import demo
from specmd_jax.named import STRATEGIES
from specmd_jax.traces.analysis import foreseen_recall, summarise

from .conftest import Specmd

SHORT = ("demo", "--tokens", "2")
PAPER = demo.PAPER


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the paper's strategies: the others only take longer to compile."""
    monkeypatch.setattr(demo, "PAPER", ("specmd-1", "specmd-4"))


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    """The rows of the first test, for the others."""
    return {}


def test_json_and_table_show_the_same(specmd: Specmd, rows: dict[str, list[dict]]) -> None:
    result = specmd(*SHORT, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["synthetic"] is True and result.json["seed"] == 0
    rows["demo"] = result.json["rows"]
    shown = specmd(*SHORT)
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines()]
    for row in rows["demo"]:
        name = row["strategy"].split()
        rates = [line[len(name)] for line in lines if line[: len(name)] == name]
        assert f"{100 * row['hit_rate']:.1f}" in rates
    assert "SYNTHETIC" in shown.out and "SIMULATED" in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= 80


def test_it_compares_what_the_paper_compares(rows: dict[str, list[dict]]) -> None:
    names = [row["strategy"] for row in rows["demo"]]
    assert set(demo.PAPER) <= set(names)
    assert len(rows["demo"]) == len(demo.CAPACITIES) * (len(demo.PAPER) + 2)
    for row in rows["demo"]:
        assert row["label"] == "SIMULATED" and row["hardware"] == demo.MACHINE
        assert row["ttft_s"] > 0 and row["tpot_s"] > 0
        assert row["accesses"] == row["hits"] + row["misses"]


@pytest.mark.slow
def test_all_five_of_the_paper_run(specmd: Specmd, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PAPER) <= set(STRATEGIES) and len(PAPER) == 5
    monkeypatch.setattr(demo, "PAPER", PAPER)
    result = specmd(*SHORT, "--json")
    assert len(result.json["rows"]) == len(demo.CAPACITIES) * 7


def test_the_scale_has_two_ends(rows: dict[str, list[dict]]) -> None:
    for capacity in demo.CAPACITIES:
        misses = {r["strategy"]: r["misses"] for r in rows["demo"] if r["capacity"] == capacity}
        assert misses["belady"] <= misses["per-layer lru"]


def test_the_trace_is_like_olmoe_and_its_seed_decides_it() -> None:
    one, same, other = (demo.synthetic_trace(64, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.experts, same.experts)
    assert not np.array_equal(one.experts, other.experts)
    assert tuple(one.shape) == (16, 64, 8)
    assert 0.25 < summarise(one).overlap < 0.45, "OLMoE's sampled decodes: 0.3 to 0.4"
    assert 0.75 < float(foreseen_recall(one)[0]) < 0.85, "four of five foreseen"
