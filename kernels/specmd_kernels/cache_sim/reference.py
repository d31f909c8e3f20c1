"""What `cache_sim` means, in plain Python: sets of (layer, expert), and `sorted`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from specmd_kernels.cache_sim.policy import CachePolicy, SimCounts, SimOutcome, SimView


def cache_sim(
    policy: CachePolicy, params: Any, capacity: Int[Array, ""] | int, gate: Int[Array, "P L N"]
) -> SimCounts:
    """See `api.cache_sim`.

    Args:
      policy: whose functions are called.
      params: of the policy.
      capacity: slots.
      gate: of each event; positive where an expert is used.
    """
    _, layers, experts = gate.shape
    counts = {name: np.zeros(layers, np.int32) for name in SimCounts._fields}
    resident: set[tuple[int, int]] = set()
    gone: set[tuple[int, int]] = set()
    last_used = np.full((layers, experts), -1, np.int32)
    state = policy.init(params)
    update = jax.jit(policy.update)
    score = None if policy.score is None else jax.jit(policy.score)

    for clock, row in enumerate(np.asarray(gate).reshape(-1, experts)):
        layer = clock % layers
        gone = gone if layer else set()
        used = {(layer, int(expert)) for expert in np.flatnonzero(row)}
        hits = used & resident
        misses = sorted(used - resident)
        before = _view(resident, last_used, clock, row)
        worth = np.zeros(last_used.shape) if score is None else score(params, state, before)
        worth = np.asarray(worth)
        ranked = sorted(resident - used, key=lambda copy: (worth[copy], last_used[copy], copy))
        room = int(capacity) - len(hits)
        victims = set(ranked[: max(len(ranked) + len(misses[:room]) - room, 0)])
        kept = misses[:room]
        for name, number in {
            "accesses": len(used),
            "hits": len(hits),
            "collisions": len(gone & set(misses)),
            "compulsory": sum(last_used[copy] < 0 for copy in misses),
            "streamed": len(misses) - len(kept),
            "evictions": len(victims),
        }.items():
            counts[name][layer] += number
        resident = resident - victims | set(kept)
        gone |= victims
        last_used[layer, row > 0] = clock
        outcome = SimOutcome(
            _plane(hits, last_used)[layer],
            _plane(set(kept), last_used)[layer],
            _plane(victims, last_used),
        )
        after = _view(resident, last_used, clock, row)
        state = update(params, state, after, outcome)
    return SimCounts(**counts)


def _view(
    resident: set[tuple[int, int]], last_used: np.ndarray, clock: int, row: np.ndarray
) -> SimView:
    step, layer = divmod(clock, len(last_used))
    return SimView(
        resident=_plane(resident, last_used),
        last_used=jnp.asarray(last_used.copy()),
        clock=jnp.int32(clock),
        step=jnp.int32(step),
        layer=jnp.int32(layer),
        used=jnp.asarray(row > 0),
        gate=jnp.asarray(row),
    )


def _plane(copies: set[tuple[int, int]], like: np.ndarray) -> Bool[Array, "L N"]:
    marked = np.zeros(like.shape, bool)
    for copy in copies:
        marked[copy] = True
    return jnp.asarray(marked)
