"""Which policies rank by the trace alone: found from their functions, not from a list."""

import jax.numpy as jnp
import pytest

from specmd_jax.policies.eviction import EVICTIONS, lfu, lru
from specmd_jax.simulator.engines.scores import ignores_residency

KNOW_RESIDENCY = {"fifo", "lfu-in-cache", "s3-fifo", "sieve", "static"}


@pytest.mark.parametrize("name", sorted(EVICTIONS))
def test_policies_that_remember_what_was_inserted_know_what_is_resident(name):
    assert ignores_residency(EVICTIONS[name]) == (name not in KNOW_RESIDENCY)


def test_a_new_policy_is_classified_by_itself():
    def fewest_copies_first(params, state, cache, event):
        return jnp.sum(cache.tier >= 0, axis=1, keepdims=True) + state.uses

    assert ignores_residency(lfu.policy._replace(score=lambda p, s, cache, event: -s.uses))
    assert not ignores_residency(lfu.policy._replace(score=fewest_copies_first))


def test_recency_alone_knows_nothing():
    assert lru.policy.score is None
    assert ignores_residency(lru.policy)
