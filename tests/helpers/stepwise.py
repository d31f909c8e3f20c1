"""Replay that shows the cache after every pass, for a whole column of capacities at once."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from specmd_jax.core.jit import quick_options
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.events import dense_events, first_use
from specmd_jax.simulator.scan import scan_trace
from specmd_jax.simulator.state import begin
from specmd_jax.traces import Trace


class Watched(NamedTuple):
    """What a replay leaves behind after each pass, as numpy arrays; C are the capacities."""

    demanded: np.ndarray  # [P, L, N] bool
    tier: np.ndarray  # [C, P, L, N] of the resident copies, -1 where there is none
    occupied: np.ndarray  # [C, P, W] units, by pool
    counts: Counts  # [C, P, L] since the beginning

    @property
    def total(self) -> dict[str, np.ndarray]:
        """The counts of the whole replay, summed over layers: [C] each."""
        fields = self.counts._asdict()
        return {name: last.reshape(len(last), -1).sum(1) for name, last in _last(fields).items()}


def _last(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[:, -1] for name, values in counts.items()}


def watch(
    trace: Trace,
    strategy: Strategy,
    params: StrategyParams,
    capacities: np.ndarray,
    units: np.ndarray,
    resident: np.ndarray | None = None,
) -> Watched:
    """Replays `trace` at each of `capacities`, [C, W] units, with an infinitely fast link.

    Args:
      units: [L, Q] of one copy.
      resident: [L, N] at the start; None: a cold cache.
    """
    events = dense_events(trace, strategy.reads, strategy.lookahead)
    if resident is None:
        resident = np.zeros((trace.shape.num_layers, trace.num_experts), bool)
    counts, tier, occupied = _program(strategy.structure, trace.shape)(
        jax.tree.map(_number, params),
        np.asarray(capacities, np.int32),
        np.asarray(units, np.int32),
        first_use(events),
        resident,
        events,
    )
    as_numpy = partial(jax.tree.map, np.asarray)
    used = np.asarray(events.routed) > 0
    return Watched(used, np.asarray(tier), np.asarray(occupied), as_numpy(counts))


def _number(value: Any) -> np.generic:
    kinds = {float: np.float32, int: np.int32, bool: np.bool_}
    return kinds[type(value)](value) if type(value) in kinds else value


@lru_cache(maxsize=4)  # programs are large
def _program(strategy: Strategy, shape: ModelShape):
    def one(params, capacity, units, future, resident, events):
        def one_pass(state, row):
            state, _ = scan_trace(strategy, shape, params, capacity, units, None, state, row)
            return state, (state.counts, state.cache.tier, state.cache.occupied)

        start = begin(strategy, params, shape, units, future, resident)
        rows = jax.tree.map(lambda values: values[:, None], events)
        return jax.lax.scan(one_pass, start, rows)[1]

    batched = jax.vmap(one, in_axes=(None, 0, None, None, None, None))
    return jax.jit(batched, compiler_options=quick_options())
