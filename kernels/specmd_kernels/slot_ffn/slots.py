"""The slot buffer, its packed formats, and the activation of an expert.

A packed weight has b = 8, 4 or 2 bits; which, follows from the shapes. 64 weights of a column,
consecutive along the input, share a scale s, and a code c stands for (c - 2^(b-1) + 1/2) s. Byte r
of a group holds its weights r, r + 8 b, r + 16 b, ..., the first in the lowest bits: unpacking
moves whole rows, never lanes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float, Int, Shaped, UInt8

GROUP = 64  # weights that share a scale


class Slots(NamedTuple):
    """S slots, an expert in each; in floats, or packed where there are scales."""

    gate_up: Shaped[Array, "S rows 2F"]  # gate in the first half; rows = H, or H * b / 8 bytes
    down: Shaped[Array, "S rows H"]
    gate_up_scales: BFloat16[Array, "S groups 2F"] | None = None
    down_scales: BFloat16[Array, "S groups H"] | None = None
    gate_up_bias: Float[Array, "S 2F"] | None = None  # gpt-oss alone has biases
    down_bias: Float[Array, "S H"] | None = None

    @property
    def bits(self) -> int | None:
        """Bits of a packed weight; None for floats."""
        if self.gate_up_scales is None:
            return None
        return self.gate_up.shape[-2] * 8 // (self.gate_up_scales.shape[-2] * GROUP)


class Activation(NamedTuple):
    """act(gate) * (up + offset), where act(g) = g * sigmoid(slope * g). Static under `jit`."""

    limit: float | None = None  # gate is cut from above, up on both sides
    slope: float = 1.0
    offset: float = 0.0

    def __call__(
        self, gate: Float[Array, "*rows F"], up: Float[Array, "*rows F"]
    ) -> Float[Array, "*rows F"]:
        if self.limit is not None:
            gate = jnp.minimum(gate, self.limit)
            up = jnp.clip(up, -self.limit, self.limit)
        return gate * jax.nn.sigmoid(self.slope * gate) * (up + self.offset)


SWIGLU = Activation()  # arXiv 2002.05202
GPT_OSS = Activation(limit=7.0, slope=1.702, offset=1.0)  # arXiv 2508.10925, §2


def pick(slots: Slots, index: Int[Array, "*many"]) -> Slots:
    """Returns the experts in the slots `index`."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), slots)


def unpack(
    codes: UInt8[Array, "*many rows out"], scales: Float[Array, "*many groups out"]
) -> Float[Array, "*many in out"]:
    """Returns packed weights as float32, exactly."""
    *many, groups, outputs = scales.shape
    size = codes.shape[-2] // groups  # bytes of a group and column
    bits = 8 * size // GROUP
    whole = codes.astype(jnp.int32).reshape(*many, groups, size, outputs)
    parts = [(whole >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    levels = jnp.concatenate(parts, axis=-2).astype(jnp.float32) - (2 ** (bits - 1) - 0.5)
    weights = levels * scales.astype(jnp.float32)[..., None, :]
    return weights.reshape(*many, groups * GROUP, outputs)


def matrix(
    weights: Shaped[Array, "*many rows out"],
    scales: Float[Array, "*many groups out"] | None,
    dtype: Any,
) -> Float[Array, "*many in out"]:
    """Returns weights, packed or not, as what a matrix product takes."""
    return (weights if scales is None else unpack(weights, scales)).astype(dtype)
