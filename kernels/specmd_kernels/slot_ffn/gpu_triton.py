"""The two products by Triton: for float32, and for packed weights, unpacked in registers."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jaxtyping import Array, Float, Int

from specmd_kernels.slot_ffn.slots import GROUP, Activation, Slots

ROWS = 16, 64  # of a block, few and many: tl.dot has 16 rows at least
COLUMNS = 64
COMPILER = pltriton.CompilerParams(num_warps=4, num_stages=3)


def gated_product(
    activation: Activation,
    x: Float[Array, "blocks rows H"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    experts: Slots,
    interpret: Any,
) -> Float[Array, "blocks rows F"]:
    """Returns activation(x @ gate, x @ up) with the expert of each block.

    Args:
      activation: of the experts.
      x: rows of each block.
      slot: of the expert of each block.
      used: blocks to compute, the first ones.
      experts: the buffer of slots.
      interpret: what the call of the kernel takes.
    """
    width = experts.gate_up.shape[2] // 2
    refs = experts.gate_up, experts.gate_up_scales, experts.gate_up_bias
    return _tiles(activation, (0, width), width, x, slot, used, refs, interpret)


def product(
    x: Float[Array, "blocks rows F"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    experts: Slots,
    interpret: Any,
) -> Float[Array, "blocks rows H"]:
    """Returns x @ down with the expert of each block.

    Args:
      x: rows of each block.
      slot: of the expert of each block.
      used: blocks to compute, the first ones.
      experts: the buffer of slots.
      interpret: what the call of the kernel takes.
    """
    refs = experts.down, experts.down_scales, experts.down_bias
    return _tiles(lambda total: total, (0,), experts.down.shape[2], x, slot, used, refs, interpret)


def _tiles(
    epilogue,
    offsets: tuple[int, ...],
    width: int,
    x: Float[Array, "blocks rows in"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    weights: tuple[Array, Array | None, Array | None],
    interpret: Any,
) -> Float[Array, "blocks rows width"]:
    """Returns epilogue(sums), one sum for each of `offsets`, in tiles of columns."""
    blocks, rows, _ = x.shape
    return pl.pallas_call(
        partial(_kernel, epilogue, offsets),
        grid=(blocks, width // COLUMNS),
        out_specs=pl.BlockSpec((1, rows, COLUMNS), lambda block, column: (block, 0, column)),
        out_shape=jax.ShapeDtypeStruct((blocks, rows, width), x.dtype),
        compiler_params=COMPILER,
        interpret=interpret,
        name="slot_ffn",
    )(slot, used[None], x, weights)


def _kernel(epilogue, offsets: tuple[int, ...], slot_ref, used_ref, x_ref, weights, out_ref):
    block, start = pl.program_id(0), pl.program_id(1) * COLUMNS

    @pl.when(block < used_ref[0])
    def _():
        own = slot_ref[block]
        zeros = jnp.zeros(out_ref.shape[1:], jnp.float32)

        def add(group: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(
                total + _group_product(x_ref, weights, block, own, group, offset + start)
                for total, offset in zip(sums, offsets, strict=True)
            )

        sums = jax.lax.fori_loop(0, x_ref.shape[2] // GROUP, add, (zeros,) * len(offsets))
        if weights[2] is not None:
            sums = [
                total + weights[2][own, pl.ds(offset + start, COLUMNS)].astype(jnp.float32)[None]
                for total, offset in zip(sums, offsets, strict=True)
            ]
        out_ref[0] = epilogue(*sums).astype(out_ref.dtype)


def _group_product(x_ref, weights, block: Array, slot: Array, group: Array, start: Array) -> Array:
    """Returns the share of one group of inputs in the sum of a tile of columns.

    Parts of a byte multiply different columns of x: they are multiplied one part after the other,
    for Triton cannot join two arrays.
    """
    values_ref, scales_ref, _ = weights
    columns = pl.ds(start, COLUMNS)
    if scales_ref is None:
        inputs = pl.ds(group * GROUP, GROUP)
        return _dot(x_ref[block, :, inputs], values_ref[slot, inputs, columns])
    size = values_ref.shape[1] // scales_ref.shape[1]  # bytes of a group and column
    bits = 8 * size // GROUP
    codes = values_ref[slot, pl.ds(group * size, size), columns].astype(jnp.int32)
    scale = scales_ref[slot, group, columns].astype(jnp.float32)[None]
    total = jnp.zeros((x_ref.shape[1], COLUMNS), jnp.float32)
    for part in range(8 // bits):
        level = ((codes >> (part * bits)) & (2**bits - 1)).astype(jnp.float32)
        own = (level - (2 ** (bits - 1) - 0.5)) * scale
        x = x_ref[block, :, pl.ds(group * GROUP + part * size, size)]
        total += _dot(x, own.astype(x.dtype))
    return total


def _dot(x: Array, weights: Array) -> Array:
    exact = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.dot(x, weights.astype(x.dtype), precision=exact, preferred_element_type=jnp.float32)
