"""What a batch computes of its gate's choice, once the fates of the misses are known."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from specmd_jax.core.types import Event
from specmd_jax.models import DecoderConfig, Gate
from specmd_jax.models.layers.router import NO_EXPERT
from specmd_jax.runtime.decide.applied_choice import bent_choice, computed
from specmd_jax.simulator.cache import DemandResult


@partial(jax.jit, static_argnums=(0, 1))
def meet_fates(
    config: DecoderConfig, routing: bool, gate: Gate, event: Event, served: DemandResult
) -> Gate:
    """Returns the choice as it is computed: bent, without the dropped, with stand-ins.

    Args:
      config: of the decoder.
      routing: whether a routing policy chose in place of the gate, where one token asked.
      gate: of a layer; no expert stands for what is dropped.
      event: as it was served.
      served: the fates.
    """
    real = (gate.ids >= 0).any(axis=1, keepdims=True)
    ids, weights = gate.ids, gate.weights
    if routing:
        bent = jax.vmap(lambda logits: _bent(gate, logits, event, config))(gate.logits)
        here = real & (event.tokens == 1)
        ids, weights = (
            jnp.where(here, new, old) for new, old in zip(bent, (ids, weights), strict=True)
        )
    asked = jnp.maximum(ids, 0)
    done = jax.vmap(lambda ids, weights: computed(ids, weights, event, served))(asked, weights)
    kept = real & (ids >= 0) & ~served.plan.dropped[asked]
    return gate._replace(ids=jnp.where(kept, done.ids, NO_EXPERT), weights=done.weights)


def _bent(
    gate: Gate, logits: Float[Array, " N"], event: Event, config: DecoderConfig
) -> tuple[Array, Array]:
    one = gate._replace(logits=logits[None])
    return bent_choice(one, event.used, config)
