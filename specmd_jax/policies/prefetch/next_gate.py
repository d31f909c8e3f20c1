"""The next layer's gate on this layer's hidden state; its top-k, times an overfetch factor.

Names: the ceil(overfetch |D|) experts of highest foreseen probability, D being the running demand.

Source: Eliseev & Mazur 2023 (arXiv 2312.17238); SpecMD 3.1.4, "Spec".
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import ranks, total
from specmd_jax.core.types import Event
from specmd_jax.policies.base import PREDICTED, Prefetch, stateless_init, stateless_observe


class WidthParams(NamedTuple):
    overfetch: Float[Array, ""] | float = 1.0  # experts named per expert demanded now


def width(params: WidthParams, event: Event) -> Int[Array, ""]:
    """Returns how many experts to name: the running demand's size, times the overfetch."""
    demanded = total(event.used).astype(jnp.float32)
    return jnp.ceil(params.overfetch * demanded).astype(jnp.int32)


def highest(priority: Int[Array, " N"], count: Int[Array, ""]) -> Int[Array, " N"]:
    """Returns `priority` with all but the `count` highest set to 0; ties to the lower expert."""
    return jnp.where(ranks(priority) < count, priority, 0)


def foreseen(event: Event, ahead: int) -> Int[Array, " N"]:
    """Returns the router probabilities predicted for the layer `ahead` of this one."""
    assert event.predicted is not None
    return event.predicted[ahead - 1]


def select(
    params: WidthParams, state: tuple, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    return highest(foreseen(event, ahead), width(params, event))


policy = Prefetch(
    stateless_init, select, stateless_observe, WidthParams(), reads=(PREDICTED,), doc=__doc__
)
