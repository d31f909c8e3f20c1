"""Prefer resident experts among the fewest that hold a given share of the router's probability.

Choice: the top top_j, then residents before which less than `mass` of the probability lies, then
the rest by logit, k in all.

Source: Skliar et al. 2024 (arXiv 2412.00099), cumulative-sum threshold.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.arrays import ranks, sum_before, total
from specmd_jax.core.types import Event
from specmd_jax.policies.base import LOGITS, PROBS, Routing, stateless_init
from specmd_jax.policies.routing.cache_prior import top
from specmd_jax.policies.routing.max_rank import promote


class CumulativeMassParams(NamedTuple):
    top_j: Int[Array, ""] | int = 1
    mass: Float[Array, ""] | float = 0.8  # in [0, 1]


def choose(
    params: CumulativeMassParams, state: tuple, resident: Bool[Array, " N"], event: Event
) -> tuple[Bool[Array, " N"], tuple]:
    assert event.logits is not None and event.probs is not None
    place = ranks(event.logits)
    before = sum_before(event.probs, event.logits).astype(jnp.float32)
    enough = jnp.asarray(params.mass, jnp.float32) * total(event.probs).astype(jnp.float32)
    priority = promote(place, place < params.top_j, resident & (before < enough))
    return top(priority, event), state


policy = Routing(stateless_init, choose, CumulativeMassParams(), reads=(LOGITS, PROBS), doc=__doc__)
