"""How many accesses a second the simulator serves, beside the peers that are installed.

An access is one expert demanded by one configuration. Everything runs in this process on one core,
one engine after the other, on the same trace; of several repetitions the fastest counts. Seconds
are the core's own (CPU time): on an idle machine those of the clock, on a busy one not inflated by
the work of others, though others still crowd the caches.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from specmd_jax.bench import peers
from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import get_policy, make_strategy
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.traces import Trace, slice_passes
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

OLMOE = ModelShape(16, 64, 8)
POLICIES = ("lru", "lfu", "fld", "least-stale", "score-based")
CONFIGS = (1, 16, 256, 4096)
MOST_CONFIGS = 1 << 16
PASSES = 512  # of the trace: one chunk
ACCESSES_A_RUN = 16_000_000  # a run of many configurations replays fewer passes of it
REPETITIONS = 3


class Row(NamedTuple):
    """One engine on one workload."""

    engine: str
    policy: str
    configs: int
    accesses_per_s: float
    compile_s: float  # tracing and compiling; 0 where nothing is compiled


def bench_trace() -> Trace:
    """Returns the trace of the benchmark: OLMoE's shape, with its token-to-token overlap."""
    spec = SyntheticSpec(OLMOE, tokens=PASSES, record_weights=True, record_logits=True)
    return generate(spec, seed=0)


def bench_simulator(
    policies: Sequence[str] = POLICIES,
    configs: Sequence[int] = CONFIGS,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Measures every engine and returns the rows; `on_row` sees each as it comes.

    Raises:
      InputError: a policy is unknown, or a number of configurations is out of range.
    """
    for policy in policies:
        get_policy("eviction", policy)
    for count in configs:
        if not 1 <= count <= MOST_CONFIGS:
            raise InputError(f"{count} configurations: give 1 to {MOST_CONFIGS} to batch")
    rows = []
    for row in _rows(policies, configs):
        on_row(row)
        rows.append(row)
    return rows


def _rows(policies: Sequence[str], configs: Sequence[int]) -> Iterator[Row]:
    trace = bench_trace()
    for policy in policies:
        for count in configs:
            yield measure(trace, policy, count)
    for engine in peers.installed():
        for policy, replay in engine.replays(trace):
            seconds = _fastest(replay)
            yield Row(engine.name, policy, 1, _accesses(trace) / seconds, 0.0)


def measure(trace: Trace, policy: str, num_configs: int) -> Row:
    """Measures the simulator at capacities spread over what is worth sweeping.

    The first call compiles; compile_s is what it takes beyond a call of the same size.
    """
    strategy = make_strategy(policy)
    slots = OLMOE.num_layers * OLMOE.num_experts
    capacities = np.linspace(slots // 64, slots // 2, num_configs).astype(np.int32)
    configs = [SimConfig(strategy.params, np.asarray([capacity])) for capacity in capacities]
    units = np.ones((OLMOE.num_layers, 1), np.int32)
    passes = ACCESSES_A_RUN // (num_configs * OLMOE.num_layers * OLMOE.top_k)
    part = slice_passes(trace, 0, max(32, min(passes, trace.num_passes)))

    def replay() -> None:
        run_batch(part, strategy, configs, units)

    first = _seconds(replay)
    fastest = _fastest(replay)
    rate = num_configs * _accesses(part) / fastest
    return Row("specmd", policy, num_configs, rate, max(first - fastest, 0.0))


def _accesses(trace: Trace) -> int:
    return int((trace.experts >= 0).sum())


def _fastest(work: Callable[[], object]) -> float:
    return min(_seconds(work) for _ in range(REPETITIONS))


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
