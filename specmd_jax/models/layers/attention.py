"""Grouped-query attention, with the variations of the supported families.

Sources: GQA (arXiv 2305.13245), OLMoE (arXiv 2409.02060, §2: norm of all heads together),
Qwen3 (arXiv 2505.09388, §2: norm of each head), gpt-oss (arXiv 2508.10925: sinks, windows).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from specmd_jax.model_zoo import GroupedQuery
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.layers.kv_cache import Remembered, Span, remember
from specmd_jax.models.layers.norm import rms_norm
from specmd_jax.models.layers.rope import rotate

INIT = nnx.initializers.normal(0.02)


def linear(
    inputs: int, outputs: int, dtype: jnp.dtype | type, rngs: nnx.Rngs, *, bias: bool = False
) -> nnx.Linear:
    """Returns a projection, drawn from a normal distribution of deviation 0.02.

    Args:
      inputs: features in.
      outputs: features out.
      dtype: of the weights.
      rngs: source of the random weights.
      bias: whether one is added, 0 at first.
    """
    return nnx.Linear(
        inputs, outputs, use_bias=bias, kernel_init=INIT, param_dtype=dtype, rngs=rngs
    )


def weigh(
    scores: Float[Array, "B G R S C"],
    visible: Bool[Array, "B S C"],
    sinks: Float[Array, "G R"] | None = None,
) -> Float[Array, "B G R S C"]:
    """Returns the softmax over the visible keys, in float32.

    A sink is one more score in the sum, whose own weight goes nowhere.
    """
    scores = jnp.where(visible[:, None, None], scores.astype(jnp.float32), -jnp.inf)
    if sinks is None:
        return jax.nn.softmax(scores, axis=-1)
    top = jnp.max(scores, axis=-1, keepdims=True)
    sink = sinks.astype(jnp.float32)[:, :, None, None]
    top = jnp.maximum(top, sink)
    raised = jnp.exp(scores - top)
    return raised / (jnp.sum(raised, axis=-1, keepdims=True) + jnp.exp(sink - top))


class GroupedQueryAttention(nnx.Module):
    """Softmax attention in which query heads share key and value heads."""

    def __init__(
        self,
        config: DecoderConfig,
        mixer: GroupedQuery,
        dtype: jnp.dtype | type,
        rngs: nnx.Rngs,
    ):
        """Draws all weights from `rngs`.

        Args:
          config: the architecture.
          mixer: heads and their sizes.
          dtype: of the weights.
          rngs: source of the random weights.
        """
        self.config = config
        self.mixer = mixer
        size, head = config.spec.hidden_size, mixer.head_dim
        queries, pairs = mixer.num_heads * head, mixer.num_key_value_heads * head
        attention = config.attention
        self.query = linear(size, queries, dtype, rngs, bias=attention.qkv_bias)
        self.key = linear(size, pairs, dtype, rngs, bias=attention.qkv_bias)
        self.value = linear(size, pairs, dtype, rngs, bias=attention.qkv_bias)
        self.out = linear(queries, size, dtype, rngs, bias=attention.out_bias)
        if attention.qk_norm != "none":
            over_all = attention.qk_norm == "full"
            eps = config.norm_eps
            self.query_norm = rms_norm(queries if over_all else head, eps, dtype, rngs)
            self.key_norm = rms_norm(pairs if over_all else head, eps, dtype, rngs)
        if attention.sinks:
            self.sinks = nnx.Param(jnp.zeros(mixer.num_heads, dtype))

    def __call__(
        self, hidden: Float[Array, "B S H"], span: Span, past: Remembered | None
    ) -> tuple[Float[Array, "B S H"], Remembered]:
        """Returns the attention's output and what it remembers after the pass."""
        batch, length, _ = hidden.shape
        query, key, value = self._heads(hidden)
        positions = span.positions(length)
        query = rotate(query, positions, self.config.rope)
        kept = remember(past, Remembered(rotate(key, positions, self.config.rope), value), span)

        groups = self.mixer.num_key_value_heads
        query = query.reshape(batch, length, groups, -1, self.mixer.head_dim)
        scores = jnp.einsum(
            "btgrd,bsgd->bgrts", query, kept.keys, preferred_element_type=jnp.float32
        )
        visible = span.visible(length, kept.keys.shape[1], self.mixer.window)
        sinks = self.sinks[...].reshape(groups, -1) if self.config.attention.sinks else None
        weights = weigh(scores * self.config.attention.scale, visible, sinks)
        mixed = jnp.einsum("bgrts,bsgd->btgrd", weights.astype(kept.values.dtype), kept.values)
        return self.out(mixed.reshape(batch, length, -1).astype(hidden.dtype)), kept

    def _heads(self, hidden: Float[Array, "B S H"]) -> tuple[Array, Array, Array]:
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        kind, clip = self.config.attention.qk_norm, self.config.attention.clip
        if kind == "full":
            query, key = self.query_norm(query), self.key_norm(key)
        if clip is not None:
            query, key, value = (jnp.clip(x, -clip, clip) for x in (query, key, value))
        split = (*hidden.shape[:2], -1, self.mixer.head_dim)
        query, key, value = (x.reshape(split) for x in (query, key, value))
        if kind == "head":
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value
