"""A trace taken chunk by chunk is the trace taken whole, and a longer one takes no more memory."""

import tracemalloc

import numpy as np
import pytest

from specmd_jax.core.types import ModelShape
from specmd_jax.policies.base import READS
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator import chunks
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.events import dense_events, first_use
from specmd_jax.traces import Trace, batch_prefill
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SHAPE = ModelShape(num_layers=2, num_experts=6, top_k=2)
ALL_READS = frozenset(READS)
UNITS = np.ones((SHAPE.num_layers, 1), np.int32)
SMALL = 64  # passes of a chunk: the least there are


def a_trace(tokens: int = 150, requests: int = 2) -> Trace:
    spec = SyntheticSpec(SHAPE, requests=requests, tokens=tokens, lookahead=3, record_logits=True)
    return generate(spec, seed=1)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "PASSES_PER_CHUNK", SMALL)


@pytest.mark.parametrize("lookahead", [1, 3])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_are_parts_of_the_whole(lookahead: int):
    trace = batch_prefill(a_trace(), 5)
    whole = dense_events(trace, ALL_READS, lookahead)
    taken = EventChunks(trace, ALL_READS, lookahead)
    parts = list(taken)
    assert [start for start, _ in parts] == list(range(0, trace.num_passes, SMALL))
    assert len(parts) > 3
    for name in whole._fields:
        joined = np.concatenate([getattr(part, name) for _, part in parts])
        np.testing.assert_array_equal(joined[: trace.num_passes], getattr(whole, name), name)
        if name in ("valid", "routed", "prefill"):
            assert not joined[trace.num_passes :].any(), "padding asks for nothing"
    np.testing.assert_array_equal(taken.first_use, first_use(whole))


@pytest.mark.parametrize("strategy", [make_strategy("belady"), make_strategy("lru", "oracle")])
def test_counts_do_not_depend_on_the_chunks(strategy, monkeypatch: pytest.MonkeyPatch):
    trace = a_trace()
    configs = [SimConfig(strategy.params, np.asarray([slots])) for slots in (3, 7)]
    whole = run_batch(trace, strategy, configs, UNITS)
    monkeypatch.setattr(chunks, "PASSES_PER_CHUNK", SMALL)
    for one, other in zip(run_batch(trace, strategy, configs, UNITS), whole, strict=True):
        for name in one.counts._fields:
            mine, theirs = getattr(one.counts, name), getattr(other.counts, name)
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
            assert mine.dtype == np.int64


@pytest.mark.usefixtures("small_chunks")
def test_memory_does_not_grow_with_the_trace():
    def peak(tokens: int) -> int:
        taken = EventChunks(a_trace(tokens, requests=1), frozenset({"next_use"}))
        tracemalloc.start()
        for _, events in taken:
            assert events.routed.shape[0] == SMALL
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    short, long = 640, 6400
    whole = 3 * 4 * SHAPE.num_layers * SHAPE.num_experts  # bytes a pass, with its next uses
    assert peak(long) - peak(short) < (long - short) * whole / 8
