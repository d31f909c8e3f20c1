"""The experiments run from a trace to table, picture and page; here on a trace of a few passes."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from specmd_jax.errors import InputError
from specmd_jax.model_zoo import get_model
from specmd_jax.traces import Trace
from specmd_jax.traces.synthetic import SyntheticSpec, generate

FOLDER = Path(__file__).parent.parent / "experiments"
MODEL = "OLMoE-1B-7B"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    return import_module


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    shape = get_model("olmoe-1b-7b-0924").shape
    spec = SyntheticSpec(shape, requests=2, tokens=3, prompt_tokens=4)
    return {MODEL: generate(spec, seed=1)}


def check_results(module: ModuleType, name: str, pictures: list[str], folder: Path) -> None:
    """Draws from the table alone and looks at what is there afterwards."""
    module.draw(folder)
    for picture in pictures:
        assert (folder / picture).read_bytes().startswith(PNG)
    page = (folder / f"{name}.md").read_text()
    assert "SIMULATED" in page
    assert all(f"]({picture})" in page for picture in pictures)
    assert not list(folder.glob(".*"))  # nothing half-written is left


def test_collisions(script, traces: dict[str, Trace], tmp_path: Path):
    module = script("collisions")
    policies = ["lru", "lfu", "score-based", "least-stale R3", "belady"]
    rows = module.replay_all(traces, policies, with_previous=[])
    for row in rows:
        assert row["hits"] + row["misses"] == row["accesses"]
        assert sum(row["collisions_by_layer"]) == row["collisions"] <= row["misses"]
    script("recordings").write_table(rows, tmp_path / "collisions.parquet")
    assert pq.read_table(tmp_path / "collisions.parquet").num_rows == len(rows)
    pictures = ["collisions.png", "collisions_demand.png", "collisions_by_layer.png"]
    check_results(module, "collisions", pictures, tmp_path)


def test_miss_ratio_curves(script, traces: dict[str, Trace], tmp_path: Path):
    module = script("miss_ratio_curves")
    rows = module.replay_all(traces, ["lru", "belady"], capacities=6)
    everything = [row for row in rows if row["slots"] == row["all_experts"]]
    assert everything and all(row["misses"] == row["compulsory"] for row in everything)
    by_cell = {(row["scope"], row["policy"], row["slots"]): row["misses"] for row in rows}
    for (scope, policy, slots), misses in by_cell.items():
        assert policy != "lru" or misses >= by_cell[scope, "belady", slots]
    script("recordings").write_table(rows, tmp_path / "miss_ratio_curves.parquet")
    check_results(module, "miss_ratio_curves", ["miss_ratio_curves.png"], tmp_path)


@pytest.mark.parametrize("name", ["collisions", "miss_ratio_curves"])
def test_without_traces_or_results_one_line_says_so(script, name: str, tmp_path: Path):
    with pytest.raises(InputError, match="holds none of the traces"):
        script(name).run_experiment(traces=tmp_path, results=tmp_path)
    with pytest.raises(InputError, match="run the experiment first"):
        script(name).draw(tmp_path)


def test_a_sample_takes_whole_requests_from_all_over_the_trace(script, traces):
    (trace,) = traces.values()
    sampled = script("recordings").sample(trace, trace.num_passes - 1)
    assert sampled.num_passes == trace.num_passes - 1
    assert set(sampled.request.tolist()) == set(trace.request.tolist())
