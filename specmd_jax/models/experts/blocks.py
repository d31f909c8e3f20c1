"""Computing blocks of rows that share an expert: by the kernel where there is one, else by XLA.

What becomes of a row depends on the row and its expert alone. So it does not matter which blocks
are computed together, nor where the weights lie: the same bits come out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.models.experts.quantize import PackedExpert
from specmd_jax.models.experts.weights import ExpertWeights, apply_expert
from specmd_kernels import Activation, Implementation, Slots, preferred, slot_ffn


class Weights(NamedTuple):
    """Where the weights of each block are."""

    expert_of: Callable[[Int[Array, ""]], ExpertWeights]  # of a block
    stack: Slots | None  # the same in a buffer that a kernel can read in place
    slot: Int[Array, " blocks"]  # in that buffer


class Rows(NamedTuple):
    """The rows of a layer, laid out in blocks, and what has been made of them."""

    hidden: Float[Array, "blocks rows H"]
    real: Bool[Array, "blocks rows"]  # not padding
    out: Float[Array, "blocks rows H"]


def fill_blocks(
    weights: Weights,
    rows: Rows,
    order: Int[Array, " blocks"],
    count: Int[Array, ""],
    activation: Activation,
    implementation: Implementation | None = None,
) -> Float[Array, "blocks rows H"]:
    """Returns `rows.out` with some blocks computed; the others cost nothing. To be traced.

    It has no reverse-mode derivative.

    Args:
      weights: of the blocks.
      rows: of the layer.
      order: blocks, those to compute first.
      count: how many of them to compute.
      activation: of the experts.
      implementation: of `slot_ffn`; None: the platform's kernel, if it has one.
    """
    kernel = implementation or preferred()
    if kernel is not None and kernel != "xla" and weights.stack is not None:
        try:
            return _by_kernel(weights.stack, weights.slot, rows, order, count, activation, kernel)
        except NotImplementedError:
            pass  # XLA declines nothing

    def fill(number: Array, out: Array) -> Array:
        block = order[number]
        made = apply_expert(weights.expert_of(block), rows.hidden[block], activation)
        return jax.lax.dynamic_update_index_in_dim(out, made.astype(out.dtype), block, 0)

    return jax.lax.fori_loop(0, count, fill, rows.out)


def _by_kernel(
    stack: Slots,
    slot: Int[Array, " blocks"],
    rows: Rows,
    order: Int[Array, " blocks"],
    count: Int[Array, ""],
    activation: Activation,
    kernel: Implementation,
) -> Float[Array, "blocks rows H"]:
    """Gives each row to the kernel as a token of its own, which one expert computes."""
    due = jnp.zeros(slot.shape, bool).at[order].set(jnp.arange(slot.shape[0]) < count)
    wanted = jnp.where(due[:, None] & rows.real, slot[:, None], -1).reshape(-1, 1)
    made = slot_ffn(
        rows.hidden.reshape(wanted.shape[0], -1),
        wanted,
        jnp.ones(wanted.shape, jnp.float32),
        stack,
        activation=activation,
        implementation=kernel,
    )
    return jnp.where(due[:, None, None], made.reshape(rows.out.shape), rows.out)


def as_stack(
    experts: ExpertWeights | PackedExpert, compute: jnp.dtype | np.dtype | type
) -> Slots | None:
    """Returns experts, [S, ...], as the kernel takes them; None if it would have to convert them.

    Args:
      experts: in floats or packed.
      compute: dtype of the weights as they are computed with.
    """
    scales: tuple[Any, Any] = None, None
    matrices: tuple[Any, Any] = experts.gate_up, experts.down
    if isinstance(experts, PackedExpert):
        scales = experts.gate_up.scales, experts.down.scales
        matrices = experts.gate_up.codes, experts.down.codes
    if scales[0] is None and matrices[0].dtype != compute:
        return None
    biases: tuple[Any, Any] = experts.gate_up_bias, experts.down_bias
    return Slots(*matrices, *scales, *biases)
