"""The quality experiment: what it measures, and the page of made-up measurements."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.quality import plan, run
from specmd_jax.core.errors import InputError
from specmd_jax.policies.miss import MISSES
from specmd_jax.policies.routing import ROUTINGS

PNG = b"\x89PNG\r\n\x1a\n"


def priced(policy: str, capacity: str, rise: float) -> dict[str, Any]:
    """Returns a row as a measurement would make it."""
    counts = dict.fromkeys(("hits", "misses", "loads", "tokens", "capacity_slots"), 64)
    rises = {"nll_delta": rise, "nll_delta_low": rise - 0.01, "nll_delta_high": rise + 0.01}
    shares = dict.fromkeys(("kl", "same_top", "same_experts"), 0.5)
    told = {"date": "2026-01-01", "machine": "none", "commit": "none", "nll_exact": 3.0}
    row = {"policy": policy, "capacity": capacity, "bytes_loaded": 100 if policy == "fetch" else 40}
    return row | counts | rises | shares | told


def test_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.save(tmp_path / "held-out-prose.npy", np.arange(100, dtype=np.uint16))
    np.save(tmp_path / "held-out-short.npy", np.arange(9, dtype=np.uint16))
    read, measured = [], []

    def rows(part, reading):
        measured.append(part.name)
        return [
            priced(part.policy, capacity, 0.1) | {"study": part.study}
            for capacity in part.capacities
        ]

    monkeypatch.setattr(run.Part, "rows", rows)
    monkeypatch.setattr(run, "open_model", lambda name: name)
    monkeypatch.setattr(run, "read_exactly", lambda model, texts: read.append(texts) or model)
    run.run_experiment(tmp_path, windows=3, length=20, results=tmp_path / "results")
    (texts,) = read
    assert texts.shape == (3, 21), "a source with too little text is left out"
    assert len(measured) == len(plan.POLICIES) + len(plan.FRONTIER)
    page = (tmp_path / "results" / "quality.md").read_text()
    assert (tmp_path / "results" / "quality.png").read_bytes().startswith(PNG)
    assert page.startswith("# What lossy policies cost") and "MEASURED 2026-01-01" in page
    for policy in plan.POLICIES:
        assert page.count(f"| {policy} |") >= len(plan.CAPACITIES)
    assert "+0.1000 [+0.0900, +0.1100]" in page and "60.0%" in page


def test_quality_covers_every_lossy_policy():
    chosen = plan.POLICIES.values()
    lossy = {name for name, policy in MISSES.items() if not policy.lossless}
    assert lossy <= {one.get("miss") for one in chosen}
    assert set(ROUTINGS) - {"standard"} == {one.get("routing") for one in chosen} - {None}


def test_without_held_out_text_one_line_says_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"make it with experiments\.bundled_model\.corpus"):
        run.run_experiment(tmp_path, results=tmp_path / "results")
