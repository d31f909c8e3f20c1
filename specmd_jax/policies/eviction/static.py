"""Static placement: what is resident stays; once the cache is full nothing else is retained.

Start it warm (`--start popular`) for the profiled placement of Fiddler and KTransformers; from
cold it keeps whatever came first.

Score: minus the event of insertion: the newcomer ranks lowest, and admission turns it away.

Source: Fiddler (arXiv 2402.07033) and the placement strategies of kt-kernel.
"""

from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.eviction import fifo
from specmd_jax.policies.eviction.fifo import FifoState


def score(params: tuple, state: FifoState, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    return -state.inserted_at  # the newcomer ranks lowest, and bypass admission turns it away


policy = fifo.policy._replace(score=score, admission="bypass", doc=__doc__)
