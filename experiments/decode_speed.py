"""Decode speed of a resident model beside one forward pass written by hand for the same weights.

  python experiments/decode_speed.py --model specmd-tiny

The hand-written pass knows only OLMoE's architecture, one sequence and one token: it is the
least that a decode step can be. The same model is timed once more with a recorder that keeps ids
and weights. All are timed in turns, so that a busy machine slows all.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from specmd_jax.models import (
    Checkpoint,
    DecoderConfig,
    ExpertWeights,
    ResidentModel,
    empty_cache,
    open_model,
)
from specmd_jax.runtime.recorder import Recorder
from specmd_jax.runtime.recording_model import RecordingModel


@dataclass(frozen=True)
class Options:
    """What is timed."""

    model: str = "specmd-tiny"
    context: int = 256  # tokens that the caches can hold
    tokens: int = 60  # decode steps of each turn
    turns: int = 15


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

    keys: Float[Array, "L C heads D"]
    values: Float[Array, "L C heads D"]
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
    return logits, Caches(jnp.stack(keys), jnp.stack(values), caches.length + 1)


def hand_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns a greedy decode from token 0 by the hand-written pass."""
    config, weights = checkpoint.config, weights_of(checkpoint)
    mixer: Any = config.spec.mixers[0]
    shape = (config.spec.num_hidden_layers, options.context, mixer.num_heads, mixer.head_dim)

    def run() -> list[int]:
        caches = Caches(jnp.zeros(shape), jnp.zeros(shape), jnp.int32(0))
        token, made = jnp.int32(0), []
        for _ in range(options.tokens):
            logits, caches = by_hand(config, weights, token, caches)
            token = jnp.argmax(logits)
            made.append(int(token))
        return made

    return run


def model_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns the same decode by the package's resident model."""
    return _greedy(ResidentModel(checkpoint.decoder(), checkpoint.all_experts()), options)


def recorded_run(checkpoint: Checkpoint, options: Options) -> Callable[[], list[int]]:
    """Returns the same decode, recorded."""
    recorder = Recorder()
    model = RecordingModel(checkpoint.decoder(), checkpoint.all_experts(), recorder)
    decode = _greedy(model, options)

    def run() -> list[int]:
        recorder.begin([1])
        made = decode()
        recorder.finish()
        return made

    return run


def _greedy(model: ResidentModel | RecordingModel, options: Options) -> Callable[[], list[int]]:
    config = model.config

    def run() -> list[int]:
        cache = empty_cache(config, 1, options.context, jnp.zeros(1, jnp.int32), jnp.float32)
        token, made = jnp.zeros((1, 1), jnp.int32), []
        for _ in range(options.tokens):
            after = model(token, cache)
            assert after.cache is not None
            cache, token = after.cache, jnp.argmax(after.logits, axis=-1)
            made.append(int(token[0, 0]))
        return made

    return run


def main(options: Options) -> None:
    """Prints one JSON object."""
    checkpoint = open_model(options.model)
    runs = {
        "by_hand": hand_run(checkpoint, options),
        "model": model_run(checkpoint, options),
        "recorded": recorded_run(checkpoint, options),
    }
    made = [run() for run in runs.values()]
    assert all(one == made[0] for one in made), "they do not compute the same"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / options.tokens)
    found = {f"{name}_ms": 1e3 * float(np.min(times)) for name, times in seconds.items()}
    for name, base in (("model", "by_hand"), ("recorded", "model")):
        ratios = np.divide(seconds[name], seconds[base])
        found[f"{name}_to_{base}"] = float(np.median(ratios))
    print(json.dumps(found | {"label": "MEASURED"}, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Options))
