"""Replays that one kernel does whole, with the cache in a core's own memory.

They are those of demand loads alone, into one pool of copies of one size, without time: the
published policies compared by what they miss, which is what is searched at scale.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from specmd_jax.core.interned import Interned
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome, Params
from specmd_jax.policies.base import Eviction
from specmd_jax.policies.eviction import EVICTIONS
from specmd_jax.policies.miss import MISSES
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.counts import Counts
from specmd_kernels import CachePolicy, Implementation, SimCounts, SimOutcome, SimView, cache_sim

# They read of the cache and the event no more than the kernel knows, and it knows their operations.
EVICTIONS_ON_CHIP = ("lru", "lfu", "fld", "least-stale", "linear")
MOST_BYTES = 4 << 30  # of a trace, which the device holds whole


def fits_on_chip(strategy: Strategy, units: Integer[np.ndarray, "L Q"]) -> bool:
    """Returns whether the kernel's replay of a strategy, without time, is the simulator's."""
    return (
        any(_is(strategy.eviction, EVICTIONS[name]) for name in EVICTIONS_ON_CHIP)
        and not strategy.prefetches
        and strategy.miss.plan is MISSES["fetch"].plan
        and strategy.routing.choose is None
        and strategy.scope == "global"
        and strategy.admission == "forced"
        and units.shape[1] == 1
        and bool(np.all(units == units[0, 0]))
    )


def _is(eviction: Eviction, known: Eviction) -> bool:
    """Whether two evictions are the same but for their parameters."""
    return eviction._replace(params=()) == known._replace(params=())


def count_on_chip(
    strategy: Strategy,
    params: Params,
    capacity: Integer[np.ndarray, " C"],
    gate: Integer[np.ndarray, "P L N"],
    implementation: Implementation,
) -> Counts | None:
    """Returns what C configurations count, or None if the kernel declines them.

    Args:
      strategy: one that `fits_on_chip`.
      params: of the eviction, each with a leading axis C.
      capacity: in copies, at least 1.
      gate: gate weights of a trace, above 0 where an expert is demanded.
      implementation: of the kernel.
    """
    if gate.size * 4 > MOST_BYTES:
        return None
    shape = ModelShape(*gate.shape[1:], top_k=1)  # how many it chooses, no eviction asks
    which = Interned((strategy.eviction._replace(params=()), shape))
    try:
        counted = _count(which, implementation, params, capacity, jnp.asarray(gate, jnp.int32))
    except NotImplementedError:
        return None
    return _as_counts(jax.tree.map(np.asarray, counted))


@partial(jax.jit, static_argnums=(0, 1))
def _count(which, implementation, params, capacity, gate):
    run = partial(cache_sim, kernel_policy(*which.value), implementation=implementation)
    return jax.vmap(run, in_axes=(0, 0, None))(params, capacity, gate)


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
