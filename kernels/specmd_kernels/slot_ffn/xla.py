"""Without a kernel: pair by pair for few tokens, block by block for many.

`jax.lax.ragged_dot` is neither: XLA computes it densely on CPU, and by default on GPU.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_kernels.slot_ffn.plan import combine, gather, make_plan
from specmd_kernels.slot_ffn.slots import Activation, Slots, matrix

LEAST_ROWS, MOST_ROWS = 8, 64  # of a block


def slot_ffn(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """See `api.slot_ffn`.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
    """
    few = is_few(slots.size, experts)
    return (by_pair if few else by_block)(activation, hidden, slots, weights, experts)


def is_few(pairs: int, experts: Slots) -> bool:
    """Returns whether pairs hardly ever share an expert: blocks would be mostly padding."""
    return pairs <= experts.down.shape[0]


def by_pair(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Computes one pair after the other: no copy of an expert, no row of padding.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
    """

    def add(total: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, None]:
        token, slot, weight = pair
        row = jax.lax.dynamic_slice_in_dim(hidden, token, 1)
        out = _expert(_at(experts, jnp.maximum(slot, 0)), row, activation)[0]
        weighted = jnp.where(slot < 0, 0, weight * out)
        return total.at[token].add(weighted), None

    tokens = jnp.repeat(jnp.arange(slots.shape[0]), slots.shape[1])
    pairs = tokens, slots.reshape(-1), weights.reshape(-1)
    total = jnp.zeros(hidden.shape, jnp.float32)
    return jax.lax.scan(add, total, pairs)[0].astype(hidden.dtype)


def by_block(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Float[Array, "T H"]:
    """Computes the rows of one expert together, a block at a time: each expert is read once.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
    """
    shared = slots.size // experts.down.shape[0]  # pairs of an expert, if they spread evenly
    rows = min(max(shared, LEAST_ROWS), MOST_ROWS, hidden.shape[0])
    plan = make_plan(slots, experts.down.shape[0], rows)
    rows = gather(hidden, plan)

    def fill(block: Array, out: Array) -> Array:
        computed = _expert(_at(experts, plan.slot[block]), rows[block], activation)
        return out.at[block].set(computed.astype(out.dtype))

    out = jax.lax.fori_loop(0, plan.used, fill, jnp.zeros_like(rows))
    return combine(out, plan, weights)


def _at(experts: Slots, slot: Int[Array, ""]) -> Slots:
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, slot, keepdims=False), experts
    )


def _expert(
    expert: Slots, rows: Float[Array, "M H"], activation: Activation
) -> Float[Array, "M H"]:
    dtype = rows.dtype
    gate_up = matrix(expert.gate_up, expert.gate_up_scales, dtype)
    inner = jnp.dot(rows, gate_up, preferred_element_type=jnp.float32)
    if expert.gate_up_bias is not None:
        inner = inner + expert.gate_up_bias
    inner = activation(*jnp.split(inner, 2, axis=-1)).astype(dtype)
    down = matrix(expert.down, expert.down_scales, dtype)
    out = jnp.dot(inner, down, preferred_element_type=jnp.float32)
    return out if expert.down_bias is None else out + expert.down_bias
