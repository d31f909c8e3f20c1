"""Every capacity of a policy from one walk over a trace: Mattson et al. 1970, for sets of experts.

Exact for policies whose score depends on the trace alone, with forced admission, demand loads, a
cold start and copies of one size; every other strategy is refused, with the reason.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import Params
from specmd_jax.policies.strategy import Strategy, check_strategy
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.engines.scores import ignores_residency, trace_scores
from specmd_jax.simulator.engines.stack import Stack, empty_stack, walk
from specmd_jax.traces.trace import Trace


class Curve(NamedTuple):
    """What is counted at each capacity C of 0..S slots, by layer; S is what the model takes whole.

    With layer scope the slots are those of all layers together, spread over them as evenly as they
    go, the remainder over the first.
    """

    accesses: Int[np.ndarray, " L"]
    compulsory: Int[np.ndarray, " L"]
    hits: Int[np.ndarray, "L C"]
    collisions: Int[np.ndarray, "L C"]
    streamed: Int[np.ndarray, "L C"]
    evictions: Int[np.ndarray, "L C"]

    @property
    def misses(self) -> Int[np.ndarray, "L C"]:
        """What is not there when it is asked for, each of which is loaded."""
        return self.accesses[:, None] - self.hits


def why_no_curve(strategy: Strategy) -> str | None:
    """Returns why a strategy has no curve in one walk; None if it has one."""
    if strategy.admission != "forced":
        return "with bypass admission a larger cache need not hold what a smaller one does"
    if strategy.prefetches:
        return "what a prefetch finds room for depends on the capacity"
    if strategy.open_loop or strategy.miss.plan is not None:
        return "its miss or routing policy looks at what is resident"
    if not ignores_residency(strategy.eviction):
        return "its ranking depends on what is resident, so caches of two sizes do not nest"
    return None


def capacity_curve(trace: Trace, strategy: Strategy, params: Params | None = None) -> Curve:
    """Returns what a policy comes to at every capacity, from a cold start.

    Args:
      params: of the eviction policy; None: its defaults.

    Raises:
      InputError: the strategy has no such curve, or the trace lacks what it reads.
    """
    check_strategy(strategy, trace.shape)
    reason = why_no_curve(strategy)
    if reason is not None:
        raise InputError(f"there is no curve in one walk: {reason}; sweep its capacities instead")
    params = strategy.eviction.params if params is None else params
    events, by_layer = EventChunks(trace, strategy.reads), strategy.scope == "layer"
    stack = empty_stack(trace.shape.num_layers, trace.num_experts, by_layer)
    _walk_all(stack, strategy, params, events)
    curve = _sum_up(stack)
    return _spread_over_layers(curve) if by_layer else curve


def _walk_all(stack: Stack, strategy: Strategy, params: Params, events: EventChunks) -> None:
    if strategy.eviction.score is None:
        none = np.zeros((1, 1), np.int32)
        parts = ((chunk, none) for _, chunk in events)
    else:
        parts = trace_scores(strategy, params, events)
    first, scored = 0, strategy.eviction.score is not None
    for part, scores in parts:
        used = (part.routed > 0).reshape(-1, events.shape.num_experts)
        walk(stack, first, used, scores, scored)
        first += used.shape[0]


def _sum_up(stack: Stack) -> Curve:
    """Turns what was counted by place into counts by capacity of one pool."""
    most = stack.cells.shape[1]
    capacity, demanded = np.arange(most + 1), np.arange(stack.demanded.shape[1])
    accesses = stack.demanded @ demanded
    hits = np.pad(np.cumsum(stack.hits_at, axis=1), [(0, 0), (1, 0)])
    beyond = np.maximum(demanded[:, None] - capacity, 0)
    streamed = stack.demanded @ beyond
    filled = np.cumsum(stack.grown[:, : most + 1], axis=1)  # places that a pool filled, by event
    retained = accesses[:, None] - hits - streamed
    return Curve(
        accesses=accesses,
        compulsory=stack.compulsory,
        hits=hits,
        collisions=np.cumsum(stack.collided[:, : most + 1], axis=1),
        streamed=streamed,
        evictions=retained - np.cumsum(filled, axis=1),
    )


def _spread_over_layers(curve: Curve) -> Curve:
    """Turns counts by slots of a layer into counts by slots of all layers together."""
    num_layers, most = curve.hits.shape[0], curve.hits.shape[1] - 1
    totals = np.arange(num_layers * most + 1)
    layer = np.arange(num_layers)[:, None]
    quota = totals // num_layers + (layer < totals % num_layers)

    def at(counted: Int[np.ndarray, "L S"]) -> Int[np.ndarray, "L T"]:
        return np.take_along_axis(counted, quota, axis=1)

    return Curve(
        curve.accesses,
        curve.compulsory,
        at(curve.hits),
        at(curve.collisions),
        at(curve.streamed),
        at(curve.evictions),
    )
