"""The fewest experts that hold a given share of the next gate's probability (top-p).

Names: the experts before which, in falling order, less than `mass` of the probability lies.

Source: SpecMD 3.1.4, "80th percentile" read as cumulative mass; FineMoE's set rule.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import sum_before, total
from specmd_jax.core.types import Event
from specmd_jax.policies.base import PREDICTED, Prefetch, stateless_init, stateless_observe
from specmd_jax.policies.prefetch.next_gate import foreseen


class MassParams(NamedTuple):
    mass: Float[Array, ""] | float = 0.8  # in [0, 1]


def select(
    params: MassParams, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    scores = foreseen(event, ahead)
    enough = params.mass * total(scores).astype(jnp.float32)
    return jnp.where(sum_before(scores, scores).astype(jnp.float32) < enough, scores, 0)


policy = Prefetch(
    stateless_init, select, stateless_observe, MassParams(), reads=(PREDICTED,), doc=__doc__
)
