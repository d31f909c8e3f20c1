"""`specmd inspect`: the same answer as JSON and on paper, of a trace or a part of it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Specmd


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_json_is_one_object(specmd: Specmd, folder: Path) -> None:
    result = specmd("inspect", folder / "full.st", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["trace"] == str(folder / "full.st")
    assert result.json["label"] == "SIMULATED"
    facts = result.json["facts"]
    assert (facts["layers"], facts["experts"], facts["top_k"], facts["tokens"]) == (4, 8, 2, 40)
    for point in result.json["curve"]:
        assert point["accesses"] == 40 * 4 * 2
        rates = point["hit_rate"]
        assert rates["belady-bypass"] >= rates["belady"] >= rates["lru"] >= 0


def test_the_paper_says_whose_fault_it_is(specmd: Specmd, folder: Path) -> None:
    result = specmd("inspect", folder / "full.st")
    assert (result.code, result.err) == (0, "")
    assert "4 layers x 8 experts, top-2" in result.out
    assert "SIMULATED" in result.out
    assert max(len(line) for line in result.out.splitlines()) <= 80


def test_a_part_is_inspected_alone(specmd: Specmd, folder: Path) -> None:
    flags = ("--requests", "1:2", "--passes", "0:10", "--json")
    facts = specmd("inspect", folder / "full.st", *flags).json["facts"]
    assert (facts["tokens"], facts["requests"]) == (10, 1)
