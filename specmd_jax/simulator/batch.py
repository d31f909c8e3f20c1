"""Many configurations of one strategy over one trace: one compile, one vmapped scan.

What the configurations share stays unbatched, all through the scan: a sweep over capacities keeps
one copy of the recency clock, not one for each capacity.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer

from specmd_jax.core.arrays import joined
from specmd_jax.core.errors import NOT_A_NUMBER, InputError
from specmd_jax.core.jit import quick_jit
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.strategy import Strategy, check_strategy
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.configs import SimConfig, stack, vmap_axes, with_costs
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.fused import count_on_chip, fits_on_chip
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.shared import Shared, differing_state, first_state
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.step import PassTimes
from specmd_jax.traces.trace import Trace
from specmd_kernels import Implementation, preferred

CONFIGS_PER_TILE = 256  # the state of so many fits the CPU's caches
MAX_STAMP = (1 << 31) - (1 << 24)


class SimResult(NamedTuple):
    """What one configuration came to, as numpy arrays."""

    counts: Counts
    prefill: Counts  # of these, in passes of prefill
    times: PassTimes | None


def run_batch(
    trace: Trace,
    strategy: Strategy,
    configs: Sequence[SimConfig],
    units: Integer[np.ndarray, "L Q"],
    *,
    resident: Bool[np.ndarray, "L N"] | None = None,
    implementation: Implementation | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> list[SimResult]:
    """Replays `trace` once for each configuration.

    Args:
      units: size of one copy, by layer and tier.
      resident: experts on the device at the start, at tier 0; None: a cold cache.
      implementation: of the kernel that does a whole replay where it can; None: the platform's,
        if it has one. The counts are the same.
      on_progress: called with the share of the work that is done, between chunks.

    Raises:
      InputError: the trace lacks what the strategy reads, or the strategy does not fit the model.
    """
    check_strategy(strategy, trace.shape)
    if trace.num_passes * trace.shape.num_layers * trace.num_experts >= MAX_STAMP:
        most = MAX_STAMP // (trace.shape.num_layers * trace.num_experts)
        raise InputError(
            f"{trace.num_passes} passes are too many for one replay of this model: slice the "
            f"trace to at most {most}"
        )
    events = EventChunks(trace, strategy.reads, strategy.lookahead)
    if resident is None and fits_on_chip(strategy, units):
        counted = count_on_chip(strategy, configs, units, events, implementation or preferred())
        if counted is not None:
            return _results(SimResult(*counted, times=None), len(configs))
    shared = Shared(
        jnp.asarray(units, jnp.int32),
        None if events.first_use is None else jnp.asarray(events.first_use),
        None if resident is None else jnp.asarray(resident),
    )
    tiles = [
        list(configs[i : i + CONFIGS_PER_TILE]) for i in range(0, len(configs), CONFIGS_PER_TILE)
    ]
    tallies: list[SimResult] = []
    for number, tile in enumerate(tiles):

        def tile_progress(share: float, done: int = number) -> None:
            on_progress((done + share) / len(tiles))

        tallies += _run_tile(strategy, trace.shape, tile, shared, events, tile_progress)
    return tallies


def _run_tile(
    strategy: Strategy,
    shape: ModelShape,
    configs: list[SimConfig],
    shared: Shared,
    events: EventChunks,
    on_progress: Callable[[float], None],
) -> list[SimResult]:
    strategy = strategy.structure
    batch, differs = stack(configs)
    _, chunk = next(iter(events))
    state_differs = differing_state(strategy, shape, differs, batch, shared, chunk)
    state = _begin(strategy, shape, differs, state_differs, batch, shared)
    nothing = state.counts, state.prefill
    counted = jax.tree.map(lambda part: np.zeros(part.shape, np.int64), nothing)
    times: list[PassTimes] = []
    for start, chunk in events:
        costs = with_costs(batch, differs, start, events.length)
        state, taken = _replay_configs(
            strategy, shape, differs, state_differs, costs, shared.units, state, chunk
        )
        # A chunk's counts fit an int32, a trace's need not.
        counted = jax.tree.map(np.add, counted, jax.device_get((state.counts, state.prefill)))
        state = state._replace(counts=nothing[0], prefill=nothing[1])
        if taken is not None:
            times.append(jax.tree.map(joined, jax.device_get(taken)))
        on_progress(min(1.0, (start + events.length) / events.num_passes))
    if bool(np.any(state.cache.broken)):
        raise InputError(NOT_A_NUMBER)
    counts, prefill = (
        _per_config(part, differ, len(configs))
        for part, differ in zip(counted, (state_differs.counts, state_differs.prefill), strict=True)
    )
    return _results(SimResult(counts, prefill, _of_passes(times, events)), len(configs))


def _of_passes(times: list[PassTimes], events: EventChunks) -> PassTimes | None:
    """Returns the times of all chunks, without those of the padding."""
    if not times:
        return None
    return jax.tree.map(lambda *parts: np.concatenate(parts, 1)[:, : events.num_passes], *times)


def _results(all_of_them: SimResult, size: int) -> list[SimResult]:
    """Returns each configuration's own of what has a leading axis of them."""
    return [jax.tree.map(lambda values, i=i: values[i], all_of_them) for i in range(size)]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _begin(
    strategy: Strategy,
    shape: ModelShape,
    differs: SimConfig,
    state_differs: SimState,
    batch: SimConfig,
    shared: Shared,
) -> SimState:
    start = partial(first_state, strategy, shape, shared)
    return jax.vmap(start, (vmap_axes(differs),), vmap_axes(state_differs))(batch)


@quick_jit(static_argnums=(0, 1, 2, 3))
def _replay_configs(
    strategy: Strategy,
    shape: ModelShape,
    differs: SimConfig,
    state_differs: SimState,
    batch: SimConfig,
    units: jax.Array,
    state: SimState,
    events: Events,
) -> tuple[SimState, PassTimes | None]:
    def one(config: SimConfig, state: SimState) -> tuple[SimState, PassTimes | None]:
        return scan_trace(
            strategy,
            shape,
            config.params,
            jnp.asarray(config.capacity),
            units,
            config.costs,
            state,
            events,
        )

    axes, state_axes = vmap_axes(differs), vmap_axes(state_differs)
    return jax.vmap(one, in_axes=(axes, state_axes), out_axes=(state_axes, 0))(batch, state)


def _per_config(values: Counts, differs: Counts, size: int) -> Counts:
    """Returns the counts with a leading axis of configurations."""

    def spread(array: np.ndarray, differ: bool) -> np.ndarray:
        return array if differ else np.broadcast_to(array, (size, *array.shape))

    return jax.tree.map(spread, values, differs)
