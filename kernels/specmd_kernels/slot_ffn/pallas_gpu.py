"""Two kernels for GPU: a tile of `activation(x @ gate_up)`, then a tile of `act @ down`.

Every program computes one tile of columns for one block of rows and reads its part of the block's
expert from the slot: many programs share the reading of one expert, which one alone could not do
fast enough. Weights in bfloat16 go through Mosaic GPU; float32 and packed ones through Triton,
which JAX 0.11 deprecates: Mosaic GPU has no product of float32, and takes no weights that were
unpacked into registers on the right-hand side.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_kernels.slot_ffn import gpu_mosaic, gpu_triton
from specmd_kernels.slot_ffn.plan import combine, gather, make_plan
from specmd_kernels.slot_ffn.slots import GROUP, Activation, Slots


def slot_ffn(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
    *,
    interpret: Any = False,
) -> Float[Array, "T H"]:
    """See `api.slot_ffn`; `interpret` is what `pallas_call` or `plgpu.kernel` takes.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
      interpret: what `pallas_call` or `plgpu.kernel` takes.
    """
    size, width = hidden.shape[1], experts.gate_up.shape[2] // 2
    if size % GROUP or width % GROUP:
        raise NotImplementedError(f"sizes must be multiples of {GROUP}, got {size} and {width}")
    if hidden.dtype not in (jnp.float32, jnp.bfloat16):
        raise NotImplementedError(f"hidden must be float32 or bfloat16, got {hidden.dtype}")
    mosaic = hidden.dtype == jnp.bfloat16 and experts.gate_up.dtype == jnp.bfloat16
    backend = gpu_mosaic if mosaic else gpu_triton
    few, many = backend.ROWS
    pairs_a_slot = slots.size / experts.down.shape[0]
    plan = make_plan(slots, experts.down.shape[0], many if pairs_a_slot > few else few)
    x = gather(hidden, plan)
    act = backend.gated_product(activation, x, plan.slot, plan.used, experts, interpret)
    out = backend.product(act, plan.slot, plan.used, experts, interpret)
    return combine(out, plan, weights)
