"""The decoder: all of a mixture-of-experts model but its routed experts, in Flax NNX.

A layer is cut where an offloading runtime needs it: `attend` ends with the gate's choice,
`finish` takes what the experts made of it. Between the two stands an `ExpertFn`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

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


Carried = TypeVar("Carried")
# Given what is carried, the MoE layer, the stream at its gate and the gate's choice, returns what
# is carried on and what the routed experts made.
ServeGate = Callable[
    [Carried, int, Float[Array, "B S H"], Gate], tuple[Carried, Float[Array, "T H"]]
]


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
        """Draws all weights from `rngs`.

        Args:
          config: the architecture.
          index: of the decoder layer, from 0.
          dtype: of the weights.
          rngs: source of the random weights.
        """
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


def no_barrier(values: Any) -> Any:
    """Returns what it is given: parts of a pass may be compiled into each other."""
    return values


def attend_to_gate(
    layers: Sequence[DecoderLayer],
    stream: Float[Array, "B S H"],
    span: Span,
    pasts: Sequence[Remembered | None],
    barrier: Callable[[Any], Any] = no_barrier,
) -> tuple[Float[Array, "B S H"], tuple[Remembered, ...], Gate | None]:
    """Runs a segment of the decoder: dense layers, then attention and gate of a MoE layer.

    Args:
      layers: of the segment, see `DecoderConfig.segments`.
      stream: the residual stream before it.
      span: where the tokens stand.
      pasts: what attention remembers in each of the layers.
      barrier: around each layer.

    Returns:
      The residual stream, what is remembered now, and the gate's choice; None behind the last.
    """
    kept, gate = [], None
    for layer, past in zip(layers, pasts, strict=True):
        stream, remembered, gate = barrier(layer.attend(stream, span, past))
        kept.append(remembered)
    return stream, tuple(kept), gate


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

        def serve(
            carried: None, layer: int, stream: Float[Array, "B S H"], gate: Gate
        ) -> tuple[None, Float[Array, "T H"]]:
            return carried, experts(layer, gate.hidden, gate.ids, gate.weights)

        return self.run(tokens, cache, serve, None)[0]

    def run(
        self,
        tokens: Int[Array, "B S"],
        cache: KvCache | None,
        serve: ServeGate[Carried],
        carried: Carried,
        barrier: Callable[[Any], Any] = no_barrier,
    ) -> tuple[Pass, Carried]:
        """Runs one forward pass, gate by gate.

        Args:
          tokens: token ids.
          cache: of the tokens before these; None: there are none, and nothing is remembered.
          serve: computes the routed experts of a MoE layer, given what it carried on before.
          carried: to the first gate.
          barrier: around each part, for the bits of a pass that is run in parts.

        Returns:
          The pass, and what the last gate carried on.
        """
        batch, length = tokens.shape
        span = whole(batch) if cache is None else cache.span
        pasts = [None] * len(self.layers) if cache is None else cache.layers
        layers, kept, gates = list(self.layers), [], []
        stream = barrier(self.embed(tokens))
        for own in self.config.segments:
            stream, own_kept, gate = attend_to_gate(layers[own], stream, span, pasts[own], barrier)
            kept += own_kept
            if gate is None:
                break
            carried, out = serve(carried, len(gates), stream, gate)
            stream = barrier(layers[own][-1].finish(stream, gate.hidden, out))
            gates.append(gate)
        after = None if cache is None else KvCache(tuple(kept), span.after(length))
        return Pass(self.unembed(stream), tuple(gates), after), carried

    def blocks_after(self, layer: int, count: int) -> list[MoeBlock]:
        """Returns the blocks of the MoE layers that follow one, `count` at most."""
        blocks = [one.moe for one in self.layers if one.has_experts]
        return blocks[layer + 1 : layer + 1 + count]
