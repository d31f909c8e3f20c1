"""One kernel for TPU: a block's expert streams through fast memory once, in whole rows.

The grid is (block, step). The first steps add up `x @ gate_up`, a tile of input rows at a time;
then the activation; the last steps add up `act @ down` likewise. Which slot a tile comes from is
prefetched as a scalar, so the next tile is on its way while this one is multiplied, from one
matrix to the next and from one expert to the next. Tiles are whole rows, so the transfers are
contiguous and no width has to be a multiple of anything.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from specmd_kernels.slot_ffn.plan import combine, gather, make_plan
from specmd_kernels.slot_ffn.slots import GROUP, Activation, Slots, matrix

MOST_ROWS = 128  # of a block: as many as the matrix unit is high
TILE_BYTES = 4 << 20  # of weights as they are multiplied: enough to hide the cost of a step
VMEM_BYTES = 100 << 20


def slot_ffn(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
    *,
    interpret: bool = False,
) -> Float[Array, "T H"]:
    """See `api.slot_ffn`.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
      interpret: run it without the device.
    """
    if hidden.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"hidden must be float32 or bfloat16, got {hidden.dtype}")
    rows = min(MOST_ROWS, -(-hidden.shape[0] // 16) * 16)
    plan = make_plan(slots, experts.down.shape[0], rows)
    out = _blocks(activation, gather(hidden, plan), plan.slot, plan.used, experts, interpret)
    return combine(out, plan, weights)


def _blocks(
    activation: Activation,
    x: Float[Array, "blocks rows H"],
    slot: Int[Array, " blocks"],
    used: Int[Array, ""],
    experts: Slots,
    interpret: bool,
) -> Float[Array, "blocks rows H"]:
    blocks, rows, size = x.shape
    width = experts.gate_up.shape[-1] // 2
    up_tile = _tile(size, 2 * width * x.dtype.itemsize)
    down_tile = _tile(width, size * x.dtype.itemsize)
    up_steps, down_steps = size // up_tile, width // down_tile
    x = x.reshape(blocks, rows, up_steps, up_tile).swapaxes(1, 2)
    if experts.gate_up_bias is not None:  # a row of a matrix is no block; a matrix of one row is
        experts = experts._replace(
            gate_up_bias=experts.gate_up_bias[:, None], down_bias=_rows(experts.down_bias)
        )

    def block(b, step, slot, used):
        return jnp.minimum(b, jnp.maximum(used[0] - 1, 0)), jnp.minimum(step, up_steps - 1), 0, 0

    specs = _weight_specs(experts, up_steps, down_steps)
    return pl.pallas_call(
        partial(_kernel, activation, up_steps, down_steps),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(blocks, up_steps + down_steps),
            in_specs=[pl.BlockSpec((1, 1, rows, up_tile), block), specs],
            out_specs=pl.BlockSpec((1, rows, size), lambda b, *_: (b, 0, 0)),
            scratch_shapes=[
                pltpu.VMEM((rows, 2 * width), jnp.float32),
                pltpu.VMEM((down_steps, rows, down_tile), x.dtype),
                pltpu.VMEM((rows, size), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((blocks, rows, size), x.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
        name="slot_ffn",
    )(slot, used[None], x, experts)


def _weight_specs(experts: Slots, up_steps: int, down_steps: int) -> Slots:
    """Returns which part of which slot a step of the grid needs."""

    def whole(b, step, slot, used):
        return slot[b], 0, 0

    def up(b, step, slot, used):
        return slot[b], jnp.minimum(step, up_steps - 1), 0

    def down(b, step, slot, used):
        return slot[b], jnp.maximum(step - up_steps, 0), 0

    def spec(leaf: Array | None, steps: int, index) -> Any:
        if leaf is None:
            return None
        return pl.BlockSpec((1, leaf.shape[1] // steps, leaf.shape[2]), index)

    return Slots(
        spec(experts.gate_up, up_steps, up),
        spec(experts.down, down_steps, down),
        spec(experts.gate_up_scales, 1, whole),
        spec(experts.down_scales, 1, whole),
        spec(experts.gate_up_bias, 1, whole),
        spec(experts.down_bias, 1, whole),
    )


def _rows(bias: Array | None) -> Array | None:
    return None if bias is None else bias[:, None]


def _tile(inputs: int, row_bytes: int) -> int:
    """Returns the input rows of a tile, a divisor of all: whole groups, and lanes, if possible."""
    whole = [rows for rows in range(GROUP, inputs + 1, GROUP) if inputs % rows == 0] or [inputs]
    fitting = [rows for rows in whole if rows * row_bytes <= TILE_BYTES] or whole[:1]
    lanes = [rows for rows in fitting if rows % 128 == 0]
    return max(lanes or fitting)


def _kernel(
    activation: Activation,
    up_steps: int,
    down_steps: int,
    slot_ref,
    used_ref,
    x_ref,
    experts: Slots,
    out_ref,
    inner_ref,
    act_ref,
    total_ref,
):
    block, step = pl.program_id(0), pl.program_id(1)
    busy = block < used_ref[0]

    @pl.when(busy & (step == 0))
    def _():
        _start(inner_ref, experts.gate_up_bias)
        _start(total_ref, experts.down_bias)

    @pl.when(busy & (step < up_steps))
    def _():
        inner_ref[...] += _product(x_ref[0, 0], experts.gate_up, experts.gate_up_scales, step)

    @pl.when(busy & (step == up_steps - 1))
    def _():
        width = inner_ref.shape[1] // 2
        act = activation(inner_ref[:, :width], inner_ref[:, width:]).astype(act_ref.dtype)
        tile = act_ref.shape[2]
        for index in range(down_steps):
            act_ref[index] = act[:, index * tile : (index + 1) * tile]

    @pl.when(busy & (step >= up_steps))
    def _():
        index = step - up_steps
        total_ref[...] += _product(act_ref[index], experts.down, experts.down_scales, index)

    @pl.when(busy & (step == up_steps + down_steps - 1))
    def _():
        out_ref[0] = total_ref[...].astype(out_ref.dtype)


def _start(sum_ref, bias_ref) -> None:
    if bias_ref is None:
        sum_ref[...] = jnp.zeros_like(sum_ref)
    else:
        sum_ref[...] = jnp.broadcast_to(bias_ref[0].astype(jnp.float32), sum_ref.shape)


def _product(x: Float[Array, "rows tile"], weights_ref, scales_ref, step: Array) -> Array:
    scales = None
    if scales_ref is not None:
        scales = _own_scales(scales_ref[0], step, x.shape[1] // GROUP)
    return _dot(x, matrix(weights_ref[0], scales, x.dtype))


def _own_scales(scales: Float[Array, "groups out"], step: Array, own: int) -> Array:
    """Returns the `own` rows of a tile, by a product: Mosaic cuts out none at an odd place."""
    first = jax.lax.broadcasted_iota(jnp.int32, (own, scales.shape[0]), 0) + step * own
    here = jax.lax.broadcasted_iota(jnp.int32, first.shape, 1) == first
    return _dot(here.astype(scales.dtype), scales)


def _dot(left: Array, right: Array) -> Float[Array, "rows out"]:
    exact = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return jnp.dot(left, right, precision=exact, preferred_element_type=jnp.float32)
