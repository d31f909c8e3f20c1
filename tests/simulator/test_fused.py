"""A replay in one kernel counts what the simulator counts, and is used where it can be."""

from typing import Any

import jax
import numpy as np
import pytest

from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.eviction.linear import LinearParams
from specmd_jax.policies.strategy import Strategy, StrategyParams, make_strategy
from specmd_jax.simulator import batch
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.simulator.fused import fits_on_chip
from specmd_jax.traces import DECODE, PREFILL, Trace

pytestmark = pytest.mark.matrix

LAYERS, EXPERTS, SIZE = 3, 6, 5
UNITS = np.full((LAYERS, 1), SIZE, np.int32)


def a_trace(tokens: int = 30, per_pass: int = 2) -> Trace:
    """Passes of two tokens, whose gates weigh what they choose."""
    rng = np.random.default_rng(0)
    experts = rng.random((tokens, LAYERS, EXPERTS)).argsort(axis=2)[:, :, :2]
    step = np.arange(tokens) // per_pass
    return Trace(
        experts.astype(np.int16),
        EXPERTS,
        weights=rng.dirichlet([1, 1], (tokens, LAYERS)).astype(np.float32),
        step=step.astype(np.int32),
        request=(step // 7).astype(np.int32),
        phase=np.where(step % 7 == 0, PREFILL, DECODE).astype(np.uint8),
    )


def configs_of(strategy: Strategy) -> list[SimConfig]:
    """Capacities, and weights where there are any, that differ; some bytes are left over."""
    kinds: list[StrategyParams] = [strategy.params]
    if isinstance(strategy.params.eviction, LinearParams):
        weights = LinearParams(0.4, 0.3, 0.2, 0.1)
        kinds.append(strategy.params._replace(eviction=weights))
    return [
        SimConfig(params, np.asarray([SIZE * copies + 1]))
        for params in kinds
        for copies in (1, 7, 18)
    ]


def check_same(some: list[Any], others: list[Any]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.times is None and other.times is None
        assert 0 < other.prefill.accesses.sum() < other.counts.accesses.sum()
        for part in ("counts", "prefill"):
            mine, theirs = getattr(one, part), getattr(other, part)
            for name, values in mine._asdict().items():
                np.testing.assert_array_equal(values, getattr(theirs, name), err_msg=name)


QUICK = ("lru", "linear")  # the others compile for long, and tests/kernels has them all


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, policy in EVICTIONS.items()
        if policy.fused
    ],
)
def test_counts_are_those_of_the_simulator(name: str, monkeypatch: pytest.MonkeyPatch):
    trace, strategy = a_trace(), make_strategy(name)
    configs = configs_of(strategy)
    expected = run_batch(trace, strategy, configs, UNITS)
    monkeypatch.setattr(batch, "_run_tile", None)  # nothing but the kernel counts
    check_same(run_batch(trace, strategy, configs, UNITS, implementation="interpret"), expected)


@pytest.mark.parametrize(
    "strategy",
    [
        make_strategy("sieve"),
        make_strategy("lru", scope="layer"),
        make_strategy("lru", admission="bypass"),
        make_strategy("lru", prefetch="previous"),
        make_strategy("lru", miss="fetch-lowest-bit"),
    ],
    ids=["another eviction", "a pool a layer", "bypass", "prefetch", "another miss"],
)
def test_what_the_kernel_does_not_know_stays_with_the_simulator(strategy: Strategy):
    assert not fits_on_chip(strategy, UNITS)
    pools = 1 if strategy.scope == "global" else LAYERS
    configs = [SimConfig(strategy.params, np.full(pools, 4 * SIZE))]
    expected = run_batch(a_trace(), strategy, configs, UNITS)
    check_same(run_batch(a_trace(), strategy, configs, UNITS, implementation="interpret"), expected)


def test_copies_of_unequal_size_stay_with_the_simulator():
    assert not fits_on_chip(make_strategy("lru"), np.asarray([[5], [5], [6]]))


def test_a_kernel_that_declines_is_no_error():
    """Here because there is no TPU: the simulator counts instead."""
    assert jax.default_backend() != "tpu"
    strategy = make_strategy("lru")
    configs = configs_of(strategy)
    expected = run_batch(a_trace(), strategy, configs, UNITS)

    def declines(*args: Any) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "count_on_chip", declines)
        got = run_batch(a_trace(), strategy, configs, UNITS, implementation="pallas_gpu")
    check_same(got, expected)
