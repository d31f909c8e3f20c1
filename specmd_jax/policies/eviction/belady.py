"""Belady's optimum: the copy whose next demand is farthest away leaves first.

Needs the future, so it is a bound, not a policy: with forced admission, equal sizes and no
prefetch nothing misses less.

Score: minus the event of the next demand, infinitely late if there is none.

Source: Belady 1966; Mattson et al. 1970.
"""

from jaxtyping import Array, Int

from specmd_jax.core.types import CacheState, Event
from specmd_jax.policies.base import NEXT_USE, Eviction, stateless_init, stateless_update


def score(params: tuple, state: tuple, cache: CacheState, event: Event) -> Int[Array, "L N"]:
    assert cache.next_use is not None
    return -cache.next_use


policy = Eviction(stateless_init, score, stateless_update, reads=(NEXT_USE,), doc=__doc__)
