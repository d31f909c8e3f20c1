"""From gate logits to the experts of each token and their weights, by the families' rules.

All arithmetic is in float32. Ties fall to the lower expert.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.models.config import Router, RouterKind
from specmd_kernels import Implementation, gate_topk, preferred

NO_EXPERT = -1  # the choice of a token that is padding


class RoutingChoice(NamedTuple):
    """The experts of each token, best first, and the weight of each."""

    ids: Int[Array, "T K"]
    weights: Float[Array, "T K"]


def softmax(
    logits: Float[Array, "T N"],
    bias: Float[Array, " N"] | None,
    top_k: int,
    router: Router,
) -> RoutingChoice:
    """The top-k of the probabilities over all experts, group by group if there are groups.

    Sources: OLMoE (arXiv 2409.02060, eq. 2), Mixtral and Qwen (normalised), DeepSeek-V2
    (arXiv 2405.04434, §2.2.2: a group counts by its best expert).

    Args:
      logits: of the gate.
      bias: no part of this rule.
      top_k: experts a token.
      router: the rule.
    """
    del bias
    kernel = preferred()
    if kernel is not None and router.groups == 1:
        return _fused_softmax(logits, top_k, router, kernel)
    return _plain_softmax(logits, top_k, router)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _fused_softmax(
    logits: Float[Array, "T N"], top_k: int, router: Router, kernel: Implementation
) -> RoutingChoice:
    """In one pass over the logits; the derivative is that of the plain one."""
    nobody = jnp.zeros(logits.shape[1], bool)
    try:
        chosen = gate_topk(
            logits, nobody, top_k=top_k, normalize=router.normalize, implementation=kernel
        )
    except NotImplementedError:
        return _plain_softmax(logits, top_k, router)
    return RoutingChoice(chosen.ids, router.scale * chosen.weights)


@_fused_softmax.defjvp
def _(
    top_k: int, router: Router, kernel: Implementation, primals: tuple, tangents: tuple
) -> tuple[RoutingChoice, RoutingChoice]:
    del kernel
    return jax.jvp(partial(_plain_softmax, top_k=top_k, router=router), primals, tangents)


def _plain_softmax(logits: Float[Array, "T N"], top_k: int, router: Router) -> RoutingChoice:
    weights, ids = jax.lax.top_k(_reachable_probs(logits, router), top_k)
    return RoutingChoice(ids, _scaled(weights, router))


def top_k_softmax(
    logits: Float[Array, "T N"],
    bias: Float[Array, " N"] | None,
    top_k: int,
    router: Router,
) -> RoutingChoice:
    """The softmax over the top-k logits alone: Granite-MoE and gpt-oss (arXiv 2508.10925, §2).

    Args:
      logits: of the gate.
      bias: no part of this rule.
      top_k: experts a token.
      router: the rule.
    """
    del bias
    best, ids = jax.lax.top_k(logits, top_k)
    return RoutingChoice(ids, router.scale * jax.nn.softmax(best, axis=-1))


def sigmoid(
    logits: Float[Array, "T N"],
    bias: Float[Array, " N"] | None,
    top_k: int,
    router: Router,
) -> RoutingChoice:
    """The top-k of sigmoid scores plus a bias that chooses but does not weigh.

    Source: DeepSeek-V3 (arXiv 2412.19437, eq. 13-16): a group counts by its two best experts.

    Args:
      logits: of the gate.
      bias: of the choice, not of the weights; None: none.
      top_k: experts a token.
      router: the rule.
    """
    scores = jax.nn.sigmoid(logits)
    _, ids = jax.lax.top_k(_reachable_biased(scores, bias, router), top_k)
    return RoutingChoice(ids, _scaled(jnp.take_along_axis(scores, ids, axis=-1), router))


def sparsemixer(
    logits: Float[Array, "T N"],
    bias: Float[Array, " N"] | None,
    top_k: int,
    router: Router,
) -> RoutingChoice:
    """One expert after the other, each weighed against those within reach of the best left.

    Source: SparseMixer-v2 (arXiv 2409.12136, §2), as Phi-3.5-MoE infers with it.

    Args:
      logits: of the gate.
      bias: no part of this rule.
      top_k: experts a token.
      router: the rule.
    """
    del bias
    left = logits
    ids, weights = [], []
    for _ in range(top_k):
        best = jnp.max(left, axis=-1, keepdims=True)
        chosen = jnp.argmax(left, axis=-1, keepdims=True)
        gap = (best - logits) / jnp.maximum(jnp.abs(logits), best)
        probs = jax.nn.softmax(jnp.where(gap > 2 * router.jitter, -jnp.inf, left), axis=-1)
        ids.append(chosen)
        weights.append(jnp.take_along_axis(probs, chosen, axis=-1))
        left = jnp.put_along_axis(left, chosen, -jnp.inf, axis=-1, inplace=False)
    return RoutingChoice(jnp.concatenate(ids, -1), jnp.concatenate(weights, -1))


ROUTERS: dict[RouterKind, Callable[..., RoutingChoice]] = {
    "softmax": softmax,
    "top_k_softmax": top_k_softmax,
    "sigmoid": sigmoid,
    "sparsemixer": sparsemixer,
}


def choose(
    logits: Float[Array, "T N"],
    bias: Float[Array, " N"] | None,
    real: Bool[Array, " T"],
    top_k: int,
    router: Router,
) -> RoutingChoice:
    """Returns the experts and weights of each token by the router of the family.

    Args:
      logits: of the gate.
      bias: of the choice, DeepSeek-V3's correction; None elsewhere.
      real: False for padding, which is given no expert and the weight 0.
      top_k: experts a token.
      router: the rule.
    """
    ids, weights = ROUTERS[router.kind](logits.astype(jnp.float32), bias, top_k, router)
    return RoutingChoice(
        jnp.where(real[:, None], ids, NO_EXPERT).astype(jnp.int32),
        jnp.where(real[:, None], weights, 0.0),
    )


def affinities(
    logits: Float[Array, "T N"], bias: Float[Array, " N"] | None, router: Router
) -> Float[Array, "T N"]:
    """Returns how near each expert is to being chosen, as shares that sum to 1.

    The highest k are those that `choose` would take; experts of groups that are not kept have
    0. They are the probabilities of a softmax router. Of a sigmoid router they are the biased
    scores, counted from the lowest where that is negative.
    """
    logits = logits.astype(jnp.float32)
    if router.kind != "sigmoid":
        probs = _reachable_probs(logits, router)
        return probs / jnp.sum(probs, axis=-1, keepdims=True)
    biased = _reachable_biased(jax.nn.sigmoid(logits), bias, router)
    reachable = jnp.isfinite(biased)
    lowest = jnp.min(jnp.where(reachable, biased, 0.0), axis=-1, keepdims=True)
    above = jnp.where(reachable, biased - lowest, 0.0)
    return above / (jnp.sum(above, axis=-1, keepdims=True) + 1e-20)


def _reachable_probs(logits: Float[Array, "T N"], router: Router) -> Float[Array, "T N"]:
    """The softmax; 0 outside the groups that are kept, where a group counts by its best."""
    probs = jax.nn.softmax(logits, axis=-1)
    if router.groups == 1:
        return probs
    best = jnp.max(_grouped(probs, router), axis=-1)
    return jnp.where(_kept(best, probs.shape[-1], router), probs, 0.0)


def _reachable_biased(
    scores: Float[Array, "T N"], bias: Float[Array, " N"] | None, router: Router
) -> Float[Array, "T N"]:
    """Biased scores; -inf outside the groups that are kept: those with the two best experts."""
    biased = scores if bias is None else scores + bias
    if router.groups == 1:
        return biased
    two_best = jnp.sum(jax.lax.top_k(_grouped(biased, router), 2)[0], axis=-1)
    return jnp.where(_kept(two_best, biased.shape[-1], router), biased, -jnp.inf)


def _scaled(weights: Float[Array, "T K"], router: Router) -> Float[Array, "T K"]:
    if router.normalize:
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
    return router.scale * weights


def _grouped(scores: Float[Array, "T N"], router: Router) -> Float[Array, "T G M"]:
    return scores.reshape(scores.shape[0], router.groups, -1)


def _kept(
    group_scores: Float[Array, "T G"], num_experts: int, router: Router
) -> Bool[Array, "T N"]:
    """Marks the experts of the best groups of each token."""
    _, best = jax.lax.top_k(group_scores, router.kept_groups)
    kept = jnp.any(jax.nn.one_hot(best, router.groups, dtype=bool), axis=1)
    return jnp.repeat(kept, num_experts // router.groups, axis=-1)
