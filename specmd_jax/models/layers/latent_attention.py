"""Multi-head latent attention: keys and values are expanded from a low-rank latent.

Source: DeepSeek-V2 (arXiv 2405.04434, §2.1).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from specmd_jax.model_zoo import Latent
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.layers.attention import linear, weigh
from specmd_jax.models.layers.kv_cache import Remembered, Span, remember
from specmd_jax.models.layers.norm import rms_norm
from specmd_jax.models.layers.rope import rotate

_LATENT_EPS = 1e-6  # of the norms inside, whatever the model's other norms add


class LatentAttention(nnx.Module):
    """Attention that remembers a latent and one rotary key a token, for all heads."""

    def __init__(
        self, config: DecoderConfig, mixer: Latent, dtype: jnp.dtype | type, rngs: nnx.Rngs
    ):
        """Draws all weights from `rngs`.

        Args:
          config: the architecture.
          mixer: heads and ranks.
          dtype: of the weights.
          rngs: source of the random weights.
        """
        self.config = config
        self.mixer = mixer
        size, heads, bias = config.spec.hidden_size, mixer.num_heads, config.attention.qkv_bias
        rank, rotary = mixer.kv_lora_rank, mixer.qk_rope_head_dim
        queries = heads * (mixer.qk_nope_head_dim + rotary)
        if mixer.q_lora_rank:
            self.query_down = linear(size, mixer.q_lora_rank, dtype, rngs, bias=bias)
            self.query_norm = rms_norm(mixer.q_lora_rank, _LATENT_EPS, dtype, rngs)
            self.query_up = linear(mixer.q_lora_rank, queries, dtype, rngs)
        else:
            self.query = linear(size, queries, dtype, rngs)
        self.latent_down = linear(size, rank + rotary, dtype, rngs, bias=bias)
        self.latent_norm = rms_norm(rank, _LATENT_EPS, dtype, rngs)
        expanded = heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
        self.latent_up = linear(rank, expanded, dtype, rngs)
        out_bias = config.attention.out_bias
        self.out = linear(heads * mixer.v_head_dim, size, dtype, rngs, bias=out_bias)

    def __call__(
        self, hidden: Float[Array, "B S H"], span: Span, past: Remembered | None
    ) -> tuple[Float[Array, "B S H"], Remembered]:
        """Returns the attention's output and what it remembers after the pass."""
        batch, length, _ = hidden.shape
        query, query_rotary = self._query(hidden, span)
        kept = remember(past, self._latent(hidden, span), span)
        rotary_scores = jnp.einsum(
            "bthd,bsd->bhts", query_rotary, kept.values, preferred_element_type=jnp.float32
        )
        # One token: fold the expansion into query and output, and so never expand the past.
        mix = self._mix_latents if length == 1 else self._mix_expanded
        mixed = mix(query, rotary_scores, kept, span)
        return self.out(mixed.reshape(batch, length, -1).astype(hidden.dtype)), kept

    def _query(self, hidden: Float[Array, "B S H"], span: Span) -> tuple[Array, Array]:
        low_rank = self.mixer.q_lora_rank
        full = self.query_norm(self.query_down(hidden)) if low_rank else hidden
        query = self.query_up(full) if low_rank else self.query(full)
        query = query.reshape(*hidden.shape[:2], self.mixer.num_heads, -1)
        plain, rotary = jnp.split(query, [self.mixer.qk_nope_head_dim], axis=-1)
        return plain, rotate(rotary, span.positions(hidden.shape[1]), self.config.rope)

    def _latent(self, hidden: Float[Array, "B S H"], span: Span) -> Remembered:
        latent, rotary = jnp.split(self.latent_down(hidden), [self.mixer.kv_lora_rank], axis=-1)
        rotary = rotate(rotary[:, :, None], span.positions(hidden.shape[1]), self.config.rope)
        return Remembered(self.latent_norm(latent), rotary[:, :, 0])

    def _up(self) -> tuple[Float[Array, "R A D"], Float[Array, "R A V"]]:
        """The expansion, as a matrix a head for keys and one for values."""
        up = self.latent_up.kernel[...]
        up = up.reshape(self.mixer.kv_lora_rank, self.mixer.num_heads, -1)
        keys, values = jnp.split(up, [self.mixer.qk_nope_head_dim], axis=-1)
        return keys, values

    def _mix_expanded(
        self, query: Array, rotary_scores: Array, kept: Remembered, span: Span
    ) -> Float[Array, "B S A V"]:
        key_up, value_up = self._up()
        latents = kept.keys.astype(query.dtype)
        keys = jnp.einsum("bsr,rad->bsad", latents, key_up)
        values = jnp.einsum("bsr,rav->bsav", latents, value_up)
        scores = jnp.einsum("btad,bsad->bats", query, keys, preferred_element_type=jnp.float32)
        weights = self._weights(scores + rotary_scores, span)
        return jnp.einsum("bats,bsav->btav", weights.astype(values.dtype), values)

    def _mix_latents(
        self, query: Array, rotary_scores: Array, kept: Remembered, span: Span
    ) -> Float[Array, "B S A V"]:
        key_up, value_up = self._up()
        latents = kept.keys.astype(query.dtype)
        query = jnp.einsum("btad,rad->btar", query, key_up)
        scores = jnp.einsum("btar,bsr->bats", query, latents, preferred_element_type=jnp.float32)
        weights = self._weights(scores + rotary_scores, span).astype(latents.dtype)
        mixed = jnp.einsum("bats,bsr->btar", weights, latents)
        return jnp.einsum("btar,rav->btav", mixed, value_up)

    def _weights(self, scores: Float[Array, "B A S C"], span: Span) -> Float[Array, "B A S C"]:
        visible = span.visible(scores.shape[2], scores.shape[3], None)
        return weigh(scores[:, :, None] * self.config.attention.scale, visible)[:, :, 0]
