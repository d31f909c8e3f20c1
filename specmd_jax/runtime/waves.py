"""Computes the experts of a layer as they arrive, with one result whatever the order.

The rows of each expert and the sum of a token's experts are laid out from the choice alone. What
is computed therefore does not depend on which experts were there first, nor in which slots they
lie: the same bits come out as with every expert on the device.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.models.config import Activation
from specmd_jax.models.decoder import Gate
from specmd_jax.models.dispatch import BlockPlan, block_rows, combine_blocks, plan_blocks
from specmd_jax.models.experts import ExpertWeights, apply_expert
from specmd_jax.runtime.store import Packing
from specmd_jax.static import Static


class Blocks(NamedTuple):
    """The rows of a layer, sorted by expert, and what has been made of them."""

    plan: BlockPlan
    rows: Float[Array, "blocks rows H"]
    out: Float[Array, "blocks rows H"]


def lay_out(gate: Gate) -> Blocks:
    """Returns the rows of a layer with nothing computed; to be traced."""
    plan = plan_blocks(gate.ids, gate.logits.shape[-1])
    rows = block_rows(gate.hidden, plan)
    return Blocks(plan, rows, jnp.zeros_like(rows))


def compute_held(
    packing: Packing,
    activation: Activation,
    blocks: Blocks,
    weights: Shaped[Array, "U page"],
    pages: Int[Array, "N pages"],
    due: Bool[Array, " N"],
) -> Blocks:
    """Returns the blocks with those of experts in slots computed; to be traced.

    Args:
      packing: of the weights.
      activation: of the experts.
      blocks: of the layer.
      weights: of the slots.
      pages: of each expert.
      due: the experts to compute.
    """
    pages = pages[blocks.plan.expert]

    def expert_of(block: Array) -> ExpertWeights:
        return packing.read(weights, pages[block])

    return _compute(blocks, due[blocks.plan.expert], expert_of, activation)


def compute_arrived(
    packing: Packing,
    activation: Activation,
    blocks: Blocks,
    row: Shaped[Array, " P"],
    expert: Int[Array, ""],
) -> Blocks:
    """Returns the blocks with those of one expert computed, from where it arrived; traced."""
    arrived = packing.unpack(row)
    return _compute(blocks, blocks.plan.expert == expert, lambda block: arrived, activation)


def combine(blocks: Blocks, weights: Float[Array, "T K"]) -> Float[Array, "T H"]:
    """Returns the weighted sum of each token's experts, all of them computed; to be traced."""
    return combine_blocks(blocks.out, blocks.plan, weights)


def _compute(
    blocks: Blocks,
    due: Bool[Array, " blocks"],
    expert_of: Callable[[Array], ExpertWeights],
    activation: Activation,
) -> Blocks:
    due = due & (jnp.arange(due.shape[0]) < blocks.plan.used)
    order = jnp.argsort(~due, stable=True)

    def fill(number: Array, out: Array) -> Array:
        block = order[number]
        made = apply_expert(expert_of(block), blocks.rows[block], activation)
        return jax.lax.dynamic_update_index_in_dim(out, made.astype(out.dtype), block, 0)

    return blocks._replace(out=jax.lax.fori_loop(0, jnp.sum(due), fill, blocks.out))


def compute_all(
    packing: Packing,
    activation: Activation,
    gate: Gate,
    weights: Shaped[Array, "U page"],
    pages: Int[Array, "N pages"],
    due: Bool[Array, " N"],
) -> Float[Array, "T H"]:
    """Returns what a layer's experts make of its tokens if all of them are in slots; traced.

    The same as laying out, computing and combining one after the other, to the last bit.
    """
    blocks = cut(lay_out(gate))
    blocks = cut(compute_held(packing, activation, blocks, weights, pages, due))
    return cut(combine(blocks, gate.weights))


cut = jax.lax.optimization_barrier  # where programs of their own would be cut

lay_out_now = jax.jit(lay_out)
combine_now = jax.jit(combine)


How = Static[tuple[Packing, Activation]]  # how weights are read and experts computed


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def compute_held_now(how: How, *args: Any) -> Blocks:
    """See `compute_held`; the memory of the blocks is reused."""
    return compute_held(*how.value, *args)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def compute_arrived_now(how: How, *args: Any) -> Blocks:
    """See `compute_arrived`; the memory of the blocks is reused."""
    return compute_arrived(*how.value, *args)
