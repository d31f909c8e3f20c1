"""What attention remembers of a sequence, and which of it a query may see.

Prompts of unequal length are padded on the left, so that all sequences of a batch write to the
same place; a position counts from the first token that is not padding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.model_zoo import GroupedQuery, Latent
from specmd_jax.models.config import DecoderConfig


class Remembered(NamedTuple):
    """One layer's part, at full length from the start: [B, C, ...].

    Grouped-query attention keeps keys and values; latent attention the latent and the rotary
    key that all heads share.
    """

    keys: Float[Array, "B C ..."]
    values: Float[Array, "B C ..."]


class Span(NamedTuple):
    """Where in their sequences the tokens of one pass stand."""

    start: Int[Array, ""]  # tokens before them, padding included
    padding: Int[Array, " B"]  # tokens on the left of each sequence that are not real

    def positions(self, length: int) -> Int[Array, "B S"]:
        """Returns the position of each of `length` tokens; negative where it is padding."""
        return self.start + jnp.arange(length) - self.padding[:, None]

    def after(self, length: int) -> "Span":
        """Returns the span of the tokens that follow these `length`."""
        return Span(self.start + length, self.padding)

    def visible(self, length: int, num_keys: int, window: int | None) -> Bool[Array, "B S C"]:
        """Returns which keys each of `length` queries may see.

        Padding sees itself, so that no softmax is over nothing.
        """
        query = (self.start + jnp.arange(length))[:, None]
        key = jnp.arange(num_keys)[None, :]
        seen = key <= query
        if window is not None:
            seen &= query - key < window
        real = key >= self.padding[:, None, None]
        return (seen & real) | (key == query)


class KvCache(NamedTuple):
    """The cache of a batch, all layers."""

    layers: tuple[Remembered, ...]
    span: Span  # of the tokens to come


def empty_cache(
    config: DecoderConfig,
    batch: int,
    capacity: int,
    padding: Int[Array, " B"] | None = None,
    dtype: jnp.dtype | type = jnp.float32,
) -> KvCache:
    """Returns a cache for `capacity` tokens of each of `batch` sequences, padding included.

    Args:
      config: of the decoder.
      padding: tokens on the left of each sequence that are not real, none by default.
      dtype: of the stored keys and values.
    """
    layers = tuple(
        Remembered(*(jnp.zeros((batch, capacity, *axes), dtype) for axes in _kept_axes(mixer)))
        for mixer in config.spec.layer_mixers
    )
    return KvCache(layers, whole(batch, padding))


def whole(batch: int, padding: Int[Array, " B"] | None = None) -> Span:
    """Returns the span of sequences from their beginning."""
    padding = jnp.zeros(batch, jnp.int32) if padding is None else padding.astype(jnp.int32)
    return Span(jnp.zeros((), jnp.int32), padding)


def remember(past: Remembered | None, new: Remembered, span: Span) -> Remembered:
    """Returns the keys and values that queries of the pass look at: the cache, with `new` in it.

    Without a cache, those of the pass alone.
    """
    if past is None:
        return new
    return Remembered(
        *(
            jax.lax.dynamic_update_slice_in_dim(kept, fresh.astype(kept.dtype), span.start, axis=1)
            for kept, fresh in zip(past, new, strict=True)
        )
    )


def _kept_axes(mixer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    match mixer:
        case GroupedQuery():
            heads = (mixer.num_key_value_heads, mixer.head_dim)
            return heads, heads
        case Latent():
            return (mixer.kv_lora_rank,), (mixer.qk_rope_head_dim,)
    raise TypeError(f"no cache for {mixer}")
