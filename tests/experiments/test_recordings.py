"""Traces in, tables out: what the experiments share."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments.shared.recordings import digest, finish, load, sample
from specmd_jax.core.errors import InputError
from specmd_jax.traces import Trace


def test_two_traces_of_one_model_are_refused(recorded: Path, tmp_path: Path):
    with pytest.raises(InputError, match="second trace of OLMoE-1B-7B-0924"):
        load([recorded, recorded], 8)


def test_a_stopped_run_goes_on_where_it_was(trace: Trace, tmp_path: Path):
    computed: list[str] = []

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


def test_what_was_kept_of_another_trace_is_not_taken(trace: Trace):
    other = sample(trace, trace.num_passes - 1)
    assert digest({"model": trace}) != digest({"model": other})


def test_a_sample_takes_whole_requests_from_all_over_the_trace(trace: Trace):
    sampled = sample(trace, trace.num_passes - 1)
    assert sampled.num_passes == trace.num_passes - 1
    assert set(sampled.request.tolist()) == set(trace.request.tolist())
