"""The experts that the previous token used in that layer.

Names: D of the latest event of the target layer; nothing in the first pass.

Source: temporal prefetch of on-device engines (BigMoeOnEdge); the cheapest predictor there is.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.arrays import row, with_row, zeros
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import Prefetch


class PreviousState(NamedTuple):
    demanded: Bool[Array, "L N"]  # at the latest event of each layer


def init(params: tuple, shape: ModelShape) -> PreviousState:
    return PreviousState(zeros(shape, bool))


def select(
    params: tuple, state: PreviousState, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    # The first pass has no previous token, not even for the layer 0 that follows it.
    return jnp.where(event.step > 0, row(state.demanded, layer), False).astype(jnp.int32)


def observe(params: tuple, state: PreviousState, event: Event) -> PreviousState:
    return PreviousState(with_row(state.demanded, event.layer, event.used))


policy = Prefetch(init, select, observe, doc=__doc__)
