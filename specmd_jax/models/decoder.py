"""The decoder: all of a mixture-of-experts model but its routed experts, in Flax NNX.

A layer is cut where an offloading runtime needs it: `attend` ends with the gate's choice,
`finish` takes what the experts made of it. Between the two stands an `ExpertFn`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from specmd_jax.model_zoo import GroupedQuery, Latent, Mixer
from specmd_jax.models.config import DecoderConfig
from specmd_jax.models.experts.weights import ExpertFn
from specmd_jax.models.layers.attention import INIT, GroupedQueryAttention, linear
from specmd_jax.models.layers.feed_forward import FeedForward
from specmd_jax.models.layers.kv_cache import KvCache, Remembered, Span, whole
from specmd_jax.models.layers.latent_attention import LatentAttention
from specmd_jax.models.layers.norm import make_norm
from specmd_jax.models.layers.router import choose


class Gate(NamedTuple):
    """What the gate of one MoE layer saw and chose; T counts the tokens of all sequences."""

    hidden: Float[Array, "T H"]
    logits: Float[Array, "T N"]
    ids: Int[Array, "T K"]  # -1 where the token is padding
    weights: Float[Array, "T K"]


class Pass(NamedTuple):
    """What one forward pass makes."""

    logits: Float[Array, "B S V"]
    gates: tuple[Gate, ...]  # of each MoE layer
    cache: KvCache | None  # None where none was given


class MoeBlock(nnx.Module):
    """The gate and the shared experts of a layer."""

    def __init__(self, config: DecoderConfig, dtype: jnp.dtype | type, rngs: nnx.Rngs):
        spec = config.spec
        self.config = config
        self.gate = nnx.Linear(
            spec.hidden_size,
            spec.num_experts,
            use_bias=config.router.bias,
            kernel_init=INIT,
            dtype=jnp.float32,  # near-ties decide which experts are loaded
            param_dtype=dtype,
            rngs=rngs,
        )
        if config.router.kind == "sigmoid":
            self.correction = nnx.Param(jnp.zeros(spec.num_experts, jnp.float32))
        if spec.shared_intermediate_size:
            width = spec.shared_intermediate_size
            self.shared = FeedForward(spec.hidden_size, width, dtype, rngs)
        if config.shared_gate:
            self.shared_gate = linear(spec.hidden_size, 1, dtype, rngs)

    def choose(self, hidden: Float[Array, "B S H"], span: Span) -> Gate:
        """Returns the gate's choice for every token."""
        router = self.config.router
        real = (span.positions(hidden.shape[1]) >= 0).reshape(-1)
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = self.gate(flat)
        bias = self.correction[...] if router.kind == "sigmoid" else None
        ids, weights = choose(logits, bias, real, self.config.spec.top_k, router)
        return Gate(flat, logits, ids, weights)

    def share(self, hidden: Float[Array, "T H"]) -> Float[Array, "T H"]:
        """Returns what the shared experts add; zeros where there are none."""
        if not self.config.spec.shared_intermediate_size:
            return jnp.zeros_like(hidden)
        out = self.shared(hidden)
        return nnx.sigmoid(self.shared_gate(hidden)) * out if self.config.shared_gate else out


class DecoderLayer(nnx.Module):
    """Attention, then experts or a dense block."""

    def __init__(self, config: DecoderConfig, index: int, dtype: jnp.dtype | type, rngs: nnx.Rngs):
        spec, mixer = config.spec, config.spec.layer_mixers[index]
        self.config = config
        self.attention_norm = make_norm(config, spec.hidden_size, dtype, rngs)
        self.attention = _attention(config, mixer, dtype, rngs)
        self.norm = make_norm(config, spec.hidden_size, dtype, rngs)
        self.has_experts = index not in spec.dense_layers
        if self.has_experts:
            self.moe = MoeBlock(config, dtype, rngs)
        else:
            width = spec.dense_intermediate_size
            self.dense = FeedForward(spec.hidden_size, width, dtype, rngs)

    def attend(
        self, stream: Float[Array, "B S H"], span: Span, past: Remembered | None
    ) -> tuple[Float[Array, "B S H"], Remembered, Gate | None]:
        """Runs attention and the gate, or the whole of a dense layer.

        Returns:
          The residual stream, what attention remembers, and the gate's choice: None for a
          dense layer, which is then finished.
        """
        mixed, kept = self.attention(self.attention_norm(stream), span, past)
        stream = stream + self.config.residual_multiplier * mixed
        hidden = self.norm(stream)
        if self.has_experts:
            return stream, kept, self.moe.choose(hidden, span)
        return stream + self.config.residual_multiplier * self.dense(hidden), kept, None

    def finish(
        self,
        stream: Float[Array, "B S H"],
        hidden: Float[Array, "T H"],
        experts_out: Float[Array, "T H"],
    ) -> Float[Array, "B S H"]:
        """Returns the residual stream with the routed and the shared experts added.

        Args:
          stream: as `attend` returned it.
          hidden: at the gate.
          experts_out: of the routed experts.
        """
        out = experts_out + self.moe.share(hidden)
        return stream + self.config.residual_multiplier * out.reshape(stream.shape)


def _attention(
    config: DecoderConfig, mixer: Mixer, dtype: jnp.dtype | type, rngs: nnx.Rngs
) -> GroupedQueryAttention | LatentAttention:
    match mixer:
        case GroupedQuery():
            return GroupedQueryAttention(config, mixer, dtype, rngs)
        case Latent():
            return LatentAttention(config, mixer, dtype, rngs)
    raise TypeError(f"no attention for {mixer}")


class Decoder(nnx.Module):
    """Embedding, layers and head."""

    def __init__(
        self,
        config: DecoderConfig,
        rngs: nnx.Rngs,
        dtype: jnp.dtype | type = jnp.float32,
    ):
        """Draws all weights from `rngs`.

        Args:
          config: the architecture.
          rngs: source of the random weights.
          dtype: of the weights, and so of the activations.
        """
        spec = config.spec
        self.config = config
        self.embedding = nnx.Embed(
            spec.vocab_size, spec.hidden_size, embedding_init=INIT, param_dtype=dtype, rngs=rngs
        )
        self.layers = nnx.List(
            [DecoderLayer(config, i, dtype, rngs) for i in range(spec.num_hidden_layers)]
        )
        self.norm = make_norm(config, spec.hidden_size, dtype, rngs)
        if not spec.tie_embeddings:
            bias = config.head_bias
            self.head = linear(spec.hidden_size, spec.vocab_size, dtype, rngs, bias=bias)

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S H"]:
        """Returns the residual stream before the first layer."""
        embedded = self.embedding(tokens)
        return embedded * jnp.asarray(self.config.embedding_multiplier, embedded.dtype)

    def unembed(self, stream: Float[Array, "B S H"]) -> Float[Array, "B S V"]:
        """Returns the logits of the next token, in float32."""
        hidden = self.norm(stream)
        tied = self.config.spec.tie_embeddings
        logits = self.embedding.attend(hidden) if tied else self.head(hidden)
        return logits.astype(jnp.float32) / self.config.logits_divisor

    def __call__(
        self, tokens: Int[Array, "B S"], experts: ExpertFn, cache: KvCache | None = None
    ) -> Pass:
        """Runs one forward pass: a prefill, a chunk of one, a decode step or a training batch.

        Args:
          tokens: token ids.
          experts: computes the routed experts.
          cache: of the tokens before these; None runs whole sequences and remembers nothing.
        """
        batch, length = tokens.shape
        span = whole(batch) if cache is None else cache.span
        stream, gates, kept = self.embed(tokens), [], []
        for index, layer in enumerate(self.layers):
            past = None if cache is None else cache.layers[index]
            stream, remembered, gate = layer.attend(stream, span, past)
            kept.append(remembered)
            if gate is not None:
                out = experts(len(gates), gate.hidden, gate.ids, gate.weights)
                stream = layer.finish(stream, gate.hidden, out)
                gates.append(gate)
        after = None if cache is None else KvCache(tuple(kept), span.after(length))
        return Pass(self.unembed(stream), tuple(gates), after)
