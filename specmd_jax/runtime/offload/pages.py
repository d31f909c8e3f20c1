"""The memory of all slots: how a copy is written to it, and read by what computes.

Where all copies are of one precision, each array of an expert has a buffer of its own, [U, ...],
which a kernel reads in place. Copies of several precisions share pages of bytes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Shaped

from specmd_jax.core.interned import Interned
from specmd_jax.models.experts.blocks import Weights, as_stack
from specmd_jax.models.experts.quantize import PackedExpert
from specmd_jax.models.experts.weights import ExpertWeights
from specmd_jax.runtime.offload.store import Packing

Memory = Shaped[Array, "U page"] | ExpertWeights | PackedExpert


def allot(packings: tuple[Packing, ...], num_pages: int, size: int) -> Memory:
    """Returns the memory of all slots, with nothing in it.

    Args:
      packings: of the tiers.
      num_pages: U.
      size: of a page, in the numbers of a row; where there is one tier, a copy is a page.
    """
    if len(packings) == 1:
        return packings[0].empty(num_pages)
    return jnp.zeros((num_pages, size), packings[0].row)


def written(
    packing: Packing,
    memory: Memory,
    row: Shaped[Array | np.ndarray, " P"],
    pages: Integer[Array, " pages"],
) -> Memory:
    """Returns the memory with a row written to some pages; to be traced.

    Args:
      packing: of the row.
      memory: of all slots.
      row: a copy of an expert.
      pages: that it takes.
    """
    if isinstance(memory, jax.Array):
        parts = row.reshape(pages.shape[0], -1)
        return memory.at[pages].set(parts, unique_indices=True)
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_index_in_dim(whole, part, pages[0], 0),
        memory,
        packing.parts(row),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def write_now(packing: Interned[Packing], memory: Memory, *args: Any) -> Memory:
    """See `written`; the memory is reused."""
    return written(packing.value, memory, *args)


def read(packing: Packing, memory: Memory, pages: Int[Array, "blocks pages"]) -> Weights:
    """Returns the weights of the expert of each block; to be traced.

    Args:
      packing: of the copies that are read.
      memory: of all slots.
      pages: of each block's expert.
    """
    if isinstance(memory, jax.Array):

        def in_pages(block: Array) -> ExpertWeights:
            return packing.to_compute(packing.parts(memory[pages[block]].reshape(-1)))

        return Weights(in_pages, None, pages[:, 0])

    def in_buffers(block: Array) -> ExpertWeights:
        page = pages[block, 0]
        one = jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, page, keepdims=False), memory
        )
        return packing.to_compute(one)

    return Weights(in_buffers, as_stack(memory, packing.compute), pages[:, 0])


def arrived(packing: Packing, row: Shaped[Array | np.ndarray, " P"], blocks: int) -> Weights:
    """Returns the weights of one expert, in the row it arrived in, for every block; traced."""
    parts = packing.parts(row)
    expert = packing.to_compute(parts)
    alone = jax.tree.map(lambda leaf: leaf[None], parts)
    slot = jnp.zeros(blocks, jnp.int32)
    return Weights(lambda block: expert, as_stack(alone, packing.compute), slot)
