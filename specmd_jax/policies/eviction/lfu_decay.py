"""LFU with exponential decay: at each event of a layer its experts' counts shrink by `decay`.

Score: u, and at each event of the layer u <- decay u + [used].

Source: Robinson & Devarakonda 1990; the "decayed LFU" of expert-cache runtimes.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.core.arrays import fixed, row, with_row, zeros
from specmd_jax.core.types import CacheState, Event, ModelShape, Outcome
from specmd_jax.policies.base import Eviction


class LfuDecayParams(NamedTuple):
    decay: Float[Array, ""] | float = 0.9  # in (0, 1]; 1 is plain LFU


class LfuDecayState(NamedTuple):
    uses: Float[Array, "L N"]
    decayed: Float[Array, "L N"]  # uses * decay, kept so that XLA cannot fuse it with a sum


def init(params: LfuDecayParams, shape: ModelShape) -> LfuDecayState:
    return LfuDecayState(zeros(shape, jnp.float32), zeros(shape, jnp.float32))


def score(
    params: LfuDecayParams, state: LfuDecayState, cache: CacheState, event: Event
) -> Int[Array, "L N"]:
    return fixed(state.uses, 12)


def update(
    params: LfuDecayParams, state: LfuDecayState, cache: CacheState, event: Event, outcome: Outcome
) -> LfuDecayState:
    if not outcome.demand:
        return state
    uses = row(state.decayed, event.layer) + outcome.used
    return LfuDecayState(
        with_row(state.uses, event.layer, uses),
        with_row(state.decayed, event.layer, uses * params.decay),
    )


policy = Eviction(init, score, update, LfuDecayParams(), doc=__doc__)
