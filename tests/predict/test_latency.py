"""The closed form: its limits, its gradients, and how it stands beside the simulator."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.model_zoo import get_model
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.predict.break_even import accepted, batch_gain, break_even_acceptance
from specmd_jax.predict.latency import (
    Foresight,
    PassParts,
    binomial,
    demanded_by_batch,
    demanded_in_a_row,
    pass_parts,
    pass_time,
    served_s,
)
from specmd_jax.study.metrics import summarise_result
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SPEC = get_model("olmoe-1b-7b-0924")
LAPTOP = get_hardware("laptop-pcie4-x8")
PARTS = pass_parts(SPEC, LAPTOP, "int4")


def test_the_shares_of_a_pass_add_up():
    time = pass_time(PARTS, 16, 8.0, 0.6)
    assert float(time.software + time.experts + time.link) == pytest.approx(float(time.total))
    assert float(time.loads) == pytest.approx(16 * 8 * 0.4)


def test_deciding_hides_behind_loads_and_is_no_wait_for_the_link():
    slow = PARTS._replace(decide=PARTS.load)
    assert pass_time(slow, 16, 8.0, 0.0).total == pass_time(PARTS, 16, 8.0, 0.0).total
    warm = pass_time(slow, 16, 8.0, 1.0, Foresight())
    assert float(warm.link) == pytest.approx(0.0, abs=1e-6)
    longer = float(warm.software - pass_time(PARTS, 16, 8.0, 1.0).software)
    assert longer == pytest.approx(16 * PARTS.load, rel=1e-4)
    assert pass_time(slow, 16, 8.0, 1.0).total == pass_time(PARTS, 16, 8.0, 1.0).total


def test_all_hits_wait_for_nothing_and_all_misses_for_each_load():
    warm, cold = (pass_time(PARTS, 16, 8.0, rate) for rate in (1.0, 0.0))
    assert float(warm.link) == pytest.approx(0.0, abs=1e-9)
    layer = 8 * PARTS.load + PARTS.expert_memory  # each load is longer than an expert's compute
    assert float(cold.experts + cold.link) == pytest.approx(16 * layer, rel=1e-4)


def test_time_falls_with_hits_and_with_the_link():
    times = [float(pass_time(PARTS, 16, 8.0, rate).total) for rate in np.linspace(0, 1, 9)]
    assert all(a > b for a, b in pairwise(times))
    faster = pass_parts(SPEC, replace(LAPTOP, h2d_bytes_per_s=50e9), "int4")
    assert pass_time(faster, 16, 8.0, 0.5).total < pass_time(PARTS, 16, 8.0, 0.5).total


@pytest.mark.parametrize("foresight", [Foresight(), Foresight(0.7, 0.6)])
def test_gradients_are_finite_differences(foresight: Foresight):
    def total(rate):
        return pass_time(PARTS, 16, 8.0, rate, foresight).total

    slope = (total(0.51) - total(0.49)) / 0.02
    assert float(jax.grad(total)(0.5)) == pytest.approx(float(slope), rel=0.05)
    by_load = jax.grad(lambda load: pass_time(PARTS._replace(load=load), 16, 8.0, 0.5).total)
    assert float(by_load(PARTS.load)) == pytest.approx(16 * 4, rel=0.05)


def test_a_good_prefetcher_helps_where_the_link_has_time_and_a_bad_one_costs():
    roomy = PARTS._replace(attention=8 * PARTS.load)
    without = pass_time(roomy, 16, 8.0, 0.7).total
    assert pass_time(roomy, 16, 8.0, 0.7, Foresight(0.8, 0.8)).total < without
    starved = PARTS._replace(attention=PARTS.load / 8)
    useless = pass_time(starved, 16, 8.0, 0.9, Foresight(0.1, 0.01)).total
    assert useless > pass_time(starved, 16, 8.0, 0.9).total


def test_misses_are_binomial_for_whole_numbers_and_keep_their_mean_for_others():
    np.testing.assert_allclose(binomial(3.0, 1.5, 8)[:4], [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=1e-5)
    chances = binomial(6.4, 2.0, 16)
    assert float(jnp.sum(chances)) == pytest.approx(1, abs=1e-5)
    assert float(chances @ jnp.arange(17)) == pytest.approx(2.0, rel=0.1)


def test_beyond_the_bound_the_misses_are_taken_at_their_mean():
    mean = served_s(100.0, 1.0, 10.0, 50.0, most=64)
    assert float(mean) == pytest.approx(501.0)


def test_unions_grow_from_one_token_to_all_experts():
    sizes = [float(demanded_by_batch(64, 8, float(tokens))) for tokens in (1, 2, 8, 64, 4096)]
    assert sizes[0] == pytest.approx(8, abs=0.5) and sizes[-1] == pytest.approx(64, abs=0.1)
    assert all(a < b for a, b in pairwise(sizes))
    assert float(demanded_in_a_row(64, 8, 1)) == 8
    assert 8 < float(demanded_in_a_row(64, 8, 2)) < float(demanded_by_batch(64, 8, 2.0))


def test_speculative_decoding_needs_more_acceptance_the_slower_the_link():
    assert float(accepted(3, 0.0)) == pytest.approx(1) and float(accepted(3, 1.0)) > 3.9
    needed = [
        break_even_acceptance(SPEC, replace(LAPTOP, h2d_bytes_per_s=rate), "int4", 0.6, 3)
        for rate in (100e9, 5e9)
    ]
    assert needed[0] is not None and needed[1] is not None and needed[0] < needed[1]
    assert break_even_acceptance(SPEC, LAPTOP, "int4", 0.6, 3, draft_s=10.0) is None


def test_a_batch_gains_less_than_its_size():
    assert batch_gain(SPEC, LAPTOP, "int4", 0.6, 1) == pytest.approx(1)
    assert 1 < batch_gain(SPEC, LAPTOP, "int4", 0.6, 8) < 8


@pytest.mark.parametrize(("decide_s", "capacity"), [(0.0, "5%"), (2e-3, "5%"), (40e-3, "5%")])
def test_given_the_hit_rate_it_is_within_a_twentieth_of_the_simulator(decide_s, capacity):
    trace = generate(SyntheticSpec(SPEC.shape, tokens=60), seed=3)
    strategy = make_strategy("lru", scope="layer")
    machine = replace(LAPTOP, decide_s=decide_s)
    setup = Setup(
        strategy, strategy.params, capacity=capacity, precisions=("int4",), hardware=machine
    )
    (answer,) = compare(trace, [setup], SPEC)
    summary = summarise_result(trace, answer)
    parts = pass_parts(SPEC, machine, "int4", context=1025)
    estimate = pass_time(parts, 16, 8.0, summary["hit_rate"]).total
    assert float(estimate) == pytest.approx(summary["tpot_s"], rel=0.05)


def test_parts_may_be_arrays():
    parts = PassParts(*(jnp.float32(part) for part in PARTS))
    assert float(jax.jit(lambda p: pass_time(p, 16, 8.0, 0.5).total)(parts)) > 0
