"""Small array idioms that policies are written in: rows, fixed point, hashes, ranks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int64, Num, Real, UInt32

from specmd_jax.core.types import CacheState, ModelShape

SCORE_LIMIT = 1 << 30
LOW_BITS = 15  # of the lower of two words: as many as 2**16 of them add up in an int32


def row(values: Num[Array, "L ..."] | Bool[Array, "L ..."], layer: Int[Array, ""]) -> Array:
    """Returns `values[layer]`."""
    return jax.lax.dynamic_index_in_dim(values, layer, keepdims=False)


def with_row(
    values: Num[Array, "L ..."] | Bool[Array, "L ..."],
    layer: Int[Array, ""],
    new: Num[Array, "..."] | Bool[Array, "..."],
) -> Array:
    """Returns `values` with `values[layer] = new`; in place inside a scan, unlike a scatter."""
    return jax.lax.dynamic_update_index_in_dim(values, new.astype(values.dtype), layer, 0)


def positions(shape: ModelShape) -> Int[Array, "L N"]:
    """Returns layer * N + expert."""
    num_layers, num_experts, _ = shape
    return jnp.arange(num_layers * num_experts, dtype=jnp.int32).reshape(num_layers, num_experts)


def layers(shape: ModelShape) -> Int[Array, "L 1"]:
    """Returns the layer of each row, to broadcast over experts."""
    return jnp.arange(shape.num_layers, dtype=jnp.int32)[:, None]


def zeros(shape: ModelShape, dtype: jnp.dtype | type = jnp.int32) -> Array:
    """Returns an all-zero [L, N]."""
    return jnp.zeros((shape.num_layers, shape.num_experts), dtype)


def fixed(values: Float[Array, "..."], bits: int) -> Int[Array, "..."]:
    """Returns floats as integers of `bits` binary places, halves to even, within +-2**30.

    For each term of a sum, not for the sum: XLA may fuse a product with the addition after it,
    here and not there, and that rounds once instead of twice. Integers add up the same everywhere.
    """
    scaled = jnp.round(values * (1 << bits))
    return jnp.clip(scaled, -SCORE_LIMIT, SCORE_LIMIT).astype(jnp.int32)


def share(part: Num[Array, "..."], whole: Int[Array, ""] | int) -> Float[Array, "..."]:
    """Returns part / whole as a product: XLA divides an array by one number so, but not always."""
    return part.astype(jnp.float32) * (1 / jnp.asarray(whole, jnp.float32))


def hash_uniform(
    seed: Int[Array, ""] | int,
    clock: Int[Array, ""] | int,
    layer: Int[Array, "#L #N"] | Int[Array, ""] | int,
    expert: Int[Array, "#L #N"] | Int[Array, " N"],
) -> UInt32[Array, "..."]:
    """Returns 32 mixed bits of each (seed, clock, layer, expert): MurmurHash3's finaliser.

    A counter hash, not a key that is split along the way: any draw can be had without the others.

    Args:
      seed: of the policy that draws.
      clock: the event.
      layer, expert: which the draw is for.
    """

    def word(value, factor):
        return jnp.asarray(value).astype(jnp.uint32) * jnp.uint32(factor)

    x = word(seed, 0x9E3779B9) ^ word(clock, 0x85EBCA6B) ^ word(layer, 0xC2B2AE35)
    x = x ^ word(expert, 0x27D4EB2F)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def of_pool(values: Int[Array, " W"], layer: Int[Array, ""]) -> Int[Array, ""]:
    """Returns the value of the pool that `layer` draws on."""
    return values[0] if values.shape[0] == 1 else row(values, layer)


def shares_pool(cache: CacheState, layer: Int[Array, ""]) -> Bool[Array, "L 1"]:
    """Returns the layers that draw on the pool of `layer`, to broadcast over experts."""
    each = jnp.arange(cache.tier.shape[0], dtype=jnp.int32)[:, None]
    return jnp.ones_like(each, bool) if cache.one_pool else each == layer


def precedes(priority: Real[Array, " N"]) -> Bool[Array, "N N"]:
    """Returns whether expert j stands before expert i: higher priority, ties to the lower id."""
    expert = jnp.arange(priority.shape[0])
    mine, other = priority[:, None], priority[None, :]
    return (other > mine) | ((other == mine) & (expert[None, :] < expert[:, None]))


def ranks(priority: Real[Array, " N"]) -> Int[Array, " N"]:
    """Returns the place of each expert by falling priority, from 0; ties to the lower id."""
    return jnp.sum(precedes(priority), axis=1, dtype=jnp.int32)


def sum_before(values: Int[Array, " N"], priority: Real[Array, " N"]) -> Int[Array, " N"]:
    """Returns, for each expert, the sum of `values` over those that stand before it."""
    return jnp.sum(jnp.where(precedes(priority), values[None, :], 0), axis=1, dtype=jnp.int32)


def how_many_before(queued: Bool[Array, " N"], priority: Real[Array, " N"]) -> Int[Array, " N"]:
    """Returns how many of the queued stand before each expert; as a product of floats, exact."""
    before = precedes(priority).astype(jnp.float32)
    return jnp.dot(before, queued.astype(jnp.float32)).astype(jnp.int32)


def total(values: Int[Array, "..."] | Bool[Array, "..."]) -> Int[Array, ""]:
    """Returns the sum as int32; of a mask, how many."""
    if values.dtype == bool:  # floats count exactly so far, and the CPU adds them faster
        return jnp.sum(values.astype(jnp.float32)).astype(jnp.int32)
    return jnp.sum(values, dtype=jnp.int32)


def two_word_total(values: Int[Array, " L"]) -> Int[Array, "2"]:
    """Returns the sum, which int32 may not hold, as two words: high and low, see `joined`.

    Exact for up to 2**16 values. Not in int64: JAX has it for a whole process or not at all.
    """
    low = (1 << LOW_BITS) - 1
    return jnp.stack([jnp.sum(values >> LOW_BITS), jnp.sum(values & low)]).astype(jnp.int32)


def joined(words: Int[np.ndarray, "... 2"]) -> Int64[np.ndarray, "..."]:
    """Returns what `two_word_total` summed, on the host."""
    high, low = words[..., 0].astype(np.int64), words[..., 1].astype(np.int64)
    return (high << LOW_BITS) + low
