"""Replay of a trace, with demand loads only, one pool over all layers and copies of one size."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int

from specmd_kernels.cache_sim.policy import CachePolicy, SimCounts
from specmd_kernels.dispatch import Implementation, call


def cache_sim(
    policy: CachePolicy,
    params: Any,
    capacity: Int[Array, ""] | int,
    gate: Int[Array, "P L N"],
    *,
    implementation: Implementation | None = None,
) -> SimCounts:
    """Serves every event in order and returns what is counted; exact, as integers are.

    An event's whole set is served at once: nothing that it asks for is evicted for it. Every load
    is retained unless the set alone exceeds the cache. The lowest ranked copies leave, by (score,
    event of last use, layer, expert). Equivalent to `reference.cache_sim`. `jax.vmap` over params
    and capacity is a sweep: one program for each configuration, all in one call.

    Args:
      policy: of eviction.
      params: what the policy is tuned by: a pytree of scalars.
      capacity: copies that fit, at least 1.
      gate: gate weight of each expert in each pass and layer, above 0 where it is demanded.

    Raises:
      NotImplementedError: the implementation asked for by name declines.
    """
    one = jax.tree.map(lambda value: jnp.asarray(value)[None], (params, capacity))
    counts = _batched(policy, implementation)(*one, gate)
    return jax.tree.map(lambda count: count[0], counts)


def _batched(policy: CachePolicy, implementation: Implementation | None):
    @custom_vmap
    def run(params, capacity, gate):
        if gate.shape[0] == 0:
            nothing = jnp.zeros((*capacity.shape, gate.shape[1]), jnp.int32)
            return SimCounts(*[nothing] * len(SimCounts._fields))
        counts = call("cache_sim", implementation, policy, params, capacity, gate)
        return SimCounts(*[counts[..., index] for index in range(len(SimCounts._fields))])

    @run.def_vmap
    def many(size, batched, params, capacity, gate):
        all_batched = jax.tree.map(
            lambda value, is_batched: (
                value if is_batched else jnp.broadcast_to(value, (size, *value.shape))
            ),
            (params, capacity),
            tuple(batched[:2]),
        )
        if batched[2]:  # traces have nothing in common
            counts = jax.lax.map(lambda one: run(*one), (*all_batched, gate))
            return counts, jax.tree.map(lambda _: True, counts)
        flat = jax.tree.map(lambda value: value.reshape(-1), all_batched)
        counts = run(*flat, gate)
        shape = size, *all_batched[1].shape[1:], gate.shape[1]
        counts = jax.tree.map(lambda count: count.reshape(shape), counts)
        return counts, jax.tree.map(lambda _: True, counts)

    return run
