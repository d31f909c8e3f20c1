"""`specmd demo`: two layers of the bundled model, really offloaded; `.ci/run` runs it whole."""

from pathlib import Path

import pytest

from specmd_jax.policies.published import STRATEGIES
from specmd_jax.runtime.runs import demo
from tests.cli.conftest import Specmd

PAPER = demo.PAPER


@pytest.fixture(autouse=True)
def _fewer(shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the paper's strategies at one share: the others only take longer to compile."""
    monkeypatch.setattr(demo, "PAPER", ("specmd-1", "specmd-3"))
    monkeypatch.setattr(demo, "SHARES", (0.25,))


def test_it_runs_what_it_says_and_writes_a_page(specmd: Specmd, tmp_path: Path) -> None:
    result = specmd("demo", "--tokens", "4", "--json")
    assert result.code == 0
    whole, *rows = result.json["rows"]
    assert whole["misses"] == whole["compulsory"], "with every expert in a slot"
    names = [row["strategy"] for row in rows]
    assert {"specmd-1", "specmd-3"} < set(names) and set(PAPER) <= set(STRATEGIES)
    for row in rows:
        assert row["label"] == "MEASURED"
        assert row["ttft_s"] > 0 and row["tpot_s"] > 0
        assert row["accesses"] == row["hits"] + row["misses"]
        assert len(row["token_ids"]) == 4
        if row["lossless"]:
            assert row["same_text"] and row["text"] == whole["text"]
    page = tmp_path / "page.html"
    shown = specmd("demo", "--tokens", "4", "-o", str(page))
    assert shown.code == 0 and "MEASURED" in shown.out and whole["text"].strip() in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= 100
    text = page.read_text()
    assert "data:image/png;base64," in text and "specmd-3" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
