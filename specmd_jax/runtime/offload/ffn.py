"""Computes the experts of a layer as they arrive, with one result whatever the order.

The rows of each expert and the sum of a token's experts are laid out from the choice alone. What
is computed therefore does not depend on which experts were there first, nor in which slots they
lie: the same bits come out as with every expert on the device.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from specmd_jax.core.interned import Interned
from specmd_jax.models.decoder import Gate
from specmd_jax.models.experts.blocks import Rows, Weights, fill_blocks
from specmd_jax.models.experts.dispatch import BlockPlan, combine_blocks, plan_blocks
from specmd_jax.models.experts.dispatch import lay_out as lay_out_rows
from specmd_jax.runtime.offload.pages import Memory, arrived, read, written
from specmd_jax.runtime.offload.store import Packing
from specmd_kernels import Activation, Implementation


class FfnSpec(NamedTuple):
    """How the experts of a tier are read and computed."""

    packing: Packing
    activation: Activation
    implementation: Implementation | None = None  # of `slot_ffn`; None: the platform's


class Blocks(NamedTuple):
    """The rows of a layer, sorted by expert, and what has been made of them."""

    plan: BlockPlan
    rows: Rows


class InSlots(NamedTuple):
    """What is left to compute of a layer: experts that are in slots."""

    memory: Memory
    pages: Int[Array | np.ndarray, "N pages"]  # of each expert
    due: Bool[Array | np.ndarray, " N"]


class InRow(NamedTuple):
    """What is left to compute of a layer: one expert, in the row in which it arrived."""

    row: Shaped[Array | np.ndarray, " P"]
    expert: Int[Array | np.ndarray, ""] | np.int32


def lay_out(gate: Gate) -> Blocks:
    """Returns the rows of a layer with nothing computed; to be traced."""
    plan = plan_blocks(gate.ids, gate.logits.shape[-1])
    return Blocks(plan, lay_out_rows(gate.hidden, plan))


def compute_resident(spec: FfnSpec, blocks: Blocks, left: InSlots) -> Blocks:
    """Returns the blocks with those of experts in slots computed; to be traced."""
    expert = blocks.plan.expert
    weights = read(spec.packing, left.memory, jnp.asarray(left.pages)[expert])
    return _compute(spec, blocks, jnp.asarray(left.due)[expert], weights)


def compute_arrived(spec: FfnSpec, blocks: Blocks, left: InRow) -> Blocks:
    """Returns the blocks with those of one expert computed, from where it arrived; traced."""
    weights = arrived(spec.packing, left.row, blocks.plan.expert.shape[0])
    return _compute(spec, blocks, blocks.plan.expert == left.expert, weights)


def combine(blocks: Blocks, weights: Float[Array, "T K"]) -> Float[Array, "T H"]:
    """Returns the weighted sum of each token's experts, all of them computed; to be traced."""
    return combine_blocks(blocks.rows.out, blocks.plan, weights)


def _compute(
    spec: FfnSpec, blocks: Blocks, due: Bool[Array, " blocks"], weights: Weights
) -> Blocks:
    due = due & (jnp.arange(due.shape[0]) < blocks.plan.used)
    order = jnp.argsort(~due, stable=True)
    out = fill_blocks(
        weights, blocks.rows, order, jnp.sum(due), spec.activation, spec.implementation
    )
    return blocks._replace(rows=blocks.rows._replace(out=out))


def arrive(
    spec: FfnSpec,
    blocks: Blocks,
    left: InRow,
    memory: Memory | None,
    pages: Int[Array | np.ndarray, " pages"] | None,
) -> tuple[Blocks, Memory | None]:
    """Returns the blocks with those of an arrived expert computed, and the slots with it; traced.

    Args:
      spec: how it is read and computed.
      blocks: of the layer.
      left: the expert.
      memory: of the slots; None: it is not kept.
      pages: of the expert.
    """
    blocks = compute_arrived(spec, blocks, left)
    if memory is None or pages is None:
        return blocks, memory
    return blocks, written(spec.packing, memory, left.row, jnp.asarray(pages))


def finish_layer(
    spec: FfnSpec, blocks: Blocks, weights: Float[Array, "T K"], left: InSlots | InRow
) -> Float[Array, "T H"]:
    """Returns what a layer's experts make of its tokens; to be traced.

    The same as computing and combining one after the other, to the last bit.

    Args:
      spec: how those that are left are read and computed.
      blocks: of the layer, all computed but theirs.
      weights: of each token's choice.
      left: which they are, and where.
    """
    if isinstance(left, InSlots):
        computed = compute_resident(spec, blocks, left)
    else:
        computed = compute_arrived(spec, blocks, left)
    return barrier(combine(barrier(computed), weights))


barrier = jax.lax.optimization_barrier  # where programs of their own would be cut

lay_out_now = jax.jit(lay_out)
combine_now = jax.jit(combine)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def compute_resident_now(ffn: Interned[FfnSpec], blocks: Blocks, left: InSlots) -> Blocks:
    """See `compute_resident`; the memory of the blocks is reused."""
    return compute_resident(ffn.value, blocks, left)


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 3))
def arrive_now(
    ffn: Interned[FfnSpec],
    blocks: Blocks,
    left: InRow,
    memory: Memory | None,
    pages: Int[Array | np.ndarray, " pages"] | None,
) -> tuple[Blocks, Memory | None]:
    """See `arrive`; the memory of the blocks and of the slots is reused.

    Args:
      ffn: how the expert is read and computed.
      blocks: of the layer.
      left: the expert.
      memory: of the slots; None: it is not kept.
      pages: of the expert.
    """
    return arrive(ffn.value, blocks, left, memory, pages)
