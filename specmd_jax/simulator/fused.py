"""Replays that one kernel does whole, with the cache in a core's own memory.

They are those of demand loads alone, into one pool of copies of one size, without time: the
published policies compared by what they miss, which is what is searched at scale.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from specmd_jax.core.interned import Interned
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.configs import SimConfig, as_array
from specmd_jax.simulator.counts import Counts
from specmd_kernels import CachePolicy, Implementation, SimCounts, SimOutcome, SimView, cache_sim

MOST_BYTES = 4 << 30  # of a trace, which the device holds whole
MOST_WEIGHT = 1 << 30  # of a gate, in fixed point: the kernel marks passes by a bit below it


def fits_on_chip(strategy: Strategy, units: Integer[np.ndarray, "L Q"]) -> bool:
    """Returns whether the kernel's replay of a strategy, without time, is the simulator's."""
    return (
        strategy.eviction.fused
        and not strategy.prefetches
        and strategy.miss.plan is None
        and strategy.routing.choose is None
        and strategy.scope == "global"
        and strategy.admission == "forced"
        and units.shape[1] == 1
        and bool(np.all(units == units[0, 0]))
    )


def count_on_chip(
    strategy: Strategy,
    configs: Sequence[SimConfig],
    units: Integer[np.ndarray, "L Q"],
    events: EventChunks,
    implementation: Implementation | None,
) -> tuple[Counts, Counts] | None:
    """Returns what the configurations count, and what of it in passes of prefill.

    Args:
      strategy: one that `fits_on_chip`.
      units: size of one copy.
      implementation: of the kernel.

    Returns:
      Counts with a leading axis of configurations, or None if there is no kernel for them.
    """
    layers, experts, _ = events.shape
    capacity = np.asarray([config.capacity[0] for config in configs]) // units[0, 0]
    timed = any(config.costs is not None for config in configs)
    if implementation is None or timed or not configs or capacity.min() < 1:
        return None
    if 4 * events.num_passes * layers * experts > MOST_BYTES:
        return None
    params = jax.tree.map(
        lambda *values: np.stack([as_array(value) for value in values]),
        *[config.params.eviction for config in configs],
    )
    chunks = [chunk for _, chunk in events]
    gate = np.concatenate([chunk.gate for chunk in chunks])
    prefill = np.concatenate([chunk.prefill for chunk in chunks])
    if gate.max() >= MOST_WEIGHT:
        return None
    shape = ModelShape(layers, experts, top_k=1)  # how many it chooses, no eviction asks
    which = Interned((strategy.eviction._replace(params=()), shape))
    try:
        counted = _count(which, implementation, params, capacity, gate, prefill)
    except NotImplementedError:
        return None
    everything, of_prefill = jax.tree.map(np.asarray, counted)
    return _as_counts(everything), _as_counts(of_prefill)


@partial(jax.jit, static_argnums=(0, 1))
def _count(which, implementation, params, capacity, gate, prefill):
    def run(params, capacity):
        policy = kernel_policy(*which.value)
        return cache_sim(
            policy, params, capacity, gate, marked=prefill, implementation=implementation
        )

    return jax.vmap(run)(params, capacity)


def _as_counts(counted: SimCounts) -> Counts:
    nothing = np.zeros_like(counted.hits)
    of_kernel = {name: getattr(counted, name) for name in SimCounts._fields}
    rest = dict.fromkeys(set(Counts._fields) - set(of_kernel), nothing)
    loads = (counted.accesses - counted.hits)[..., None]
    return Counts(**{**rest, **of_kernel, "loads": loads})


def kernel_policy(eviction: Eviction, shape: ModelShape) -> CachePolicy:
    """Returns `eviction` for the kernel: the same functions, told of the same things."""
    own_score = eviction.score

    def score(params: Any, state: Any, view: SimView) -> Any:
        assert own_score is not None
        return own_score(params, state, _cache(view), _event(view))

    def update(params: Any, state: Any, view: SimView, done: SimOutcome) -> Any:
        outcome = Outcome(
            demand=True, layer=view.layer, step=view.step, used=view.used, found=done.found,
            high=view.used, selected=jnp.zeros_like(view.used), inserted=done.inserted,
            evicted=done.evicted,
        )  # fmt: skip
        return eviction.update(params, state, _cache(view), _event(view), outcome)

    return CachePolicy(
        lambda params: eviction.init(params, shape), None if own_score is None else score, update
    )


def _cache(view: SimView) -> CacheState:
    unknown: Any = None  # what no eviction on chip reads
    return CacheState(
        tier=jnp.where(view.resident, 0, -1).astype(jnp.int8), last_used=view.last_used,
        next_use=None, speculative=None, seen=unknown, evicted=unknown, occupied=unknown,
        copies=unknown, broken=unknown,
    )  # fmt: skip


def _event(view: SimView) -> Event:
    return Event(
        clock=view.clock, step=view.step, layer=view.layer, tokens=jnp.int32(1),
        prefill=jnp.bool_(False), fresh=jnp.bool_(False), valid=jnp.bool_(True), used=view.used,
        routed=view.used.astype(jnp.int32), gate=view.gate, next_use=None, upcoming=None,
        predicted=None, logits=None, probs=None,
    )  # fmt: skip
