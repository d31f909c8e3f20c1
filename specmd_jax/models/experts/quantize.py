"""Precision tiers of the routed experts: what the host keeps and a slower link carries.

The int formats share one scale among 64 weights of a column, consecutive along the input. A
weight w of a group with scale s is stored as c = floor(w / s) + 2^(b-1), in b bits, and read back
as (c - 2^(b-1) + 1/2) s: the middle of its step, so no weight is off by more than s / 2. Levels
lie symmetrically around zero, half a step off it, and all 2^b are used; int2 with a level at zero
would have three. A group of zeros alone has scale 0 and stays exact.

Source: the uniform mid-rise quantiser (Gersho & Gray 1992, §5.4); groups of 64 as GPTQ, HQQ and
MLX have them. `ModelSpec.expert_bytes(precision, with_scales=True)` says what an expert takes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, BFloat16, Float, Shaped, UInt8

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name
from specmd_jax.models.experts.weights import ExpertWeights
from specmd_kernels.slot_ffn.slots import GROUP, matrix

_FLOATS = {"fp32": np.float32, "bf16": ml_dtypes.bfloat16}
_INTS = {"int8": 8, "int4": 4, "int2": 2}  # bits a weight
PRECISIONS = (*_FLOATS, *_INTS)
_LEAST_SCALE = 2.0**-125  # half of it is still a normal float32: devices flush smaller ones to 0


class PackedMatrix(NamedTuple):
    """A matrix in one of `PRECISIONS`, or many along leading axes.

    The b bits of a weight follow from the shapes. Byte r of a group holds its weights r,
    r + 8 b, r + 16 b, ..., the first in the lowest bits: so unpacking moves whole rows, and a
    group can be read without its neighbours.
    """

    codes: Shaped[Array | np.ndarray, "*many rows out"]  # uint8 [in * b / 8]; a float as it is
    scales: BFloat16[Array | np.ndarray, "*many groups out"] | None = None  # None for a float


class PackedExpert(NamedTuple):
    """What `ExpertWeights` holds, in one of `PRECISIONS`; on the device or on the host."""

    gate_up: PackedMatrix
    down: PackedMatrix
    gate_up_bias: Float[Array | np.ndarray, "*many 2F"] | None = None
    down_bias: Float[Array | np.ndarray, "*many H"] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def quantize(weights: ExpertWeights, precision: str) -> PackedExpert:
    """Returns experts in another precision, as host arrays; biases keep 16 bits at least.

    Args:
      weights: of one expert, or of many along leading axes.
      precision: one of `PRECISIONS`.

    Raises:
      InputError: the precision is unknown, an input is not a multiple of 64 wide, or a weight is
        NaN or infinite.
    """
    precision = find_name(precision, PRECISIONS, f"unknown precision {precision!r}")
    host: Any = jax.tree.map(np.asarray, weights)
    return PackedExpert(
        _packed(host.gate_up, precision),
        _packed(host.down, precision),
        *_cast(host[2:], _FLOATS.get(precision, _FLOATS["bf16"])),
    )


def dequantize(packed: PackedExpert, dtype: Any) -> ExpertWeights:
    """Returns the weights to compute with; jittable, and alike on every device to the last bit.

    A code times its scale is exact in float32, so the only rounding is the one to `dtype`.

    Args:
      packed: of one expert, or of many along leading axes.
      dtype: of the weights and biases.
    """
    return ExpertWeights(
        _floats(packed.gate_up, dtype),
        _floats(packed.down, dtype),
        *_cast(packed[2:], dtype),
    )


def _floats(packed: PackedMatrix, dtype: Any) -> Float[Array, "*many in out"]:
    codes, scales = jax.tree.map(jnp.asarray, packed)
    return matrix(codes, scales, dtype)


def _cast(biases: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda bias: bias.astype(dtype), biases)


def _packed(matrix: Shaped[np.ndarray, "*many in out"], precision: str) -> PackedMatrix:
    if precision in _FLOATS:
        return PackedMatrix(matrix.astype(_FLOATS[precision], copy=False))
    bits = _INTS[precision]
    *many, inputs, outputs = matrix.shape
    if inputs % GROUP:
        raise InputError(
            f"{precision} shares a scale among {GROUP} inputs, and an expert's matrix has "
            f"{inputs}: give sizes that are multiples of {GROUP}, or use bf16"
        )
    groups = inputs // GROUP
    codes = np.empty((*many, groups, GROUP * bits // 8, outputs), np.uint8)
    scales = np.empty((*many, groups, outputs), ml_dtypes.bfloat16)
    grouped = matrix.reshape(*many, groups, GROUP, outputs)
    for group in np.ndindex(*many, groups):  # one by one: they stay in the processor's cache
        codes[group], scales[group] = _packed_group(grouped[group], bits)
    return PackedMatrix(codes.reshape(*many, -1, outputs), scales)


def _packed_group(
    weights: Shaped[np.ndarray, "group out"], bits: int
) -> tuple[UInt8[np.ndarray, "bytes out"], BFloat16[np.ndarray, " out"]]:
    weights = weights.astype(np.float32)
    peak = np.abs(weights).max(axis=0)
    if not np.isfinite(peak).all():
        raise InputError("an expert's weights hold NaN or infinity: is the checkpoint whole?")
    half = 1 << (bits - 1)
    scale = _rounded_up(np.where(peak > 0, np.maximum(peak / half, _LEAST_SCALE), 0))
    steps = np.floor(weights / np.where(peak > 0, scale, 1)) + half
    codes = np.minimum(steps, 2 * half - 1).astype(np.uint8)  # a peak may end the last step
    parts = codes.reshape(8 // bits, GROUP * bits // 8, -1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed = np.bitwise_or.reduce(parts << shifts[:, None, None], axis=0)
    return packed, scale.astype(ml_dtypes.bfloat16)


def _rounded_up(scale: Shaped[np.ndarray, " out"]) -> Float[np.ndarray, " out"]:
    """Returns the least bfloat16 values that are not below: a peak then lies within the steps."""
    bits = scale.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
