"""`specmd bench simulator`: rates of this machine, every engine on the same trace."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.bench import peers, runtime, simulator
from specmd_jax.cli import bench
from tests.cli.conftest import Specmd

needs_libcachesim = pytest.mark.skipif(not find_spec("libcachesim"), reason="no libcachesim here")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short trace, one repetition, and this process stays on all its cores."""
    monkeypatch.setattr(simulator, "PASSES", 32)
    monkeypatch.setattr(simulator, "REPETITIONS", 1)
    monkeypatch.setattr(bench, "keep_to_one_core", lambda: 0)


def test_every_engine_has_a_row(specmd: Specmd) -> None:
    arguments = ("bench", "simulator", "--policies", "lru", "--configs", "1", "2")
    result = specmd(*arguments, "--json")
    assert result.code == 0
    assert (result.json["label"], result.json["core"]) == ("MEASURED", 0)
    rows = result.json["rows"]
    ours = [(row["policy"], row["configs"]) for row in rows if row["engine"] == "specmd"]
    assert ours == [("lru", 1), ("lru", 2)]
    assert {row["engine"] for row in rows} == {"specmd", *(one.name for one in peers.installed())}
    assert all(row["accesses_per_s"] > 0 and row["compile_s"] >= 0 for row in rows)
    progress = [line for line in result.err.splitlines() if "M/s" in line]
    assert len(progress) == len(rows), "one line each as it comes"
    for name in peers.missing():
        assert name in result.err, "what is not measured is said"


def test_the_table_says_that_it_is_measured(specmd: Specmd) -> None:
    result = specmd("bench", "simulator", "--policies", "lru", "--configs", "1")
    assert result.code == 0
    assert "MEASURED" in result.out and "M accesses/s" in result.out


@needs_libcachesim
def test_the_peer_replays_every_access() -> None:
    trace = simulator.bench_trace()
    records = peers.as_oracle_general(trace)
    assert len(records) == trace.experts.size == 32 * 16 * 8
    assert records["object"].min() >= 1 and records["object"].max() <= 16 * 64
    first = records["object"][:8].astype(int) - 1
    np.testing.assert_array_equal(first, trace.experts[0, 0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_one_core_means_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pinned: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: pinned.append(cores))
    monkeypatch.setenv("NPROC", "2")
    core = bench.keep_to_one_core()
    assert pinned == [{core}] and core in os.sched_getaffinity(0)
    assert os.environ["NPROC"] == "1"


def test_the_runtime_is_timed_beside_a_plain_jitted_model(
    specmd: Specmd, shallow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "OFFLOADED", ("25%",))
    monkeypatch.setattr(runtime, "DECISIONS", (("lru", "none"),))  # a prefetcher compiles for long
    monkeypatch.setattr(runtime.bench_runtime, "__defaults__", (1, 4, lambda text: None))
    result = specmd("bench", "runtime", "--json")
    assert result.code == 0 and result.json["label"] == "MEASURED"
    ways = {(row["way"], row["capacity"]) for row in result.json["rows"]}
    assert {("plain jit", "100%"), ("in slots", "100%"), ("lru", "25%")} <= ways
    assert result.json["all_resident_ratio"] > 0
    assert specmd("bench", "runtime", "--configs", "1").code == 2
