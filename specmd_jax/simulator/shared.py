"""What the configurations of a batch have in common: the trace, the sizes, parts of the state."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.dependence import dependent_outputs
from specmd_jax.core.jit import make_room_for_programs
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.configs import SimConfig, with_costs
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import SimState, begin


class Shared(NamedTuple):
    """What all configurations of a run share."""

    units: Int[Array, "L Q"]
    first_use: Int[Array, "L N"] | None  # event that first demands each expert, if one asks
    resident: Bool[Array, "L N"] | None


def first_state(
    strategy: Strategy, shape: ModelShape, shared: Shared, config: SimConfig
) -> SimState:
    """Returns the state of one configuration before the first pass.

    Args:
      strategy: without default parameters.
      config: not batched.
    """
    return begin(strategy, config.params, shape, shared.units, shared.first_use, shared.resident)


def differing_state(
    strategy: Strategy,
    shape: ModelShape,
    differs: SimConfig,
    batch: SimConfig,
    shared: Shared,
    events: Events,
) -> SimState:
    """Returns, for each array of the state, whether configurations come to differ in it.

    Args:
      differs: whether they do in each array of `batch`.
      events: of a chunk.
    """
    one_pass = with_costs(batch, differs, 0, 1)
    config = jax.tree.map(lambda values, differ: values[0] if differ else values, one_pass, differs)
    first = jax.tree.map(lambda rows: rows[:1], events)
    return _follow(strategy, shape, differs, *(_types(part) for part in (config, shared, first)))


def _types(arrays: Any) -> Any:
    """Returns what a program is compiled for, which can be looked up."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), arrays)


@lru_cache(maxsize=256)
def _follow(
    strategy: Strategy,
    shape: ModelShape,
    differs: SimConfig,
    config: SimConfig,
    shared: Shared,
    events: Events,
) -> SimState:
    """Follows one pass from the configuration to the state that it leaves."""
    make_room_for_programs()
    marked = (differs, *jax.tree.map(lambda _: False, (shared, events)))
    return dependent_outputs(partial(_one_pass, strategy, shape), marked, config, shared, events)


def _one_pass(
    strategy: Strategy, shape: ModelShape, config: SimConfig, shared: Shared, events: Events
) -> SimState:
    state = first_state(strategy, shape, shared, config)
    capacity = jnp.asarray(config.capacity)
    return scan_trace(
        strategy, shape, config.params, capacity, shared.units, config.costs, state, events
    )[0]
