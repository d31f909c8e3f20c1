"""A machine with neither a GPU nor a TPU shows that replay compiles for both."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.hardware.capacity import copies_of
from specmd_jax.hardware.profiles import get_hardware
from specmd_jax.model_zoo import get_model
from specmd_jax.policies.strategy import Strategy, make_strategy
from specmd_jax.simulator.events import dense_events, first_use
from specmd_jax.simulator.pricing import price
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import begin
from specmd_jax.traces import Trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

MODEL = get_model("olmoe-1b-7b-0924")
STRATEGIES = {
    "demand": make_strategy("lru"),
    "queues": make_strategy("s3-fifo", scope="layer"),
    "future": make_strategy("belady", admission="bypass"),
    "paper": make_strategy("least-stale", "next-gate-quantile"),
    "lossy": make_strategy("score-based", "oracle", "fetch-priority", "cache-prior"),
}


@pytest.fixture(scope="module")
def trace() -> Trace:
    spec = SyntheticSpec(
        MODEL.shape, requests=1, tokens=2, prompt_tokens=2, lookahead=1, record_logits=True
    )
    return generate(spec, seed=0)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_batch_of_replays_lowers(strategy: Strategy, platform: str, trace: Trace):
    copies = copies_of(trace.shape, ("int8", "int4", "int2"), MODEL, trace.expert_bytes)
    units = jnp.asarray(copies.units, jnp.int32)
    costs = price(trace, get_hardware("h100-pcie"), MODEL, copies).costs
    events = dense_events(trace, strategy.reads, strategy.lookahead)
    future = jnp.asarray(first_use(events)) if "next_use" in strategy.reads else None

    @partial(jax.vmap, in_axes=(0, None))
    def many(capacity, events):
        start = begin(strategy, strategy.params, trace.shape, units, future)
        state, times = scan_trace(
            strategy, trace.shape, strategy.params, capacity, units, costs, start, events
        )
        return state.counts, times

    pools = 1 if strategy.scope == "global" else trace.shape.num_layers
    capacities = jnp.asarray(np.arange(1, 9)[:, None] * np.full(pools, 100), jnp.int32)
    lowered = jax.jit(many).trace(capacities, events).lower(lowering_platforms=(platform,))
    assert "stablehlo.while" in lowered.as_text()
