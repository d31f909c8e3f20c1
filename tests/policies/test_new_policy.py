"""A policy is one short file and one line in the dict; everything else picks it up from there."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from specmd_jax.cli import main
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.report.policy_table import policy_table
from specmd_jax.traces import write_trace
from tests.helpers.laws import LAWS, Way, ways
from tests.helpers.laws import run as replay_way
from tests.policies.test_laws import some_trace

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
MOST_LINES = 40


@pytest.fixture
def mru(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adds the policy that CONTRIBUTING shows, in the two steps that it names."""
    (block,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
    file = tmp_path / "mru.py"
    file.write_text("\n".join(line.removeprefix("   ") for line in block.splitlines()))
    spec = importlib.util.spec_from_file_location("mru", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(EVICTIONS, "mru", module.policy)
    return file


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(some_trace(), tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


def simulate(trace: Path, eviction: str, capsys: pytest.CaptureFixture[str]) -> dict:
    arguments = ["--eviction", eviction, "--capacity", "6", "--no-regret", "--json"]
    assert main(["simulate", str(trace), *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_short(mru: Path):
    assert len(mru.read_text().splitlines()) <= MOST_LINES


def test_simulate_takes_it(mru: Path, trace: Path, capsys: pytest.CaptureFixture[str]):
    newest_first = simulate(trace, "mru", capsys)
    oldest_first = simulate(trace, "lru", capsys)
    assert newest_first["accesses"] == oldest_first["accesses"]
    assert newest_first["hits"] != oldest_first["hits"]


def test_list_and_the_readmes_table_show_it(mru: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["list", "policies", "--json"]) == 0
    (listed,) = [
        policy
        for policy in json.loads(capsys.readouterr().out)["policies"]
        if policy["name"] == "mru"
    ]
    assert listed["summary"].startswith("Most recently used") and "Chou" in listed["source"]
    assert "| eviction | `mru` | Most recently used" in policy_table()


def test_a_sweep_takes_it(mru: Path, trace: Path, tmp_path: Path):
    grid = ["--eviction", "lru,mru", "--capacity", "4,6", "-o", str(tmp_path / "r.parquet")]
    assert main(["sweep", str(trace), *grid, "--json"]) == 0
    table = pq.read_table(tmp_path / "r.parquet")
    assert sorted(table["eviction"].to_pylist()) == ["lru", "lru", "mru", "mru"]


def test_the_laws_hold_for_it(mru: Path):
    mine = [way for way in ways() if way.eviction == "mru"]
    assert {(way.scope, way.admission) for way in mine} == {
        (scope, admission) for scope in ("global", "layer") for admission in ("forced", "bypass")
    }
    check: Callable
    for check in LAWS[:2]:
        check(replay_way(Way("mru", "global", "forced"), some_trace()))
