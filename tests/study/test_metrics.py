"""What a summary says of each phase, and its times and rates, beside plain Python."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from specmd_jax.core.types import ModelShape
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.simulator.events import dense_events
from specmd_jax.simulator.step import PassTimes
from specmd_jax.study.choice import Choice
from specmd_jax.study.metrics import PHASES, summarise_result
from specmd_jax.study.run import RunResult, compare
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import PREFILL, Trace, batch_prefill
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate
from tests import oracle

SHAPE = ModelShape(num_layers=3, num_experts=8, top_k=2)
SLOTS, PROMPT = 7, 4


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Two requests with prompts of four tokens."""
    return batch_prefill(generate(SyntheticSpec(SHAPE, requests=2, tokens=15), seed=0), PROMPT)


@pytest.fixture(scope="module")
def answer(trace: Trace) -> RunResult:
    return compare(trace, [make_setup(Choice(capacity=str(SLOTS)))])[0]


def in_python(trace: Trace) -> dict[str, dict[str, int]]:
    """The oracle's counts by phase."""
    events = dense_events(trace)
    case = oracle.Case(
        *trace.shape, events.tokens, events.prefill, events.fresh, events.routed, events.gate
    )
    result = oracle.simulate(case, oracle.Config([SLOTS], [[1]] * SHAPE.num_layers))
    nothing: dict[str, int] = {"hits": 0, "misses": 0, "collisions": 0}
    found = {phase: dict(nothing) for phase in PHASES}
    for event in result.events:
        phase = "prefill" if events.prefill[event.step] else "decode"
        for name in found[phase]:
            found[phase][name] += len(getattr(event, name))
    return found


def test_each_phase_counts_its_own(trace: Trace, answer: RunResult):
    summary = summarise_result(trace, answer)
    for phase, expected in in_python(trace).items():
        told = summary[phase]
        assert {name: told[name] for name in expected} == expected
        assert told["accesses"] == told["hits"] + told["misses"] and told["hits"] > 0
        assert (
            told["loads"] == told["misses"] and told["hit_rate"] == told["hits"] / told["accesses"]
        )
    for name in ("accesses", "hits", "misses", "collisions", "loads"):
        assert summary[name] == sum(summary[phase][name] for phase in PHASES)


def timed(trace: Trace, answer: RunResult, ticks: list[int], tick_s: float) -> dict[str, Any]:
    """A summary of passes that take so many ticks, a third of them stalled."""
    whole = np.asarray(ticks, np.int64)
    tally = answer.tally._replace(times=PassTimes(whole, whole // 3))
    setup = make_setup(Choice(capacity=str(SLOTS), hardware="h100-pcie"))
    assert setup.hardware == get_hardware("h100-pcie")
    return summarise_result(trace, answer._replace(setup=setup, tally=tally, tick_s=tick_s))


def test_times_and_rates_are_those_of_python_s_integers(trace: Trace, answer: RunResult):
    tick_s, rng = 2.0**-20, np.random.default_rng(0)
    ticks = rng.integers(1 << 36, 1 << 38, trace.num_passes).tolist()
    summary = timed(trace, answer, ticks, tick_s)
    early = trace.phase[np.searchsorted(trace.step, range(trace.num_passes))] == PREFILL
    prompts = [t for t, flag in zip(ticks, early, strict=True) if flag]
    others = [t for t, flag in zip(ticks, early, strict=True) if not flag]
    one = Fraction(tick_s)
    assert summary["ttft_s"] == float(one * sum(prompts) / 2)
    assert summary["tpot_s"] == pytest.approx(float(one * sum(others) / len(others)), rel=1e-15)
    assert summary["tokens_per_s"] == pytest.approx(1 / summary["tpot_s"]), "a batch of one"
    assert summary["prefill_tokens_per_s"] == pytest.approx(
        float(2 * PROMPT / (one * sum(prompts)))
    )
    assert summary["stall_s"] == float(one * sum(t // 3 for t in ticks))


def test_the_decode_rate_is_the_batch_over_the_time_of_a_token(answer: RunResult):
    rng = np.random.default_rng(0)
    experts = rng.random((12, *SHAPE[:2])).argsort(axis=2)[:, :, : SHAPE.top_k]
    batched = Trace(
        experts.astype(np.int16),
        SHAPE.num_experts,
        step=np.repeat(np.arange(3, dtype=np.int32), 4),
        request=np.tile(np.arange(4, dtype=np.int32), 3),
        phase=np.zeros(12, np.uint8),
    )
    summary = timed(batched, answer, [10, 20, 30], 0.5)
    assert summary["tpot_s"] == 10.0 and summary["tokens_per_s"] == 4 / 10.0
    assert summary["ttft_s"] is None and summary["prefill_tokens_per_s"] is None
