"""Pairs of token and slot, sorted by slot and cut into blocks of rows that share one expert."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Plan(NamedTuple):
    """Which rows stand in which block. The blocks with rows in them come first."""

    token: Int[Array, "blocks rows"]  # T where a block is padded
    slot: Int[Array, " blocks"]  # of the last used block for those after it: nothing new to fetch
    place: Int[Array, "T K"]  # row of each pair; past the end for an unused one
    used: Int[Array, ""]  # blocks


def make_plan(slots: Int[Array, "T K"], num_slots: int, rows: int) -> Plan:
    """Returns the blocks, of which there are enough however the pairs fall."""
    tokens, top_k = slots.shape
    pairs = tokens * top_k
    blocks = min(num_slots, pairs) + pairs // rows
    slot = jnp.where(slots < 0, num_slots, slots).reshape(-1)  # unused pairs sort last
    order = jnp.argsort(slot, stable=True)
    ordered = slot[order]
    counts = jnp.bincount(slot, length=num_slots + 1)[:num_slots]
    taken = -(-counts // rows)
    ends = jnp.cumsum(taken)
    shift = jnp.append((ends - taken) * rows - (jnp.cumsum(counts) - counts), 0)
    row = jnp.where(ordered < num_slots, shift[ordered] + jnp.arange(pairs), blocks * rows)
    token = jnp.full(blocks * rows, tokens).at[row].set(order // top_k, mode="drop")
    used = ends[-1]
    block = jnp.clip(jnp.arange(blocks), max=jnp.maximum(used - 1, 0))
    owner = jnp.searchsorted(ends, block, side="right")
    return Plan(
        token=token.reshape(blocks, rows).astype(jnp.int32),
        slot=jnp.minimum(owner, num_slots - 1).astype(jnp.int32),
        place=jnp.zeros(pairs, jnp.int32).at[order].set(row).reshape(tokens, top_k),
        used=used.astype(jnp.int32),
    )


def gather(hidden: Float[Array, "T H"], plan: Plan) -> Float[Array, "blocks rows H"]:
    """Returns the rows of every block; what pads one is arbitrary."""
    return jnp.take(hidden, plan.token, axis=0, mode="clip")


def combine(
    out: Float[Array, "blocks rows H"], plan: Plan, weights: Float[Array, "T K"]
) -> Float[Array, "T H"]:
    """Returns the weighted sum over the pairs of each token."""
    flat = out.reshape(-1, out.shape[-1])
    pairs = flat.at[plan.place].get(mode="fill", fill_value=0)
    used = jnp.where(plan.place < flat.shape[0], weights, 0)
    summed = jnp.einsum("tkh,tk->th", pairs, used, preferred_element_type=jnp.float32)
    return summed.astype(out.dtype)
