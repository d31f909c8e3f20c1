"""Without a kernel: a scan over events, batched over configurations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_kernels.cache_sim.policy import CachePolicy, SimOutcome, SimView
from specmd_kernels.cache_sim.serve import empty, serve


def cache_sim(
    policy: CachePolicy, params: Any, capacity: Int[Array, " C"], events: Int[Array, "P L N"]
) -> Int[Array, "C L columns"]:
    """See `api.cache_sim`; here for a batch of configurations, counts in columns.

    Args:
      policy: whose functions are traced.
      params: of the policy, [C] along the first axis of each leaf.
      capacity: slots of each configuration.
      events: see `serve.packed`.
    """
    _, layers, experts = events.shape
    rows = events.reshape(-1, 1, experts)

    def replay(params: Any, capacity: Int[Array, ""]) -> Int[Array, "L columns"]:
        def one(carry: Any, event: tuple[Array, Array]) -> tuple[Any, None]:
            cache, state = carry

            def score(view: SimView) -> Array | None:
                if policy.score is None:
                    return None
                return policy.score(params, state, _flat(view))

            cache, view, outcome = serve(score, cache, capacity, event[0], layers, event[1])
            outcome = SimOutcome(outcome.found[0], outcome.inserted[0], outcome.evicted)
            return (cache, policy.update(params, state, _flat(view), outcome)), None

        clocks = jnp.arange(rows.shape[0], dtype=jnp.int32)
        start = empty(layers, experts), policy.init(params)
        (cache, _), _ = jax.lax.scan(one, start, (clocks, rows))
        return cache.counts

    return jax.vmap(replay)(params, capacity)


def _flat(view: SimView) -> SimView:
    return view._replace(used=view.used[0], gate=view.gate[0])
