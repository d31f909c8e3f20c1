"""The costs that the runtime's experiment tells the simulator."""

import numpy as np

from experiments.runtime import costs
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.batch import SimConfig, run_batch
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate


def test_costs_come_to_the_times_of_the_run_that_they_are_told_from():
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
