"""Reads a `ModelSpec` from a Hugging Face config.json alone: no weights, no download.

Of a multimodal model the language part is read; layers that predict further tokens (MTP) are not
counted.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo.mixers import GatedDelta, GroupedQuery, Latent, Mixer
from specmd_jax.model_zoo.spec import ModelSpec

# Every family has its own names for the same sizes; the first that is there counts.
_NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "experts_per_token", "top_k_experts", "moe_top_k", "moe_k")
_HIDDEN_SIZE = ("hidden_size", "d_model")
_LAYERS = ("num_hidden_layers", "n_layers")
_EXPERT_SIZE = ("moe_intermediate_size", "ffn_hidden_size", "intermediate_size")
_DENSE_SIZE = ("intermediate_size_mlp", "intermediate_size")
_HEADS = ("num_attention_heads", "n_heads")
_KV_HEADS = ("num_key_value_heads", "kv_n_heads")
_FIRST_MOE_LAYER = ("first_k_dense_replace", "moe_layer_start_index")
_MOE_STEP = ("decoder_sparse_step", "interleave_moe_layer_step")
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_SHARED_SIZE = ("shared_expert_intermediate_size", "shared_intermediate_size")

_NOT_MODELLED = ("mamba_d_state", "mamba_num_heads", "ssm_cfg", "linear_attn_config", "d_ff")
_NOT_GATED = ("relu", "relu2")  # activations of experts with two matrices


def from_config(config: Mapping[str, Any] | str | Path) -> ModelSpec:
    """Reads the sizes of a model from its config.json: a path, its folder, or the parsed dict.

    Raises:
      InputError: not a readable config, a dense model, a missing key, or a kind of layer whose
        weights are not modelled (Mamba, Kimi's linear attention, encoder-decoder).
    """
    raw, origin = _load(config)
    sizes = _Sizes(_text_part(raw), origin)
    for key in _NOT_MODELLED:
        if sizes.get(key) is not None:
            raise InputError(f"{origin} has {key}: models with such layers are not supported")
    num_experts = sizes.integer(*_NUM_EXPERTS, default=0)
    if num_experts <= 1:
        raise InputError(f"{origin} is a dense model (no {' or '.join(_NUM_EXPERTS)} above 1)")

    hf_id = str(raw.get("_name_or_path") or origin)
    dense_layers = _dense_layers(sizes)
    return ModelSpec(
        name=hf_id.rstrip("/").rsplit("/", 1)[-1],
        hf_id=hf_id,
        num_hidden_layers=sizes.integer(*_LAYERS),
        num_experts=num_experts,
        top_k=sizes.integer(*_TOP_K),
        hidden_size=sizes.integer(*_HIDDEN_SIZE),
        moe_intermediate_size=sizes.integer(*_EXPERT_SIZE),
        vocab_size=sizes.integer("vocab_size"),
        mixers=_mixers(sizes),
        dense_layers=dense_layers,
        dense_intermediate_size=sizes.integer(*_DENSE_SIZE) if dense_layers else 0,
        shared_intermediate_size=_shared_intermediate_size(sizes),
        tie_embeddings=_tied(raw, sizes),
        gated=sizes.get("hidden_act") not in _NOT_GATED,
        expert_bias=sizes.model_type == "gpt_oss",
        source=origin,
    )


class _Sizes:
    """A flat config whose errors name the file and the key."""

    def __init__(self, config: Mapping[str, Any], origin: str):
        self._config = config
        self._origin = origin

    @property
    def model_type(self) -> str:
        return str(self.get("model_type", default=""))

    def get(self, *keys: str, default: Any = None) -> Any:
        """Returns the value of the first key that is there and not null."""
        return next((v for k in keys if (v := self._config.get(k)) is not None), default)

    def integer(self, *keys: str, default: int | None = None) -> int:
        """Returns the first value there is, a count; without a `default` it is needed."""
        value = self.get(*keys, default=default)
        if value is None:
            raise InputError(f"{self._origin} lacks {' or '.join(keys)}: is it a MoE config.json?")
        least = 1 if default is None else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{self._origin}: {keys[0]} must be a count, got {value!r}")
        return value

    def per_layer(self, key: str) -> list[Any] | None:
        """Returns a list with one entry a decoder layer, or None where there is no list."""
        values = self.get(key)
        if not isinstance(values, list):
            return None
        layers = self.integer(*_LAYERS)
        if len(values) != layers:
            raise InputError(f"{self._origin}: {key} has {len(values)} entries, {layers} layers")
        return values


def read_json(path: str | Path) -> dict[str, Any]:
    """Returns the parsed config.json: `path`, or the one in the folder `path`.

    Raises:
      InputError: the file cannot be read or holds no JSON object.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a config.json") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): give a config.json") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{path} holds no JSON object: give a config.json")
    return parsed


def _load(config: Mapping[str, Any] | str | Path) -> tuple[Mapping[str, Any], str]:
    if isinstance(config, Mapping):
        return config, str(config.get("_name_or_path") or "config")
    path = Path(config)
    return read_json(path), str(path / "config.json" if path.is_dir() else path)


def _text_part(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the language model of a multimodal config, with DBRX's sub-configs laid flat."""
    nested = raw.get("text_config")
    flat = dict(nested if isinstance(nested, Mapping) else raw)
    for part in ("attn_config", "ffn_config"):
        if isinstance(flat.get(part), Mapping):
            flat |= flat[part]
    return flat


def _dense_layers(sizes: _Sizes) -> tuple[int, ...]:
    """Returns the decoder layers that have no experts, by the rules of the families.

    DeepSeek and GLM count from `first_k_dense_replace` and take every `moe_layer_freq`-th; Qwen
    and Llama 4 take the last of every `step` layers; a list marks each layer with 0 or 1.
    """
    layers = range(sizes.integer(*_LAYERS))
    marked = sizes.per_layer("moe_layer_freq")
    if marked is not None:
        return tuple(layer for layer in layers if not marked[layer])
    first = sizes.integer(*_FIRST_MOE_LAYER, default=0)
    frequency = max(1, sizes.integer("moe_layer_freq", default=1))
    step = max(1, sizes.integer(*_MOE_STEP, default=1))
    never = sizes.get("mlp_only_layers", default=())

    def has_experts(layer: int) -> bool:
        in_turn = layer % frequency == 0 and (layer + 1) % step == 0
        return in_turn and layer >= first and layer not in never

    return tuple(layer for layer in layers if not has_experts(layer))


def _shared_intermediate_size(sizes: _Sizes) -> int:
    if sizes.model_type.startswith("llama4"):
        return sizes.integer("intermediate_size")  # one shared expert, implied by the family
    if sizes.model_type.startswith("gemma4"):
        return sizes.integer("intermediate_size")  # a dense block beside the experts, always on
    width = sizes.integer(*_SHARED_SIZE, default=0)
    return width or sizes.integer(*_SHARED_COUNT, default=0) * sizes.integer(*_EXPERT_SIZE)


def _tied(raw: Mapping[str, Any], sizes: _Sizes) -> bool:
    """Says whether the head is the embedding; configs omit what their class takes for granted."""
    ties_by_default = sizes.model_type.startswith("gemma")
    nested = sizes.get("tie_word_embeddings", default=ties_by_default)
    return bool(raw.get("tie_word_embeddings", nested))


def _mixers(sizes: _Sizes) -> tuple[Mixer, ...]:
    """Returns the mixers of the layers, as the shortest pattern that repeats."""
    if sizes.get("kv_lora_rank") is not None:
        return (_latent(sizes),)
    kinds = _layer_kinds(sizes)
    mixers = [_mixer(sizes, kind) for kind in kinds]
    for period in range(1, len(mixers)):
        if all(mixer == mixers[i % period] for i, mixer in enumerate(mixers)):
            return tuple(mixers[:period])
    return tuple(mixers)


def _layer_kinds(sizes: _Sizes) -> list[str]:
    kinds = sizes.per_layer("layer_types")
    if kinds is not None:
        return kinds
    every = max(1, sizes.integer("full_attention_interval", default=1))
    layers = range(sizes.integer(*_LAYERS))
    return ["linear_attention" if (i + 1) % every else "full_attention" for i in layers]


def _mixer(sizes: _Sizes, kind: str) -> Mixer:
    match kind:
        case "linear_attention":
            return _gated_delta(sizes)
        case "sliding_attention":
            return _grouped_query(sizes, sliding=True)
        case "full_attention" | "chunked_attention":  # chunks of 8192 tokens: as good as all
            return _grouped_query(sizes, sliding=False)
        case _:
            raise InputError(f"layer type {kind!r} is not supported: attention and DeltaNet are")


def _grouped_query(sizes: _Sizes, *, sliding: bool) -> GroupedQuery:
    heads = sizes.integer(*_HEADS)
    kv_heads = sizes.integer(*_KV_HEADS, default=heads)
    head_dim = sizes.integer("head_dim", default=sizes.integer(*_HIDDEN_SIZE) // heads)
    if not sliding:  # Gemma 4 shapes its layers of full attention apart
        kv_heads = sizes.integer("num_global_key_value_heads", default=kv_heads)
        head_dim = sizes.integer("global_head_dim", default=head_dim)
    hybrid = sizes.get("linear_num_key_heads") is not None
    return GroupedQuery(
        heads,
        kv_heads,
        head_dim,
        window=sizes.integer("sliding_window") if sliding else None,
        output_gate=bool(sizes.get("attn_output_gate", default=hybrid)),
        key_is_value=not sliding and bool(sizes.get("attention_k_eq_v", default=False)),
    )


def _latent(sizes: _Sizes) -> Latent:
    return Latent(
        sizes.integer(*_HEADS),
        kv_lora_rank=sizes.integer("kv_lora_rank"),
        qk_nope_head_dim=sizes.integer("qk_nope_head_dim"),
        qk_rope_head_dim=sizes.integer("qk_rope_head_dim"),
        v_head_dim=sizes.integer("v_head_dim"),
        q_lora_rank=sizes.integer("q_lora_rank", default=0),
    )


def _gated_delta(sizes: _Sizes) -> GatedDelta:
    return GatedDelta(
        sizes.integer("linear_num_key_heads"),
        sizes.integer("linear_num_value_heads"),
        key_head_dim=sizes.integer("linear_key_head_dim"),
        value_head_dim=sizes.integer("linear_value_head_dim"),
        conv_kernel=sizes.integer("linear_conv_kernel_dim", default=4),
    )
