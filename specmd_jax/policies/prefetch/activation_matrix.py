"""MoE-Infinity's sequence matching: the stored request most like this one tells what comes.

Names: the row of the target layer in the stored matrix M that makes the sum of cos(A_l, M_l) over
the layers l so far largest, A being the running request's matrix of demands.

Source: MoE-Infinity (arXiv 2401.14361), Expert Activation Matrix, matched by mean row cosine.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.core.arrays import fixed, row, with_row, zeros
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import Prefetch

STORE = 32  # requests remembered; the paper keeps up to 1000


class ActivationState(NamedTuple):
    matrix: Int[Array, "L N"]  # demands of the running request
    store: Int[Array, "S L N"]  # those of earlier requests
    num_stored: Int[Array, ""]  # ever


def init(params: tuple, shape: ModelShape) -> ActivationState:
    store = jnp.zeros((STORE, shape.num_layers, shape.num_experts), jnp.int32)
    return ActivationState(zeros(shape), store, jnp.int32(0))


def select(
    params: tuple, state: ActivationState, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    seen = jnp.arange(state.matrix.shape[0]) <= event.layer
    alike = jnp.sum(jnp.where(seen, fixed(_cosines(state), 12), 0), axis=1)
    stored = jnp.arange(STORE) < state.num_stored
    best = jnp.argmax(jnp.where(stored, alike, -1))
    return jnp.where(state.num_stored > 0, row(state.store[best], layer), 0)


def _cosines(state: ActivationState):
    """Returns the cosine of each row with that row of each stored matrix, 0 for an empty one."""
    mine, theirs = state.matrix.astype(jnp.float32), state.store.astype(jnp.float32)
    dot = jnp.sum(mine * theirs, axis=-1)
    norms = jnp.sqrt(jnp.sum(mine * mine, axis=-1)) * jnp.sqrt(jnp.sum(theirs * theirs, axis=-1))
    return jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1.0), 0.0)


def observe(params: tuple, state: ActivationState, event: Event) -> ActivationState:
    stores = event.fresh & jnp.any(state.matrix > 0)
    slot = state.num_stored % STORE
    kept = jnp.where(stores, state.matrix, state.store[slot])
    matrix = jnp.where(event.fresh, 0, state.matrix)
    demands = row(matrix, event.layer) + event.used
    return ActivationState(
        with_row(matrix, event.layer, demands),
        with_row(state.store, slot, kept),
        state.num_stored + stores,
    )


policy = Prefetch(init, select, observe, doc=__doc__)
