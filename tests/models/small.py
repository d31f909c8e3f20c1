"""A small decoder of OLMoE's architecture, with weights large enough to tell experts apart."""

import jax
import jax.numpy as jnp
from flax import nnx

from specmd_jax.models import Decoder, DecoderConfig, ExpertWeights, init_experts, small_olmoe

CONFIG = small_olmoe(
    num_hidden_layers=3,
    num_experts=8,
    top_k=3,
    hidden_size=32,
    moe_intermediate_size=16,
    vocab_size=64,
    num_heads=4,
)


def small_decoder(config: DecoderConfig = CONFIG) -> tuple[Decoder, tuple[ExpertWeights, ...]]:
    """Returns a decoder and its experts, the same ones at every call."""
    decoder = Decoder(config, nnx.Rngs(0))
    state = nnx.state(decoder)
    nnx.update(decoder, jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 1 else leaf, state))
    experts = jax.tree.map(lambda leaf: leaf * 8, init_experts(config, jax.random.key(1)))
    return decoder, experts


def tokens(batch: int, length: int, config: DecoderConfig = CONFIG) -> jax.Array:
    """Returns random tokens, the same ones at every call."""
    return jax.random.randint(jax.random.key(2), (batch, length), 0, config.spec.vocab_size)


def differ(left: jax.Array, right: jax.Array) -> float:
    """Returns the largest absolute difference."""
    return float(jnp.max(jnp.abs(left - right)))
