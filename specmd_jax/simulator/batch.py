"""Many configurations of one strategy over one trace: one compile, one vmapped scan.

What the configurations share stays unbatched, all through the scan: a sweep over capacities keeps
one copy of the recency clock, not one for each capacity.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.jit import make_room_for_programs, quick_jit
from specmd_jax.core.types import Events, ModelShape
from specmd_jax.policies.base import NEXT_USE
from specmd_jax.policies.strategy import Strategy, StrategyParams, check_strategy
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.events import dense_events, first_use
from specmd_jax.simulator.fused import count_on_chip, fits_on_chip
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import SimState, begin
from specmd_jax.simulator.step import PassTimes
from specmd_jax.simulator.timeline import Costs
from specmd_jax.traces.trace import Trace
from specmd_kernels import Implementation, preferred

PASSES_PER_CHUNK = 512  # between two chunks progress is shown and Ctrl-C is heard
CONFIGS_PER_TILE = 256  # the state of so many fits the CPU's caches
MAX_STAMP = (1 << 31) - (1 << 24)


class SimConfig(NamedTuple):
    """One configuration of a strategy."""

    params: StrategyParams
    capacity: Integer[np.ndarray, " W"]  # units of each pool
    costs: Costs | None = None


class SimResult(NamedTuple):
    """What one configuration came to, as numpy arrays."""

    counts: Counts
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
    events = dense_events(trace, strategy.reads, strategy.lookahead)
    if resident is None and fits_on_chip(strategy, units):
        counted = _run_on_chip(strategy, configs, units, events, implementation or preferred())
        if counted is not None:
            return counted
    future = jnp.asarray(first_use(events)) if NEXT_USE in strategy.reads else None
    shared = _Shared(
        jnp.asarray(units, jnp.int32),
        future,
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


def _run_on_chip(
    strategy: Strategy,
    configs: Sequence[SimConfig],
    units: Integer[np.ndarray, "L Q"],
    events: Events,
    implementation: Implementation | None,
) -> list[SimResult] | None:
    """Returns what the kernel counts, None where there is none for these configurations."""
    capacity = np.asarray([config.capacity[0] for config in configs]) // units[0, 0]
    timed = any(config.costs is not None for config in configs)
    if implementation is None or timed or not configs or capacity.min() < 1:
        return None
    params = jax.tree.map(
        lambda *values: np.stack([_as_array(value) for value in values]),
        *[config.params.eviction for config in configs],
    )
    counts = count_on_chip(strategy, params, capacity, np.asarray(events.gate), implementation)
    if counts is None:
        return None
    return [
        SimResult(jax.tree.map(lambda values, i=i: values[i], counts), None)
        for i in range(len(configs))
    ]


def _run_tile(
    strategy: Strategy,
    shape: ModelShape,
    configs: list[SimConfig],
    shared: _Shared,
    events: Events,
    on_progress: Callable[[float], None],
) -> list[SimResult]:
    strategy = strategy.structure
    num_passes = events.tokens.shape[0]
    batch, axes = _stack(configs)
    first = jax.tree.map(lambda x: x[:1], events)
    state_axes = _state_axes(strategy, shape, axes, _with_costs(batch, axes, 0, 1), shared, first)
    state = _begin(strategy, shape, axes, state_axes, batch, shared)
    ticks, stalls = [], []
    for start, chunk in _chunks(events):
        length = chunk.tokens.shape[0]
        state, times = _replay_configs(
            strategy,
            shape,
            axes,
            state_axes,
            _with_costs(batch, axes, start, length),
            shared.units,
            state,
            chunk,
        )
        ticks.append(np.asarray(times.ticks))
        stalls.append(np.asarray(times.stall))
        on_progress(min(1.0, (start + length) / num_passes))
    if bool(np.any(state.cache.broken)):
        raise InputError(
            "an eviction policy returned NaN as a score: its victims would be arbitrary"
        )
    by_pass = [np.concatenate(part, axis=1)[:, :num_passes] for part in (ticks, stalls)]
    times = PassTimes._make(by_pass)
    counts = _per_config(state.counts, state_axes.counts, len(configs))
    timed = configs[0].costs is not None
    return [
        SimResult(
            jax.tree.map(lambda values, i=i: values[i], counts),
            PassTimes(times.ticks[i], times.stall[i]) if timed else None,
        )
        for i in range(len(configs))
    ]


def _stack(configs: list[SimConfig]) -> tuple[SimConfig, SimConfig]:
    """Returns the configurations as one, batched only where they differ, and its vmap axes."""
    leaves = [jax.tree.leaves(config) for config in configs]
    structure = jax.tree.structure(configs[0])
    batched, axes = [], []
    for values in zip(*leaves, strict=True):
        arrays = [_as_array(value) for value in values]
        same = all(np.array_equal(arrays[0], other) for other in arrays[1:])
        batched.append(jnp.asarray(arrays[0] if same else np.stack(arrays)))
        axes.append(None if same else 0)
    # The capacity is always batched, so that a batch of one is a batch too.
    batch = jax.tree.unflatten(structure, batched)._replace(
        capacity=jnp.asarray(np.stack([config.capacity for config in configs]), jnp.int32)
    )
    return batch, jax.tree.unflatten(structure, axes)._replace(capacity=0)


def _as_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _chunks(events: Events) -> Iterator[tuple[int, Events]]:
    """Yields the passes chunk by chunk, the last padded with passes that ask for nothing."""
    num_passes = events.tokens.shape[0]
    length = min(PASSES_PER_CHUNK, -(-num_passes // 64) * 64)
    for start in range(0, num_passes, length):
        yield start, jax.tree.map(lambda x, a=start: _padded(x[a : a + length], length), events)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    missing = length - rows.shape[0]
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def _with_costs(batch: SimConfig, axes: SimConfig, start: int, length: int) -> SimConfig:
    """Returns `batch` with the costs of `length` passes from `start`, and of the next one."""
    if batch.costs is None:
        return batch

    def part(name: str) -> jax.Array:
        values, axis = getattr(batch.costs, name), getattr(axes.costs, name)
        index = np.minimum(np.arange(start, start + length + 1), values.shape[-1] - 1)
        return values[index] if axis is None else values[:, index]

    names = ["attention", "shared", "head", *(["decide"] if batch.costs.decide is not None else [])]
    by_pass = {name: part(name) for name in names}
    return batch._replace(costs=batch.costs._replace(**by_pass))


def _start(strategy: Strategy, shape: ModelShape, shared: _Shared, config: SimConfig) -> SimState:
    return begin(strategy, config.params, shape, shared.units, shared.future, shared.resident)


_known_axes: dict[tuple, SimState] = {}


def _state_axes(
    strategy: Strategy,
    shape: ModelShape,
    axes: SimConfig,
    batch: SimConfig,
    shared: _Shared,
    events: Events,
) -> SimState:
    """Returns, for each array of the state, whether configurations differ in it (0) or not.

    Found by tracing one pass under `vmap` and looking at what comes out batched.
    """
    key = (strategy, shape, axes, *(part is None for part in shared))
    if key in _known_axes:
        return _known_axes[key]
    make_room_for_programs()

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
            events,
        )
        _known_axes[key] = jax.tree.map(_axis, state)
        return state.next_step

    jax.eval_shape(jax.vmap(one, in_axes=(axes,), out_axes=None), batch)
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
) -> tuple[SimState, PassTimes]:
    def one(config: SimConfig, state: SimState) -> tuple[SimState, PassTimes]:
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
    """Returns the counts with a leading axis of configurations, as numpy arrays."""

    def spread(array: jax.Array, axis: int | None) -> np.ndarray:
        plain = np.asarray(array)
        return plain if axis == 0 else np.broadcast_to(plain, (size, *plain.shape))

    return Counts._make(spread(*pair) for pair in zip(values, axes, strict=True))
