"""Next-gate scores above a running quantile of all scores seen for that layer: adaptive.

A histogram with bins of about 4 % stands in for the scores seen, so the state is small.

Names: the experts whose foreseen probability lies in a bin above that of the `quantile` of all
probabilities foreseen for the layer.

Source: SpecMD 3.1.4, "80th percentile" read as a threshold on each layer's history: the only
reading under which the number of experts "adapts to the score distribution".
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import PREDICTED, Prefetch
from specmd_jax.policies.prefetch.next_gate import foreseen

BINS = 512  # 16 an octave, bin 0 for zero scores
FIRST_BIN = 2031  # so that a score of one fixed-point step falls in bin 1
MAX_AHEAD = 8


class QuantileParams(NamedTuple):
    quantile: Float[Array, ""] | float = 0.8  # in [0, 1]


class QuantileState(NamedTuple):
    seen: Int[Array, "A L H"]  # scores by bin, for each target layer, foreseen 1..A ahead


def init(params: QuantileParams, shape: ModelShape) -> QuantileState:
    return QuantileState(jnp.zeros((MAX_AHEAD, shape.num_layers, BINS), jnp.int32))


def _bin(scores: Int[Array, " N"]) -> Int[Array, " N"]:
    bits = lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
    return jnp.where(scores > 0, jnp.clip((bits >> 19) - FIRST_BIN, 1, BINS - 1), 0)


def _target(event: Event, ahead: int, num_layers: int) -> Int[Array, ""]:
    return (event.layer + ahead) % num_layers


def select(
    params: QuantileParams,
    state: QuantileState,
    event: Event,
    layer: Int[Array, ""],
    ahead: int,
) -> Int[Array, " N"]:
    scores = foreseen(event, ahead)
    seen = jnp.cumsum(state.seen[ahead - 1, layer])
    enough = params.quantile * seen[-1].astype(jnp.float32)
    threshold = jnp.argmax(seen.astype(jnp.float32) >= enough)
    return jnp.where(_bin(scores) > threshold, scores, 0)


def observe(params: QuantileParams, state: QuantileState, event: Event) -> QuantileState:
    assert event.predicted is not None
    seen, num_layers = state.seen, state.seen.shape[1]
    for ahead in range(1, event.predicted.shape[0] + 1):
        target = _target(event, ahead, num_layers)
        seen = seen.at[ahead - 1, target, _bin(foreseen(event, ahead))].add(1)
    return QuantileState(seen)


policy = Prefetch(
    init,
    select,
    observe,
    QuantileParams(),
    reads=(PREDICTED,),
    max_ahead=MAX_AHEAD,
    doc=__doc__,
)
