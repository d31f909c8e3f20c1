"""The experiments run from a trace to table, picture and page; here on a trace of a few passes.

About 25 seconds on an idle core, nearly all of it to compile one replay for each policy.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.model_zoo import get_model
from specmd_jax.policies.miss import MISSES
from specmd_jax.policies.routing import ROUTINGS
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.traces import Provenance, Trace, write_trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

FOLDER = Path(__file__).parents[2] / "experiments"
PNG = b"\x89PNG\r\n\x1a\n"
PICTURES = {
    "collisions": ["collisions.png", "collisions_demand.png", "collisions_by_layer.png"],
    "miss_ratio_curves": ["miss_ratio_curves.png"],
}

PAGES = {
    "collisions": "collisions_page",
    "miss_ratio_curves": "miss_ratio_report",
    "quality": "quality_report",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    return import_module


@pytest.fixture(scope="module")
def trace() -> Trace:
    model = get_model("olmoe-1b-7b-0924")
    spec = SyntheticSpec(model.shape, requests=2, tokens=5, prompt_tokens=1)
    return replace(generate(spec, seed=1), provenance=Provenance(model=model.hf_id))


@pytest.fixture
def recorded(trace: Trace, tmp_path: Path) -> Path:
    path = tmp_path / "trace.safetensors"
    write_trace(trace, path)
    return path


def check_results(name: str, folder: Path) -> list[dict[str, Any]]:
    """Looks at what a run left in its folder, and returns the rows of its table."""
    page = (folder / f"{name}.md").read_text()
    assert "SIMULATED" in page
    for picture in PICTURES[name]:
        assert (folder / picture).read_bytes().startswith(PNG)
        assert f"]({picture})" in page
    assert len(list(folder.iterdir())) == len(PICTURES[name]) + 2  # nothing half-written is left
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_collisions(script, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = script("collisions")
    some = ("lru", "score-based", "least-stale R3")
    monkeypatch.setattr(module, "POLICIES", {name: module.POLICIES[name] for name in some})
    monkeypatch.setattr(module, "WITH_PREVIOUS", ("lru",))
    module.run_experiment((recorded,), passes=8, results=tmp_path / "results")
    rows = check_results("collisions", tmp_path / "results")
    assert {row["policy"] for row in rows} == set(some)
    assert {row["prefetch"] for row in rows} == {"none", "oracle 0.9", "previous"}
    for row in rows:
        assert row["passes"] == 8
        assert row["hits"] + row["misses"] == row["accesses"]
        assert sum(row["collisions_by_layer"]) == row["collisions"] <= row["misses"]
    in_vain = [row for row in rows if row["prefetch"] == "none" and row["cycles"] <= 15 / 16]
    assert in_vain and all(row["hits"] == 0 for row in in_vain if row["policy"] == "lru")


def test_miss_ratio_curves(script, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = script("miss_ratio_curves")
    monkeypatch.setattr(module, "POLICIES", ("lru", "belady"))
    monkeypatch.setattr(module, "CAPACITIES", 6)
    module.run_experiment((recorded,), results=tmp_path / "results")
    rows = check_results("miss_ratio_curves", tmp_path / "results")
    for row in rows:
        if row["slots"] == row["all_experts"]:
            assert row["misses"] == row["compulsory"]
    misses = {(row["scope"], row["policy"], row["slots"]): row["misses"] for row in rows}
    for (scope, policy, slots), missed in misses.items():
        assert policy != "lru" or missed >= misses[scope, "belady", slots]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_table_says(script, name: str):
    """Results are committed together: table and page, of one run."""
    report = script(PAGES[name])
    rows = script("recordings").read_rows(FOLDER / "results" / f"{name}.parquet")
    written = (FOLDER / "results" / f"{name}.md").read_text()
    assert written == "\n".join(report.page(rows)) + "\n"


@pytest.mark.parametrize("name", PICTURES)
def test_without_traces_or_results_one_line_says_so(script, name: str, tmp_path: Path):
    with pytest.raises(InputError, match="no trace at"):
        script(name).run_experiment((tmp_path / "absent",), results=tmp_path)
    with pytest.raises(InputError, match="run the experiment first"):
        script(name).draw(tmp_path)


def test_two_traces_of_one_model_are_refused(script, recorded: Path, tmp_path: Path):
    with pytest.raises(InputError, match="second trace of OLMoE-1B-7B-0924"):
        script("recordings").load([recorded, recorded], 8)


def test_a_stopped_run_goes_on_where_it_was(script, trace: Trace, tmp_path: Path):
    finish, computed = script("recordings").finish, []

    def part(name: str, stop: bool = False):
        def compute():
            if stop:
                raise KeyboardInterrupt
            computed.append(name)
            return [{"name": name}]

        return compute

    output, traces = tmp_path / "rows.parquet", {"model": trace}
    with pytest.raises(KeyboardInterrupt):
        finish({"one": part("one"), "two": part("two", stop=True)}, traces, output)
    assert not output.exists()
    finish({"one": part("one"), "two": part("two")}, traces, output)
    assert computed == ["one", "two"]
    assert pq.read_table(output).to_pylist() == [{"name": "one"}, {"name": "two"}]
    assert list(tmp_path.iterdir()) == [output]


def test_what_was_kept_of_another_trace_is_not_taken(script, trace: Trace):
    recordings = script("recordings")
    other = recordings.sample(trace, trace.num_passes - 1)
    assert recordings.digest({"model": trace}) != recordings.digest({"model": other})


def test_a_sample_takes_whole_requests_from_all_over_the_trace(script, trace: Trace):
    sampled = script("recordings").sample(trace, trace.num_passes - 1)
    assert sampled.num_passes == trace.num_passes - 1
    assert set(sampled.request.tolist()) == set(trace.request.tolist())


def priced(policy: str, capacity: str, rise: float) -> dict[str, Any]:
    """Returns a row as a measurement would make it."""
    counts = dict.fromkeys(("hits", "misses", "loads", "tokens", "capacity_slots"), 64)
    rises = {"nll_delta": rise, "nll_delta_low": rise - 0.01, "nll_delta_high": rise + 0.01}
    shares = dict.fromkeys(("kl", "same_top", "same_experts"), 0.5)
    told = {"date": "2026-01-01", "machine": "none", "commit": "none", "nll_exact": 3.0}
    row = {"policy": policy, "capacity": capacity, "bytes_loaded": 100 if policy == "fetch" else 40}
    return row | counts | rises | shares | told


def test_quality(script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = script("quality")
    np.save(tmp_path / "held-out-prose.npy", np.arange(100, dtype=np.uint16))
    np.save(tmp_path / "held-out-short.npy", np.arange(9, dtype=np.uint16))
    read, measured = [], []

    def rows(part, reading):
        measured.append(part.name)
        return [
            priced(part.policy, capacity, 0.1) | {"study": part.study}
            for capacity in part.capacities
        ]

    monkeypatch.setattr(module.Part, "rows", rows)
    monkeypatch.setattr(module, "open_model", lambda name: name)
    monkeypatch.setattr(module, "read_exactly", lambda model, texts: read.append(texts) or model)
    module.run_experiment(tmp_path, windows=3, length=20, results=tmp_path / "results")
    (texts,) = read
    assert texts.shape == (3, 21), "a source with too little text is left out"
    assert len(measured) == len(module.POLICIES) + len(module.FRONTIER)
    page = (tmp_path / "results" / "quality.md").read_text()
    assert (tmp_path / "results" / "quality.png").read_bytes().startswith(PNG)
    assert page.startswith("# What lossy policies cost") and "MEASURED 2026-01-01" in page
    for policy in module.POLICIES:
        assert page.count(f"| {policy} |") >= len(module.CAPACITIES)
    assert "+0.1000 [+0.0900, +0.1100]" in page and "60.0%" in page


def test_quality_covers_every_lossy_policy(script):
    chosen = script("quality").POLICIES.values()
    lossy = {name for name, policy in MISSES.items() if not policy.lossless}
    assert lossy <= {one.get("miss") for one in chosen}
    assert set(ROUTINGS) - {"standard"} == {one.get("routing") for one in chosen} - {None}


def test_without_held_out_text_one_line_says_so(script, tmp_path: Path):
    with pytest.raises(InputError, match="make it with bundled_corpus"):
        script("quality").run_experiment(tmp_path, results=tmp_path / "results")


def test_costs_come_to_the_times_of_the_run_that_they_are_told_from(script):
    costs = script("runtime_costs")
    spec = SyntheticSpec(ModelShape(4, 8, 2), tokens=9, prompt_tokens=5)
    prompt, layers = generate(spec, seed=1), 4
    used = [prompt.experts[prompt.step == step] for step in range(prompt.num_passes)]
    demanded = [sum(len(np.unique(one[:, layer])) for layer in range(layers)) for one in used]
    assert len(set(demanded[1:])) == 1
    per_pass = costs.PerPass(demanded[0], demanded[1])  # nothing stays in a cache that small
    run = costs.Own(costs.PerPass(0.09, 0.02), per_pass, costs.PerPass(layers, layers))
    common = costs.costing(layers, costs.PerPass(0.01, 0.004), run)
    priced = costs.costs_of(common, run, prompt.num_passes, np.zeros((layers, 1)))
    strategy = make_strategy("lru")
    config = SimConfig(strategy.params, np.asarray([1]), priced)
    (tally,) = run_batch(prompt, strategy, [config], np.ones((layers, 1), np.int32))
    assert tally.times is not None
    seconds = tally.times.ticks * costs.TICK_S
    assert tally.counts.loads.sum() == sum(demanded) and demanded[0] > demanded[1]
    np.testing.assert_allclose(seconds[0], 0.09, rtol=2e-3)
    np.testing.assert_allclose(seconds[1:], 0.02, rtol=2e-3)
