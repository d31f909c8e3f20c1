"""What the simulator itself counts."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import begin


def simulator_counts(
    name: str, params: Any, capacities: Int[Array, " C"], gate: Int[Array, "P L N"]
) -> Counts:
    """Returns what the simulator counts for each capacity."""
    passes, layers, experts = gate.shape
    shape = ModelShape(layers, experts, top_k=1)
    strategy = make_strategy(name)
    params = strategy.params._replace(eviction=params)
    units = jnp.ones((layers, 1), jnp.int32)
    no = jnp.zeros(passes, bool)
    events = Events(
        tokens=jnp.ones(passes, jnp.int32), prefill=no, fresh=no, valid=~no,
        routed=(gate > 0).astype(jnp.int32), gate=gate, next_use=None, upcoming=None,
        predicted=None, logits=None, probs=None,
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    def counts(capacity: Int[Array, ""]) -> Counts:
        start = begin(strategy, params, shape, units)
        end = scan_trace(strategy, shape, params, capacity[None], units, None, start, events)
        return end[0].counts

    return counts(capacities)
