"""What `slot_ffn` means, in plain numpy: one pair of token and slot after the other."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from specmd_kernels.slot_ffn.slots import GROUP, Activation, Slots


def slot_ffn(
    activation: Activation,
    hidden: Float[Array, "T H"],
    slots: Int[Array, "T K"],
    weights: Float[Array, "T K"],
    experts: Slots,
) -> Shaped[np.ndarray, "T H"]:
    """See `api.slot_ffn`; weights and activations are rounded to the type of `hidden`.

    Args:
      activation: of the experts.
      hidden: tokens at the gate.
      slots: of the chosen experts, -1 for none.
      weights: of each choice.
      experts: the buffer of slots.
    """
    dtype = hidden.dtype
    total = np.zeros(hidden.shape, np.float32)
    for token, choice in np.argwhere(np.asarray(slots) >= 0):
        slot = slots[token, choice]
        row = np.asarray(hidden[token], np.float32)
        gate_up = _rounded(_matrix(experts.gate_up, experts.gate_up_scales, slot), dtype)
        gate, up = np.split(row @ gate_up + _bias(experts.gate_up_bias, slot), 2)
        if activation.limit is not None:
            gate = np.minimum(gate, activation.limit)
            up = np.clip(up, -activation.limit, activation.limit)
        inner = gate / (1 + np.exp(-activation.slope * gate)) * (up + activation.offset)
        down = _rounded(_matrix(experts.down, experts.down_scales, slot), dtype)
        out = _rounded(inner, dtype) @ down + _bias(experts.down_bias, slot)
        total[token] += float(weights[token, choice]) * out
    return total.astype(dtype)


def _matrix(weights: Any, scales: Any, slot: Any) -> Float[np.ndarray, "in out"]:
    """Returns the weights in a slot: unpacked one group, one byte, one code at a time."""
    values = np.asarray(weights[slot])
    if scales is None:
        return values.astype(np.float32)
    groups, size = scales.shape[1], values.shape[0] // scales.shape[1]
    bits = 8 * size // GROUP
    found = np.empty((groups, GROUP, values.shape[1]), np.float32)
    for group in range(groups):
        scale = np.asarray(scales[slot, group], np.float32)
        for index in range(GROUP):
            byte = values[group * size + index % size]
            code = byte >> (index // size * bits) & (2**bits - 1)
            found[group, index] = (code - 2.0 ** (bits - 1) + 0.5) * scale
    return found.reshape(groups * GROUP, -1)


def _bias(bias: Any, slot: Any) -> Any:
    return 0.0 if bias is None else np.asarray(bias[slot], np.float32)


def _rounded(values: Float[np.ndarray, "..."], dtype: Any) -> Float[np.ndarray, "..."]:
    return values.astype(dtype).astype(np.float32)
