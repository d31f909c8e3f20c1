"""The two products in bfloat16 by Mosaic GPU, for Hopper: TMA brings tiles, wgmma multiplies."""

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, BFloat16, Int

from specmd_kernels.slot_ffn.slots import Activation, Slots

ROWS = 64, 128  # of a block, few and many: wgmma has 64 rows or a multiple
DEPTH = 64  # inputs of a tile: 128 bytes, what a swizzle spans
STAGES = 4  # tiles on their way: enough bytes in flight to fill the memory's pipe


def gated_product(
    activation: Activation,
    x: BFloat16[Array, "blocks rows H"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    experts: Slots,
    interpret: Any,
) -> BFloat16[Array, "blocks rows F"]:
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
    columns = _columns(width, (64,) if x.shape[1] > ROWS[0] else (128, 64))
    offsets = 0, width // columns
    call = partial(_tiles, activation, offsets, columns, width)
    return call(x, slot, used, experts.gate_up, experts.gate_up_bias, interpret)


def product(
    x: BFloat16[Array, "blocks rows F"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    experts: Slots,
    interpret: Any,
) -> BFloat16[Array, "blocks rows H"]:
    """Returns x @ down with the expert of each block.

    Args:
      x: rows of each block.
      slot: of the expert of each block.
      used: blocks to compute, the first ones.
      experts: the buffer of slots.
      interpret: what the call of the kernel takes.
    """
    size = experts.down.shape[2]
    columns = _columns(size, (128, 64))
    call = partial(_tiles, lambda total: total, (0,), columns, size)
    return call(x, slot, used, experts.down, experts.down_bias, interpret)


def _columns(width: int, choices: Sequence[int]) -> int:
    return next(columns for columns in choices if width % columns == 0)


def _tiles(
    epilogue,
    offsets: Sequence[int],
    columns: int,
    width: int,
    x: BFloat16[Array, "blocks rows in"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    weights: BFloat16[Array, "S in out"],
    bias: Array | None,
    interpret: Any,
) -> BFloat16[Array, "blocks rows width"]:
    """Returns epilogue(sums), one sum for each of `offsets`, in tiles of columns."""
    blocks, rows, _ = x.shape

    def kernel(slot_ref, used_ref, x_ref, weights_ref, *refs):
        *bias_ref, out_ref, tile_ref = refs
        block, column = jax.lax.axis_index("block"), jax.lax.axis_index("column")

        @pl.when(block < used_ref[0])
        def _():
            own = slot_ref[block]
            sums = _sums(x_ref.at[block], weights_ref.at[own], offsets, column, rows, columns)
            if bias is not None:
                starts = [(offset + column) * columns for offset in offsets]
                rows_of = partial(
                    _load_bias, bias_ref[0], own, columns=columns, interpret=interpret
                )
                sums = [
                    total + jax.lax.broadcast_in_dim(rows_of(start), total.shape, (1,))
                    for total, start in zip(sums, starts, strict=True)
                ]
            tile_ref[...] = epilogue(*sums).astype(tile_ref.dtype)
            plgpu.commit_smem()
            here = out_ref.at[block, :, pl.ds(column * columns, columns)]
            plgpu.copy_smem_to_gmem(tile_ref, here)
            plgpu.wait_smem_to_gmem(0)

    return plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct((blocks, rows, width), x.dtype),
        scratch_types=[plgpu.SMEM((rows, columns), x.dtype, transforms=_transforms())],
        grid=(blocks, width // columns),
        grid_names=("block", "column"),
        compiler_params=plgpu.CompilerParams(),
        interpret=interpret,
        kernel_name="slot_ffn",
    )(slot, used[None], x, weights, *([] if bias is None else [bias.astype(jnp.float32)]))


def _sums(
    x_ref, weights_ref, offsets: Sequence[int], column: Array, rows: int, columns: int
) -> Sequence[Array]:
    """Returns x @ weights for the tile of columns behind each offset, in float32."""

    def accumulate(*sum_refs):
        def step(_, x_tile, *weight_tiles):
            for sum_ref, tile in zip(sum_refs, weight_tiles, strict=True):
                plgpu.wgmma(sum_ref, x_tile, tile)
            plgpu.wgmma_wait(len(sum_refs))  # all but this step's: the tiles before are free

        def tile(shape: tuple[int, int], index) -> plgpu.BlockSpec:
            return plgpu.BlockSpec(shape, index, transforms=_transforms(), delay_release=1)

        plgpu.emit_pipeline(
            step,
            grid=(x_ref.shape[1] // DEPTH,),
            in_specs=[
                tile((rows, DEPTH), lambda k: (0, k)),
                *(
                    tile((DEPTH, columns), lambda k, offset=offset: (k, offset + column))
                    for offset in offsets
                ),
            ],
            max_concurrent_steps=STAGES,
        )(x_ref, *[weights_ref] * len(offsets))
        plgpu.wgmma_wait(0)
        return [sum_ref[...] for sum_ref in sum_refs]

    return pl.run_scoped(
        accumulate, *[plgpu.WGMMAAccumulatorRef((rows, columns), jnp.float32)] * len(offsets)
    )


def _load_bias(bias_ref, slot: Array, start: Array, *, columns: int, interpret: Any) -> Array:
    here = slot, pl.ds(start, columns)
    if interpret:  # the interpreter knows no layouts
        return bias_ref[here]
    # Before JAX 0.12 the index is an argument of its own, and must be given.
    index: list[Any] = [()] if "idx" in signature(plgpu.load).parameters else []
    layout = plgpu.Layout.WGMMA.reduce(0)
    return plgpu.load(bias_ref.at[here], *index, layout=layout, optimized=False)


def _transforms() -> tuple:
    return plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)
