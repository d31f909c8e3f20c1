"""Precisions of stored weights, and the bytes that so many weights take."""

from typing import NamedTuple

from specmd_jax.core.names import find_name


class Precision(NamedTuple):
    """How one weight is stored."""

    bits: int
    scale_bits: int = 0  # of the scale that a group shares
    group: int = 64  # weights that share one, as HQQ, GPTQ and MLX have it
    scales_included: bool = False  # the format is defined with its scales


PRECISIONS = {
    "fp32": Precision(32),
    "bf16": Precision(16),
    "fp16": Precision(16),
    "fp8": Precision(8),
    "int8": Precision(8, scale_bits=16),
    "int4": Precision(4, scale_bits=16),
    "int2": Precision(2, scale_bits=16),
    # OCP Microscaling: a block of 32 shares an 8-bit exponent, 4.25 bits a weight
    "mxfp4": Precision(4, scale_bits=8, group=32, scales_included=True),
}


def find_precision(name: str) -> str:
    """Returns the precision that `name` spells.

    Raises:
      InputError: there is none; the message lists the nearest, or all.
    """
    return find_name(name, PRECISIONS, f"unknown precision {name!r}")


def weight_bytes(num_weights: int, precision: str, *, with_scales: bool = False) -> int:
    """Returns the bytes of `num_weights` weights, rounded up.

    The plain size is bits / 8 a weight, the convention of SpecMD (§5.1, Table 3). Real int
    formats add a 16-bit scale per group of 64: 3.1 % at int8, 6.3 % at int4, 12.5 % at int2
    (a 16-bit zero point doubles that). `with_scales` counts the scales; mxfp4 always does.

    Raises:
      InputError: the precision is unknown.
    """
    kind = PRECISIONS[find_precision(precision)]
    bits = num_weights * kind.bits
    if with_scales or kind.scales_included:
        bits += -(-num_weights // kind.group) * kind.scale_bits
    return -(-bits // 8)
