"""Three ways to compute the chosen experts of a layer from one stack of weights.

`jax.lax.ragged_dot` is none of them: on CPU, and by default on GPU, XLA computes it densely.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.models.config import Activation
from specmd_jax.models.experts import ExpertWeights, apply_expert

BLOCK = 64  # rows of one expert that are computed together


def one_by_one(
    experts: ExpertWeights,
    hidden: Float[Array, "T H"],
    ids: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    activation: Activation,
) -> Float[Array, "T H"]:
    """Computes a token's experts one after the other: for decode, nothing is copied or padded."""
    tokens = jnp.repeat(jnp.arange(ids.shape[0]), ids.shape[1])

    def add(total: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, None]:
        token, expert, weight = pair
        row = jax.lax.dynamic_slice_in_dim(hidden, token, 1)
        out = apply_expert(_pick(experts, expert), row, activation)
        return total.at[token].add((weight * out[0]).astype(total.dtype)), None

    pairs = tokens, jnp.maximum(ids.reshape(-1), 0), weights.reshape(-1)
    total = jnp.zeros(hidden.shape, jnp.float32)
    return jax.lax.scan(add, total, pairs)[0].astype(hidden.dtype)


def in_blocks(
    experts: ExpertWeights,
    hidden: Float[Array, "T H"],
    ids: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    activation: Activation,
) -> Float[Array, "T H"]:
    """Computes rows sorted by expert, block by block: for prefill, each expert is read once.

    Blocks that no row is in cost nothing. It has no reverse-mode derivative.
    """
    plan = _plan(ids, experts.down.shape[0])
    rows = _rows(hidden, plan)

    def fill(block: Array, out: Array) -> Array:
        computed = apply_expert(_pick(experts, plan.expert[block]), rows[block], activation)
        return jax.lax.dynamic_update_index_in_dim(out, computed.astype(out.dtype), block, 0)

    out = jax.lax.fori_loop(0, plan.used, fill, jnp.zeros_like(rows))
    return _combined(out, plan, weights)


def all_blocks(
    experts: ExpertWeights,
    hidden: Float[Array, "T H"],
    ids: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    activation: Activation,
) -> Float[Array, "T H"]:
    """Computes the same blocks all at once: for training, it is differentiable.

    No token is dropped, as MegaBlocks (arXiv 2211.15841); weights are copied once a block.
    """
    plan = _plan(ids, experts.down.shape[0])
    chosen = jax.tree.map(lambda leaf: leaf[plan.expert], experts)
    out = jax.vmap(lambda expert, rows: apply_expert(expert, rows, activation))(
        chosen, _rows(hidden, plan)
    )
    return _combined(out, plan, weights)


class _Plan(NamedTuple):
    """Rows sorted by expert and padded, expert by expert, to whole blocks."""

    source: Int[Array, "blocks rows"]  # token of each row, T for padding
    place: Int[Array, "T K"]  # row of each pair; past the end for no expert
    expert: Int[Array, " blocks"]
    used: Int[Array, ""]  # blocks with rows in them: the first ones


def _plan(ids: Int[Array, "T K"], num_experts: int) -> _Plan:
    tokens, top_k = ids.shape
    pairs = tokens * top_k
    block = min(BLOCK, tokens)
    blocks = min(num_experts, pairs) + pairs // block  # enough, however the rows fall
    expert = jnp.where(ids < 0, num_experts, ids).reshape(-1)  # no expert sorts last
    order = jnp.argsort(expert, stable=True)
    counts = jnp.bincount(expert, length=num_experts + 1)[:num_experts]
    ends = jnp.cumsum(-(-counts // block))  # blocks up to and with each expert
    first_row = jnp.append((ends - -(-counts // block)) * block, blocks * block)
    rank = jnp.arange(pairs) - jnp.append(jnp.cumsum(counts) - counts, 0)[expert[order]]
    row = jnp.minimum(first_row[expert[order]] + rank, blocks * block)
    source = jnp.full(blocks * block, tokens, jnp.int32)
    source = source.at[row].set((order // top_k).astype(jnp.int32), mode="drop")
    return _Plan(
        source=source.reshape(blocks, block),
        place=jnp.zeros(pairs, jnp.int32).at[order].set(row.astype(jnp.int32)).reshape(ids.shape),
        expert=jnp.minimum(
            jnp.searchsorted(ends, jnp.arange(blocks), side="right"), num_experts - 1
        ),
        used=ends[-1],
    )


def _rows(hidden: Float[Array, "T H"], plan: _Plan) -> Float[Array, "blocks rows H"]:
    return jnp.append(hidden, jnp.zeros_like(hidden[:1]), axis=0)[plan.source]


def _combined(
    out: Float[Array, "blocks rows H"], plan: _Plan, weights: Float[Array, "T K"]
) -> Float[Array, "T H"]:
    flat = out.reshape(-1, out.shape[-1])
    pairs = flat.at[plan.place].get(mode="fill", fill_value=0)
    summed = jnp.einsum("tkh,tk->th", pairs, weights, preferred_element_type=jnp.float32)
    return summed.astype(out.dtype)


def _pick(experts: ExpertWeights, index: Int[Array, ""]) -> ExpertWeights:
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), experts
    )
