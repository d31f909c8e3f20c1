"""Prefer resident experts among the router's top `max_rank`; the top `top_j` always stay.

Choice: the top top_j, then residents among the top max_rank, then the rest by logit, k in all.

Source: Skliar et al. 2024 (arXiv 2412.00099), max-rank; ROUTE_J and ROUTE_M in engines.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import ranks
from specmd_jax.core.types import Event
from specmd_jax.policies.base import LOGITS, Routing, stateless_init
from specmd_jax.policies.routing.cache_prior import top


class MaxRankParams(NamedTuple):
    top_j: Int[Array, ""] | int = 1
    max_rank: Int[Array, ""] | int = 12


def choose(
    params: MaxRankParams, state: tuple, resident: Bool[Array, " N"], event: Event
) -> tuple[Bool[Array, " N"], tuple]:
    assert event.logits is not None
    place = ranks(event.logits)
    eligible = place < params.max_rank
    return top(promote(place, place < params.top_j, resident & eligible), event), state


def promote(
    place: Int[Array, " N"], certain: Bool[Array, " N"], preferred: Bool[Array, " N"]
) -> Int[Array, " N"]:
    """Returns a priority: the certain first, then the preferred, then the rest, each by place."""
    num_experts = place.shape[0]
    return 2 * num_experts * certain + num_experts * (preferred & ~certain) - place


policy = Routing(stateless_init, choose, MaxRankParams(), reads=(LOGITS,), doc=__doc__)
