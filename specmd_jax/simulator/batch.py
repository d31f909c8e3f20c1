"""Many configurations of one strategy over one trace: one compile, one vmapped scan.

What the configurations share stays unbatched, all through the scan: a sweep over capacities keeps
one copy of the recency clock, not one for each capacity.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer

from specmd_jax.core.arrays import joined
from specmd_jax.core.errors import InputError
from specmd_jax.core.jit import make_room_for_programs, quick_jit
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.strategy import Strategy, check_strategy
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.configs import SimConfig, stack, with_costs
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.fused import count_on_chip, fits_on_chip
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import SimState, begin
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


class _Shared(NamedTuple):
    """What all configurations of a run share."""

    units: jax.Array  # [L, Q]
    future: jax.Array | None  # [L, N], each expert's first demand
    resident: jax.Array | None  # [L, N]


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
    shared = _Shared(
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
    shared: _Shared,
    events: EventChunks,
    on_progress: Callable[[float], None],
) -> list[SimResult]:
    strategy = strategy.structure
    batch, axes = stack(configs)
    state_axes = _state_axes(strategy, shape, axes, batch, shared, events)
    state = _begin(strategy, shape, axes, state_axes, batch, shared)
    nothing = state.counts, state.prefill
    counted = jax.tree.map(lambda part: np.zeros(part.shape, np.int64), nothing)
    times: list[PassTimes] = []
    for start, chunk in events:
        costs = with_costs(batch, axes, start, events.length)
        state, taken = _replay_configs(
            strategy, shape, axes, state_axes, costs, shared.units, state, chunk
        )
        # A chunk's counts fit an int32, a trace's need not.
        counted = jax.tree.map(np.add, counted, jax.device_get((state.counts, state.prefill)))
        state = state._replace(counts=nothing[0], prefill=nothing[1])
        if taken is not None:
            times.append(jax.tree.map(joined, jax.device_get(taken)))
        on_progress(min(1.0, (start + events.length) / events.num_passes))
    if bool(np.any(state.cache.broken)):
        raise InputError(
            "an eviction policy returned NaN as a score: its victims would be arbitrary"
        )
    counts, prefill = (
        _per_config(part, axes, len(configs))
        for part, axes in zip(counted, (state_axes.counts, state_axes.prefill), strict=True)
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


def _start(strategy: Strategy, shape: ModelShape, shared: _Shared, config: SimConfig) -> SimState:
    return begin(strategy, config.params, shape, shared.units, shared.future, shared.resident)


_known_axes: dict[tuple, SimState] = {}


def _state_axes(
    strategy: Strategy,
    shape: ModelShape,
    axes: SimConfig,
    batch: SimConfig,
    shared: _Shared,
    events: EventChunks,
) -> SimState:
    """Returns, for each array of the state, whether configurations differ in it (0) or not.

    Found by tracing one pass under `vmap` and looking at what comes out batched.
    """
    key = (strategy, shape, axes, *(part is None for part in shared))
    if key in _known_axes:
        return _known_axes[key]
    make_room_for_programs()
    _, chunk = next(iter(events))
    first = jax.tree.map(lambda rows: rows[:1], chunk)

    def one(config: SimConfig) -> jax.Array:
        state = _start(strategy, shape, shared, config)
        state, _ = scan_trace(
            strategy,
            shape,
            config.params,
            jnp.asarray(config.capacity),
            shared.units,
            config.costs,
            state,
            first,
        )
        _known_axes[key] = jax.tree.map(_axis, state)
        return state.next_step

    jax.eval_shape(jax.vmap(one, in_axes=(axes,), out_axes=None), with_costs(batch, axes, 0, 1))
    return _known_axes[key]


def _axis(value: Any) -> int | None:
    # Under vmap only what depends on a batched input is a BatchTracer.
    return 0 if type(value).__name__ == "BatchTracer" else None


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _begin(
    strategy: Strategy,
    shape: ModelShape,
    axes: SimConfig,
    state_axes: SimState,
    batch: SimConfig,
    shared: _Shared,
) -> SimState:
    start = partial(_start, strategy, shape, shared)
    return jax.vmap(start, in_axes=(axes,), out_axes=state_axes)(batch)


@quick_jit(static_argnums=(0, 1, 2, 3))
def _replay_configs(
    strategy: Strategy,
    shape: ModelShape,
    axes: SimConfig,
    state_axes: SimState,
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

    return jax.vmap(one, in_axes=(axes, state_axes), out_axes=(state_axes, 0))(batch, state)


def _per_config(values: Counts, axes: Any, size: int) -> Counts:
    """Returns the counts with a leading axis of configurations."""

    def spread(array: Any, axis: int | None) -> np.ndarray:
        return array if axis == 0 else np.broadcast_to(array, (size, *array.shape))

    return Counts._make(spread(*pair) for pair in zip(values, axes, strict=True))
