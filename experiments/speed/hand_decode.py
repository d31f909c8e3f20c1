"""One decode step of OLMoE's architecture written by hand: one sequence, one token, one program.

The least that a decode step can be; `decode_speed.py` holds the package's models against it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specmd_jax.models import Checkpoint, DecoderConfig, ExpertWeights


class Layer(NamedTuple):
    """The weights of one layer, as matrices [in, out]."""

    attention_norm: Array
    query: Array
    key: Array
    value: Array
    out: Array
    query_norm: Array
    key_norm: Array
    norm: Array
    gate: Array
    experts: ExpertWeights


class Weights(NamedTuple):
    """All that the hand-written pass reads."""

    embedding: Array
    layers: tuple[Layer, ...]
    norm: Array
    head: Array


class Caches(NamedTuple):
    """Keys and values of every layer, and how many tokens they hold."""

    keys: tuple[Float[Array, "C heads D"], ...]
    values: tuple[Float[Array, "C heads D"], ...]
    length: Int[Array, ""]


def weights_of(checkpoint: Checkpoint) -> Weights:
    """Returns the weights in the shape that the hand-written pass wants."""
    decoder: Any = checkpoint.decoder()  # OLMoE's parts, which its type does not tell
    experts = checkpoint.all_experts()
    layers = [
        Layer(
            layer.attention_norm.scale[...], layer.attention.query.kernel[...],
            layer.attention.key.kernel[...], layer.attention.value.kernel[...],
            layer.attention.out.kernel[...], layer.attention.query_norm.scale[...],
            layer.attention.key_norm.scale[...], layer.norm.scale[...],
            layer.moe.gate.kernel[...], experts[index],
        )
        for index, layer in enumerate(decoder.layers)
    ]  # fmt: skip
    return Weights(
        decoder.embedding.embedding[...], tuple(layers), decoder.norm.scale[...],
        decoder.head.kernel[...],
    )  # fmt: skip


def rms(x: Array, scale: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * scale


def rotate(x: Float[Array, "heads D"], angle: Float[Array, " half"]) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(
    config: DecoderConfig, layer: Layer, x: Float[Array, " H"], keys: Array, values: Array,
    length: Int[Array, ""],
) -> tuple[Array, Array, Array]:  # fmt: skip
    eps, scale = config.norm_eps, config.attention.scale
    angle = length * jnp.asarray(config.rope.frequencies, jnp.float32)
    split = (keys.shape[1], keys.shape[2])
    query = rotate(rms(x @ layer.query, layer.query_norm, eps).reshape(split), angle)
    key = rotate(rms(x @ layer.key, layer.key_norm, eps).reshape(split), angle)
    keys = jax.lax.dynamic_update_index_in_dim(keys, key, length, 0)
    values = jax.lax.dynamic_update_index_in_dim(
        values, (x @ layer.value).reshape(split), length, 0
    )
    scores = jnp.einsum("hd,chd->hc", query, keys) * scale
    scores = jnp.where(jnp.arange(keys.shape[0]) <= length, scores, -jnp.inf)
    mixed = jnp.einsum("hc,chd->hd", jax.nn.softmax(scores, axis=-1), values)
    return mixed.reshape(-1) @ layer.out, keys, values


def experts_of(config: DecoderConfig, layer: Layer, x: Float[Array, " H"]) -> Array:
    weights, ids = jax.lax.top_k(jax.nn.softmax(x @ layer.gate), config.spec.top_k)
    weights = weights / weights.sum() if config.router.normalize else weights

    def add(total: Array, chosen: tuple[Array, Array]) -> tuple[Array, None]:
        weight, expert = chosen
        gate, up = jnp.split(x @ layer.experts.gate_up[expert], 2)
        return total + weight * ((jax.nn.silu(gate) * up) @ layer.experts.down[expert]), None

    return jax.lax.scan(add, jnp.zeros_like(x), (weights, ids))[0]


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def by_hand(
    config: DecoderConfig, weights: Weights, token: Int[Array, ""], caches: Caches
) -> tuple[Float[Array, " V"], Caches]:
    """Returns the logits of the next token."""
    x, keys, values = weights.embedding[token], [], []
    for index, layer in enumerate(weights.layers):
        normed = rms(x, layer.attention_norm, config.norm_eps)
        mixed, key, value = attend(
            config, layer, normed, caches.keys[index], caches.values[index], caches.length
        )
        x = x + mixed
        x = x + experts_of(config, layer, rms(x, layer.norm, config.norm_eps))
        keys.append(key)
        values.append(value)
    logits = rms(x, weights.norm, config.norm_eps) @ weights.head
    return logits, Caches(tuple(keys), tuple(values), caches.length + 1)
