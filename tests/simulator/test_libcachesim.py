"""At one expert an event, expert caching is classic caching: libCacheSim's counts are ours."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.traces import DECODE, Trace

EXPERTS = 12
CAPACITIES = np.array([1, 2, 3, 5, 8, 11])
NEVER = 1 << 62
# Our policy, theirs. Their LFU forgets an object's count when it leaves, so it is lfu-in-cache.
PAIRS = {
    "lru": "LRU",
    "fifo": "FIFO",
    "lfu-in-cache": "LFU",
    "sieve": "Sieve",
    "belady": "Belady",
}
# Hits of libCacheSim 0.3.5 at CAPACITIES on golden_trace(), for machines where it has no wheel.
GOLDEN = {
    "lru": [14, 18, 24, 40, 44, 49],
    "fifo": [14, 17, 27, 36, 43, 49],
    "lfu-in-cache": [14, 16, 21, 32, 47, 49],
    "sieve": [14, 18, 23, 34, 46, 49],
    "belady": [14, 27, 37, 45, 49, 49],
}


def golden_trace() -> list[int]:
    """Returns 60 experts, some far more popular than others, by a generator of our own."""
    state, experts = 12345, []
    for _ in range(60):
        state = (1103515245 * state + 12345) % (1 << 31)
        experts.append(min((state >> 16) % EXPERTS, (state >> 8) % EXPERTS))
    return experts


def ours(policy: str, experts: list[int]) -> list[int]:
    tokens = len(experts)
    trace = Trace(
        np.array(experts, np.int16).reshape(tokens, 1, 1),
        EXPERTS,
        step=np.arange(tokens, dtype=np.int32),
        request=np.zeros(tokens, np.int32),
        phase=np.full(tokens, DECODE, np.uint8),
    )
    strategy = make_strategy(policy)
    configs = [SimConfig(strategy.params, np.array([slots])) for slots in CAPACITIES]
    tallies = run_batch(trace, strategy, configs, np.ones((1, 1), np.int32))
    return [int(tally.counts.hits.sum()) for tally in tallies]


def theirs(kind: str, experts: list[int]) -> list[int]:
    libcachesim: Any = import_module("libcachesim")  # its annotations lag behind its classes
    later = {}
    next_use = [NEVER] * len(experts)
    for place in reversed(range(len(experts))):
        next_use[place] = later.get(experts[place], NEVER)
        later[experts[place]] = place
    hits = []
    for slots in CAPACITIES:
        cache = getattr(libcachesim, kind)(cache_size=int(slots), hashpower=12)
        requests = [
            libcachesim.Request(
                obj_id=expert + 1, obj_size=1, clock_time=clock, next_access_vtime=following
            )
            for clock, (expert, following) in enumerate(zip(experts, next_use, strict=True))
        ]
        hits.append(sum(cache.get(request) for request in requests))
    return hits


@pytest.mark.skipif(find_spec("libcachesim") is None, reason="libcachesim has no wheel here")
@pytest.mark.parametrize("policy", PAIRS)
def test_any_sequence_of_single_experts(policy: str):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=64))
    def check(experts: list[int]):
        assert ours(policy, experts) == theirs(PAIRS[policy], experts)

    check()


@pytest.mark.parametrize("policy", PAIRS)
def test_golden_counts(policy: str):
    assert ours(policy, golden_trace()) == GOLDEN[policy]
