"""Next-gate scores above a percentile of this token's own scores: a fixed number of experts.

Names: the N - 1 - floor(percentile (N - 1)) experts of highest foreseen probability.

Source: SpecMD 3.1.4, "80th percentile" taken literally: 13 of OLMoE's 64, 12 of Qwen's 60.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.types import Event
from specmd_jax.policies.base import PREDICTED, Prefetch, stateless_init, stateless_observe
from specmd_jax.policies.prefetch.next_gate import foreseen, highest


class PercentileParams(NamedTuple):
    percentile: Float[Array, ""] | float = 0.8  # in [0, 1]


def select(
    params: PercentileParams, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    scores = foreseen(event, ahead)
    last = scores.shape[0] - 1
    below = jnp.floor(jnp.asarray(params.percentile, jnp.float32) * last).astype(jnp.int32)
    return highest(scores, last - below)


policy = Prefetch(
    stateless_init, select, stateless_observe, PercentileParams(), reads=(PREDICTED,), doc=__doc__
)
