"""The few numbers that are not plain integers: float32, fixed point, and the counter hash."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

f32 = np.float32
LIMIT = 1 << 30
MASK = (1 << 32) - 1


def fixed(x: np.float32, bits: int) -> int:
    """Returns x * 2^bits as the nearest integer, halves to even, clipped to +-2^30."""
    if math.isnan(x):
        raise ValueError("a score is not a number")
    return round(min(max(float(x) * 2**bits, -LIMIT), LIMIT))


def share(part: int | np.float32, whole: int) -> np.float32:
    """Returns part / whole, as the product of two float32."""
    return f32(part) * (f32(1) / f32(whole))


def fmix32(h: int) -> int:
    """Returns the finalizer of MurmurHash3 of a 32-bit integer."""
    h ^= h >> 16
    h = h * 0x85EBCA6B & MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def hash_of(seed: int, event: int, place: int, expert: int) -> int:
    """Returns 32 bits drawn for one expert at one event."""
    mixed = seed * 0x9E3779B9 ^ event * 0x85EBCA6B ^ place * 0xC2B2AE35 ^ expert * 0x27D4EB2F
    return fmix32(mixed & MASK)


def by_value(values: Sequence[int] | Mapping[int, int]) -> list[int]:
    """Returns the keys (experts) by falling value; ties: the lower expert first."""
    keys = values.keys() if isinstance(values, Mapping) else range(len(values))
    return sorted(keys, key=lambda key: (-values[key], key))


def with_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a policy, those not given at their defaults."""
    unknown = given.keys() - defaults.keys()
    if unknown:
        raise ValueError(f"unknown parameters {sorted(unknown)}, known are {sorted(defaults)}")
    return {**defaults, **given}
