"""Add a bonus to the logits of resident experts: lambda times the usual range of the logits.

The top `top_j` of the router get the bonus too, so that they are never displaced.

Choice: top-k of z + lam r [resident or in the top top_j], with z the logits and r the running mean
of max(z) - min(z).

Source: Skliar et al. 2024 (arXiv 2412.00099), Cache-Prior; SpecMD Eq. 1 (there without top_j, and
with the mean logit in place of the range: `use_mean`).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.arrays import fixed, ranks, row, share, with_row
from specmd_jax.core.types import Event, ModelShape
from specmd_jax.policies.base import LOGITS, Routing


class CachePriorParams(NamedTuple):
    lam: Float[Array, ""] | float = 0.3  # 0 is off, 1 lets the cache decide
    top_j: Int[Array, ""] | int = 1
    use_mean: Bool[Array, ""] | bool = False


class CachePriorState(NamedTuple):
    summed: Float[Array, " L"]  # the range (or mean) of the logits, over events of the layer
    events: Int[Array, " L"]


def init(params: CachePriorParams, shape: ModelShape) -> CachePriorState:
    num_layers = shape.num_layers
    return CachePriorState(jnp.zeros(num_layers), jnp.zeros(num_layers, jnp.int32))


def choose(
    params: CachePriorParams, state: CachePriorState, resident: Bool[Array, " N"], event: Event
) -> tuple[Bool[Array, " N"], CachePriorState]:
    assert event.logits is not None
    logits = event.logits
    mean = _mean(logits)
    scale = jnp.where(params.use_mean, mean, jnp.max(logits) - jnp.min(logits))
    events = row(state.events, event.layer) + 1
    summed = row(state.summed, event.layer) + scale.astype(jnp.float32)
    favoured = resident | (ranks(logits) < params.top_j)
    bent = logits + jnp.where(favoured, fixed(params.lam * share(summed, events), 0), 0)
    state = CachePriorState(
        with_row(state.summed, event.layer, summed), with_row(state.events, event.layer, events)
    )
    return top(bent, event), state


def _mean(logits: Int[Array, " N"]) -> Int[Array, ""]:
    """Returns the floored mean without overflowing the sum."""
    count = logits.shape[0]
    rest = jnp.sum(logits % count, dtype=jnp.int32)
    return jnp.sum(logits // count, dtype=jnp.int32) + rest // count


def top(priority: Int[Array, " N"], event: Event) -> Bool[Array, " N"]:
    """Returns the experts of highest `priority`, as many as the token chose."""
    return ranks(priority) < jnp.sum(event.used)


policy = Routing(init, choose, CachePriorParams(), reads=(LOGITS,), doc=__doc__)
