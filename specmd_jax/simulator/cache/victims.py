"""Who leaves: the copies that the eviction policy ranks lowest in the pool."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Real

from specmd_jax.core.arrays import row, with_row
from specmd_jax.core.types import CacheState, Event, State
from specmd_jax.simulator.cache.ranking import Victims, lowest
from specmd_jax.simulator.cache.setting import CacheConfig


def rank(
    setting: CacheConfig, cache: CacheState, policy_state: State, event: Event
) -> Real[Array, "L N"] | None:
    """Returns what each copy is worth to the eviction policy; None: recency alone counts.

    Args:
      policy_state: of the eviction policy.
      event: the one being served.
    """
    if setting.strategy.eviction.score is None:
        return None
    return setting.strategy.eviction.score(setting.params.eviction, policy_state, cache, event)


def find_victims(
    setting: CacheConfig,
    cache: CacheState,
    score: Real[Array, "L N"] | None,
    layer: Int[Array, ""],
    candidates: Bool[Array, "L N"],
    needed: Int[Array, ""],
) -> Victims:
    """Returns the victims in the pool of `layer` that free `needed` units.

    Args:
      score: of `rank`.
      candidates: the copies that may leave.
      needed: units to free; if the candidates have fewer, all of them leave.
    """
    age: Int[Array, "L N"] = cache.last_used
    if score is not None and setting.strategy.eviction.distinct:
        score, age = None, score  # one key to search by, not two
    if setting.strategy.scope == "global":
        return lowest(score, age, candidates, needed, cache.tier, setting.units)

    def own(values: Array) -> Array:
        return row(values, layer)[None]

    victims = lowest(
        None if score is None else own(score),
        own(age),
        own(candidates),
        needed,
        own(cache.tier),
        own(setting.units),
    )
    chosen = with_row(jnp.zeros_like(candidates), layer, victims.chosen[0])
    return victims._replace(chosen=chosen)
