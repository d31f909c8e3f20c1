"""Replay of a trace, with demand loads only, one pool over all layers and copies of one size."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int

from specmd_kernels.cache_sim.policy import CachePolicy, SimCounts
from specmd_kernels.cache_sim.serve import PHASE, packed
from specmd_kernels.dispatch import Implementation, call


def cache_sim(
    policy: CachePolicy,
    params: Any,
    capacity: Int[Array, ""] | int,
    gate: Int[Array, "P L N"],
    *,
    marked: Bool[Array, " P"] | None = None,
    implementation: Implementation | None = None,
) -> tuple[SimCounts, SimCounts]:
    """Serves every event in order and returns what is counted: in all passes, and in those marked.

    An event's whole set is served at once: nothing that it asks for is evicted for it. Every load
    is retained unless the set alone exceeds the cache. The lowest ranked copies leave, by (score,
    event of last use, layer, expert). Equivalent to `reference.cache_sim`. `jax.vmap` over params
    and capacity is a sweep: one program for each configuration, all in one call.

    Args:
      policy: of eviction.
      params: what the policy is tuned by: a pytree of scalars.
      capacity: copies that fit, at least 1.
      gate: gate weight of each expert in each pass and layer, above 0 where it is demanded, and
        below 2**30.
      marked: passes that are counted apart too, as those of prefill; None: none is.

    Raises:
      NotImplementedError: the implementation asked for by name declines.
    """
    one = jax.tree.map(lambda value: jnp.asarray(value)[None], (params, capacity))
    counts = _batched(policy, implementation)(*one, packed(gate, marked))
    return jax.tree.map(lambda count: count[0], counts)


def _batched(policy: CachePolicy, implementation: Implementation | None):
    @custom_vmap
    def run(params, capacity, events):
        if events.shape[0] == 0:
            nothing = jnp.zeros((*capacity.shape, events.shape[1]), jnp.int32)
            none = SimCounts(*[nothing] * len(SimCounts._fields))
            return none, none
        counts = call("cache_sim", implementation, policy, params, capacity, events)
        return _in_columns(counts[..., :PHASE]), _in_columns(counts[..., PHASE:])

    @run.def_vmap
    def many(size, batched, params, capacity, events):
        all_batched = jax.tree.map(
            lambda value, is_batched: (
                value if is_batched else jnp.broadcast_to(value, (size, *value.shape))
            ),
            (params, capacity),
            tuple(batched[:2]),
        )
        if batched[2]:  # traces have nothing in common
            counts = jax.lax.map(lambda one: run(*one), (*all_batched, events))
            return counts, jax.tree.map(lambda _: True, counts)
        flat = jax.tree.map(lambda value: value.reshape(-1), all_batched)
        counts = run(*flat, events)
        shape = size, *all_batched[1].shape[1:], events.shape[1]
        counts = jax.tree.map(lambda count: count.reshape(shape), counts)
        return counts, jax.tree.map(lambda _: True, counts)

    return run


def _in_columns(counts: Int[Array, "*C L columns"]) -> SimCounts:
    return SimCounts(*[counts[..., index] for index in range(len(SimCounts._fields))])
