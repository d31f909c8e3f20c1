"""An oracle with a given recall and precision: what a predictor of that quality would buy.

Names: what will be demanded with chance r, all else with chance r (1 - p) d / (p (N - d)), for d
demanded experts, recall r and precision p.

Source: the prediction-quality sweeps of SpecMD 5.3; errors here are independent, real ones not.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import hash_uniform, total
from specmd_jax.core.types import Event
from specmd_jax.policies.base import UPCOMING, Prefetch, stateless_init, stateless_observe


class NoisyOracleParams(NamedTuple):
    recall: Float[Array, ""] | float = 0.9  # in [0, 1]
    precision: Float[Array, ""] | float = 0.9  # in (0, 1]
    seed: Int[Array, ""] | int = 0


def select(
    params: NoisyOracleParams, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    assert event.upcoming is not None
    demanded = event.upcoming[ahead - 1]
    expert = jnp.arange(demanded.shape[0])
    drawn = hash_uniform(params.seed, event.clock + ahead, ahead, expert) >> 8
    chance = jnp.where(demanded, params.recall, _false_alarm(params, demanded))
    named = drawn.astype(jnp.float32) < chance * jnp.float32(1 << 24)
    return (named & jnp.any(demanded)).astype(jnp.int32)


def _false_alarm(params: NoisyOracleParams, demanded) -> Float[Array, ""]:
    """The chance for an expert not demanded that makes the precision come out as asked."""
    right = total(demanded).astype(jnp.float32)
    wrong = demanded.shape[0] - right
    named_right = params.recall * right * (1 - params.precision)
    chance = named_right * (1 / (params.precision * jnp.maximum(wrong, 1.0)))
    return jnp.minimum(chance, 1.0)


policy = Prefetch(
    stateless_init, select, stateless_observe, NoisyOracleParams(), reads=(UPCOMING,), doc=__doc__
)
