"""Two ways to compute the chosen experts of a layer from one stack of weights.

`jax.lax.ragged_dot` is neither: on CPU, and by default on GPU, XLA computes it densely.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.models.experts.blocks import Rows, Weights, as_stack, fill_blocks
from specmd_jax.models.experts.weights import ExpertWeights, apply_expert
from specmd_kernels import Activation, Implementation
from specmd_kernels.slot_ffn.plan import make_plan

LEAST_BLOCK, BLOCK = 8, 64  # rows of one expert that are computed together


def in_blocks(
    experts: ExpertWeights,
    hidden: Float[Array, "T H"],
    ids: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    activation: Activation,
    implementation: Implementation | None = None,
) -> Float[Array, "T H"]:
    """Computes rows sorted by expert, block by block: for inference, in place and unpadded.

    Blocks that no row is in cost nothing. It has no reverse-mode derivative.

    Args:
      experts: stacked weights of the layer, [N, ...].
      hidden: at the gate.
      ids: chosen experts, -1 for none.
      weights: of each, 0 for none.
      activation: of the experts.
      implementation: of `slot_ffn`; None: the platform's kernel, if it has one.
    """
    plan = plan_blocks(ids, experts.down.shape[0])
    rows = lay_out(hidden, plan)
    source = Weights(
        lambda block: _pick(experts, plan.expert[block]),
        as_stack(experts, hidden.dtype),
        plan.expert,
    )
    every = jnp.arange(plan.expert.shape[0])
    out = fill_blocks(source, rows, every, plan.used, activation, implementation)
    return combine_blocks(out, plan, weights)


def all_blocks(
    experts: ExpertWeights,
    hidden: Float[Array, "T H"],
    ids: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    activation: Activation,
) -> Float[Array, "T H"]:
    """Computes the same blocks all at once: for training, it is differentiable.

    No token is dropped, as MegaBlocks (arXiv 2211.15841); weights are copied once a block.

    Args:
      experts: stacked weights of the layer, [N, ...].
      hidden: at the gate.
      ids: chosen experts, -1 for none.
      weights: of each, 0 for none.
      activation: of the experts.
    """
    plan = plan_blocks(ids, experts.down.shape[0])
    chosen = jax.tree.map(lambda leaf: leaf[plan.expert], experts)
    out = jax.vmap(lambda expert, rows: apply_expert(expert, rows, activation))(
        chosen, lay_out(hidden, plan).hidden
    )
    return combine_blocks(out, plan, weights)


class BlockPlan(NamedTuple):
    """Rows sorted by expert and padded, expert by expert, to whole blocks."""

    source: Int[Array, "blocks rows"]  # token of each row, T for padding
    place: Int[Array, "T K"]  # row of each pair; past the end for no expert
    expert: Int[Array, " blocks"]
    used: Int[Array, ""]  # blocks with rows in them: the first ones


def plan_blocks(ids: Int[Array, "T K"], num_experts: int) -> BlockPlan:
    """Returns which rows stand in which block; it depends on nothing but the choice.

    Where experts hardly share tokens, each pair of the two is a block: nothing is sorted.
    """
    tokens, top_k = ids.shape
    pairs = tokens * top_k
    if pairs <= num_experts:
        return _plan_pairs(ids)
    block = min(max(pairs // num_experts, LEAST_BLOCK), BLOCK, tokens)  # few rows, little padding
    plan = make_plan(ids, num_experts, block)
    return BlockPlan(plan.token, plan.place, plan.slot, plan.used)


def _plan_pairs(ids: Int[Array, "T K"]) -> BlockPlan:
    tokens, top_k = ids.shape
    pair = jnp.arange(ids.size, dtype=jnp.int32)
    expert = ids.reshape(-1)
    return BlockPlan(
        source=jnp.where(expert < 0, tokens, pair // top_k)[:, None],
        place=jnp.where(ids < 0, ids.size, pair.reshape(ids.shape)),
        expert=jnp.maximum(expert, 0),
        used=jnp.int32(ids.size),
    )


def lay_out(hidden: Float[Array, "T H"], plan: BlockPlan) -> Rows:
    """Returns the hidden states block by block, zeros where a block is padded; nothing computed."""
    rows = jnp.append(hidden, jnp.zeros_like(hidden[:1]), axis=0)[plan.source]
    return Rows(rows, plan.source < hidden.shape[0], jnp.zeros_like(rows))


def combine_blocks(
    out: Float[Array, "blocks rows H"], plan: BlockPlan, weights: Float[Array, "T K"]
) -> Float[Array, "T H"]:
    """Returns the weighted sum of what the blocks made of each token."""
    flat = out.reshape(-1, out.shape[-1])
    pairs = flat.at[plan.place].get(mode="fill", fill_value=0)
    summed = jnp.einsum("tkh,tk->th", pairs, weights, preferred_element_type=jnp.float32)
    return summed.astype(out.dtype)


def _pick(experts: ExpertWeights, index: Int[Array, ""]) -> ExpertWeights:
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), experts
    )
