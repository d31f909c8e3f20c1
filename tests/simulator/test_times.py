"""Simulated times hold for the largest models: exact, and never below what physics allows.

Two ways lead to the time to first token and the time of a token, which agree to the tick: the
simulator, and the oracle in Python's integers, which have no width.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specmd_jax.core.arrays import joined, two_word_total
from specmd_jax.core.errors import InputError
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.hardware.capacity import copies_of
from specmd_jax.hardware.profiles import HARDWARE, get_hardware
from specmd_jax.model_zoo import ModelSpec, get_model, known_models
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.pricing import PassSizes, Price, price_passes
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import begin
from specmd_jax.simulator.timeline import Costs
from tests import oracle

DECODED = 2  # passes behind that of the prompts
BATCHES, PREFILLS = st.integers(1, 64), st.integers(1, 8192)


class Workload(NamedTuple):
    """Prompts of a batch in one pass, then some decode passes."""

    batch: int
    prefill: int
    slots: int
    seed: int

    def tokens(self) -> np.ndarray:
        return np.asarray([self.batch * self.prefill] + [self.batch] * DECODED)

    def routed(self, shape: ModelShape) -> np.ndarray:
        """Draws how many tokens choose each expert, [P, L, N]: top-k of each, and skewed."""
        rng = np.random.default_rng(self.seed)
        layers, experts, top_k = shape
        liked = rng.dirichlet(np.full(experts, 0.5), (1 + DECODED, layers))
        wanted = self.tokens()[:, None, None] * top_k * liked
        at_most = self.tokens()[:, None, None]
        return np.minimum(np.rint(wanted), at_most).astype(np.int64)


@lru_cache(maxsize=2)
def program(shape: ModelShape, prefetch: str):
    """Returns the simulator of one shape, jitted."""
    strategy = make_strategy("lru", prefetch)

    @jax.jit
    def run(capacity, units, costs, events):
        params = strategy.params
        start = begin(strategy, params, shape, units)
        state, times = scan_trace(strategy, shape, params, capacity, units, costs, start, events)
        return state.counts, state.prefill, times

    return run


def events_of(work: Workload, routed: np.ndarray) -> Events:
    passes = len(routed)
    first = np.arange(passes) == 0
    given = {
        "tokens": work.tokens().astype(np.int32),
        "prefill": first,
        "fresh": first,
        "valid": np.ones(passes, bool),
        "routed": routed.astype(np.int32),
        "gate": (routed > 0).astype(np.int32),
    }
    return Events._make(given.get(name) for name in Events._fields)


def simulated(work: Workload, spec: ModelSpec, cost: Price, prefetch: str):
    """Returns the counts, and ticks and stalls of the passes."""
    units = jnp.ones((spec.shape.num_layers, 1), jnp.int32)
    events = events_of(work, work.routed(spec.shape))
    counts, prefill, times = program(spec.shape, prefetch)(
        jnp.asarray([work.slots], jnp.int32), units, cost.costs, events
    )
    return counts, prefill, [joined(np.asarray(part)) for part in times]


def in_python(work: Workload, spec: ModelSpec, costs: Costs, prefetch: str) -> oracle.Result:
    layers, experts, top_k = spec.shape
    routed = work.routed(spec.shape)
    first = [step == 0 for step in range(len(routed))]
    whole = {name: np.asarray(value).tolist() for name, value in costs._asdict().items()}
    return oracle.simulate(
        oracle.Case(
            layers, experts, top_k, work.tokens().tolist(), first, first, routed.tolist(),
            (routed > 0).astype(int).tolist(),
        ),
        oracle.Config(
            [work.slots], [[1]] * layers, prefetch=prefetch, costs=oracle.Costs(**whole)
        ),
        record=False,
    )  # fmt: skip


def priced(work: Workload, spec: ModelSpec, machine: str) -> Price:
    copies = copies_of(spec.shape, ("bf16",), spec)
    sizes = PassSizes(work.tokens(), np.full(1 + DECODED, work.batch), spec.top_k)
    return price_passes(sizes, get_hardware(machine), spec, copies)


def check(work: Workload, spec: ModelSpec, machine: str, prefetch: str) -> None:
    """Holds one replay against the oracle and against the least that it can take."""
    cost = priced(work, spec, machine)
    counts, prefill, (ticks, stall) = simulated(work, spec, cost, prefetch)
    expected = in_python(work, spec, cost.costs, prefetch)
    assert ticks.tolist() == expected.ticks and stall.tolist() == expected.stall
    assert (stall >= 0).all() and (ticks >= stall).all()
    assert (ticks >= least_compute(work, spec, cost.costs)).all()
    if prefetch != "none":  # a load may run on behind the last pass
        return
    hardware, loads = get_hardware(machine), [int(np.sum(prefill.loads))]
    loads += [int(np.sum(counts.loads)) - loads[0]]
    for number, taken in zip(loads, (ticks[:1].sum(), ticks[1:].sum()), strict=True):
        rounding = number * cost.tick_s / 2
        nbytes = 0 if hardware.unified else number * spec.expert_bytes("bf16")
        assert taken * cost.tick_s >= nbytes / hardware.h2d_bytes_per_s - rounding


def least_compute(work: Workload, spec: ModelSpec, costs: Costs) -> list[int]:
    """Returns what the device is busy in each pass, in Python's integers."""
    by_pass = zip(
        *(np.asarray(part).tolist() for part in (costs.attention, costs.shared, costs.head)),
        work.routed(spec.shape).tolist(),
        strict=True,
    )
    memory, per_1024 = int(costs.expert_memory[0]), int(costs.expert_per_1024)
    return [
        spec.num_moe_layers * (attention + shared)
        + head
        + sum(max(memory, n * per_1024 >> 10) for row in layers for n in row if n)
        for attention, shared, head, layers in by_pass
    ]


def workloads(most_slots: int) -> st.SearchStrategy[Workload]:
    return st.builds(Workload, BATCHES, PREFILLS, st.integers(1, most_slots), st.integers(0, 99))


@pytest.mark.parametrize(
    ("model", "prefetch"), [("kimi-k2", "none"), ("mixtral-8x22b", "previous")]
)
def test_the_largest_models_on_any_machine(model: str, prefetch: str):
    spec = get_model(model)

    @settings(
        max_examples=8, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(workloads(100), st.sampled_from(sorted(HARDWARE)))
    def run(work: Workload, machine: str):
        check(work, spec, machine, prefetch)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("spec", list(known_models()), ids=lambda spec: spec.name)
def test_all_models_on_all_machines(spec: ModelSpec):
    rng = np.random.default_rng(0)
    for prefetch in ("none", "previous"):
        for machine in sorted(HARDWARE):
            for batch, prefill in [(1, 1), (64, 8192), rng.integers([1, 1], [65, 8193])]:
                slots = int(rng.integers(1, 200))
                check(Workload(int(batch), int(prefill), slots, 0), spec, machine, prefetch)


def test_what_one_pass_takes_may_exceed_an_int32():
    spec, work = get_model("kimi-k2"), Workload(1, 48, 8, 0)
    _, _, (ticks, _) = simulated(work, spec, priced(work, spec, "rtx-4090"), "none")
    assert ticks[0] > np.iinfo(np.int32).max


@settings(deadline=None, derandomize=True, database=None)
@given(hnp.arrays(np.int32, 94, elements=st.integers(-(2**31), 2**31 - 1)))
def test_two_words_hold_any_sum(values: np.ndarray):
    words = np.asarray(two_word_total(jnp.asarray(values)))
    assert joined(words[None]).tolist() == [sum(values.tolist())]


def test_what_cannot_be_timed_is_refused():
    spec = get_model("olmoe-1b-7b-0924")
    with pytest.raises(InputError, match="too long to be timed"):
        priced(Workload(64, 1 << 16, 8, 0), spec, "h100-pcie")
