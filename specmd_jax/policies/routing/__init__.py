"""Routing: whether the choice of experts bends. A new policy is a file and a line in the dict."""

from specmd_jax.policies.base import Routing
from specmd_jax.policies.routing import cache_prior, cumulative_mass, max_rank, standard

ROUTINGS: dict[str, Routing] = {
    "cache-prior": cache_prior.policy,
    "cumulative-mass": cumulative_mass.policy,
    "max-rank": max_rank.policy,
    "standard": standard.policy,
}
