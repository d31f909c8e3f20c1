"""What becomes of a token's experts when misses are not simply loaded.

A dropped expert adds nothing, and the others keep their weights (zero-fill). A substitute computes
with the weight of the expert it stands in for, the likeliest with that of the likeliest. A copy of
lower precision computes with what its bits still say. The host computes exactly.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from specmd_jax.core.arrays import precedes
from specmd_jax.core.errors import InputError
from specmd_jax.core.types import Event
from specmd_jax.models import DecoderConfig, Gate
from specmd_jax.models.layers.router import NO_EXPERT, affinities
from specmd_jax.simulator.cache import DemandResult


class TokenChoice(NamedTuple):
    """The experts that a token really gets."""

    ids: Int[Array, " K"]
    weights: Float[Array, " K"]  # 0 where the expert was dropped
    tiers: Int[Array, " K"]  # precision of the copy that computes


def check_bendable(config: DecoderConfig) -> None:
    """Raises InputError if it is not defined what a bent choice would weigh.

    By the dual-logit rule it is weighed by the router's own probabilities, which sigmoid routers
    and SparseMixer do not have.
    """
    if config.router.kind not in ("softmax", "top_k_softmax"):
        raise InputError(
            f"{config.spec.name} routes by {config.router.kind}: what a bent choice would weigh "
            "is not defined; use --routing standard"
        )


def bent_choice(
    gate: Gate, used: Bool[Array, " N"], config: DecoderConfig
) -> tuple[Int[Array, " K"], Float[Array, " K"]]:
    """Returns the experts that a routing policy chose, and their weights by the dual-logit rule.

    Args:
      gate: of one token.
      used: the experts chosen instead of the gate's own.
      config: of the decoder.
    """
    router = config.router
    shares = affinities(gate.logits, None, router)[0]
    worth = jnp.where(used, shares, -1.0)
    best, ids = jax.lax.top_k(worth, gate.ids.shape[1])
    weights = jnp.maximum(best, 0.0)
    if router.normalize or router.kind == "top_k_softmax":
        weights = weights / jnp.maximum(weights.sum(), 1e-20)
    return ids, router.scale * weights


@partial(jax.jit, static_argnums=(0, 1))
def apply_outcome(
    config: DecoderConfig, routing: bool, gate: Gate, event: Event, served: DemandResult
) -> Gate:
    """Returns the choice as it is computed: bent, without the dropped, with stand-ins.

    Args:
      config: of the decoder.
      routing: whether a routing policy chose in place of the gate, where one token asked.
      gate: of a layer; no expert stands for what is dropped.
      event: as it was served.
      served: the outcome of each miss.
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


def computed(
    ids: Int[Array, " K"], weights: Float[Array, " K"], event: Event, served: DemandResult
) -> TokenChoice:
    """Returns what is computed of a token's choice, once it is known what became of its misses.

    Args:
      ids: the choice, after routing.
      weights: of each.
      event: as it was served.
      served: its hits, and what became of its misses.
    """
    plan = served.plan
    worth = event.gate if event.probs is None else event.probs
    instead = stand_ins(plan.substituted, plan.stand_in, worth)
    tiers: Int8[Array, " N"] = jnp.where(plan.on_host, 0, jnp.maximum(served.tier, 0))
    actual = instead[ids]
    return TokenChoice(
        actual, jnp.where(plan.dropped[ids], 0.0, weights), tiers[actual].astype(jnp.int32)
    )


def stand_ins(
    substituted: Bool[Array, " N"], stand_in: Bool[Array, " N"], worth: Int[Array, " N"]
) -> Int[Array, " N"]:
    """Returns for each expert the one that computes for it; itself unless it is substituted."""
    left, right = _rank_among(substituted, worth), _rank_among(stand_in, worth)
    pairs = substituted[:, None] & stand_in[None, :] & (left[:, None] == right[None, :])
    itself = jnp.arange(worth.shape[0])
    return jnp.where(pairs.any(axis=1), jnp.argmax(pairs, axis=1), itself)


def _rank_among(members: Bool[Array, " N"], worth: Int[Array, " N"]) -> Int[Array, " N"]:
    """Returns how many members rank before each expert: by worth, then by id."""
    return jnp.sum(precedes(worth) & members[None, :], axis=1)
