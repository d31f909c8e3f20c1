"""Experts that followed the current ones most often, layer to layer, counted online.

Names: the ceil(overfetch |D|) experts j of the largest sum over i in D of how often j was demanded
so many layers after i, D being the running demand.

Source: EdgeMoE's table (arXiv 2308.14352) and the Markov prefetchers after it, for one layer.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import Prefetch
from specmd_jax.policies.prefetch.next_gate import WidthParams, highest, width

MAX_AHEAD = 3  # the counts take MAX_AHEAD * L * N * N integers


class TransitionState(NamedTuple):
    counts: Int[Array, "A L N N"]  # [d-1, l, i, j]: j was demanded d layers after i was at l
    recent: Bool[Array, "A N"]  # demands of the last A events, the newest first


def init(params: WidthParams, shape: ModelShape) -> TransitionState:
    layers, experts, _ = shape
    return TransitionState(
        jnp.zeros((MAX_AHEAD, layers, experts, experts), jnp.int32),
        jnp.zeros((MAX_AHEAD, experts), bool),
    )


def select(
    params: WidthParams, state: TransitionState, event: Event, layer: Int[Array, ""], ahead: int
) -> Int[Array, " N"]:
    followed = state.counts[ahead - 1, event.layer]
    likely = jnp.sum(jnp.where(event.used[:, None], followed, 0), axis=0, dtype=jnp.int32)
    return highest(likely, width(params, event))


def observe(params: WidthParams, state: TransitionState, event: Event) -> TransitionState:
    counts, num_layers = state.counts, state.counts.shape[1]
    for ahead in range(1, MAX_AHEAD + 1):
        source = (event.layer - ahead) % num_layers
        pairs = state.recent[ahead - 1][:, None] & event.used[None, :]
        counts = counts.at[ahead - 1, source].add(pairs.astype(jnp.int32))
    recent = jnp.concatenate([event.used[None], state.recent[:-1]])
    return TransitionState(counts, recent)


policy = Prefetch(init, select, observe, WidthParams(), max_ahead=MAX_AHEAD, doc=__doc__)
