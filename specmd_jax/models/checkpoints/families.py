"""Reads a `DecoderConfig` from a Hugging Face config.json, family by family.

Sizes come from `model_zoo.from_config`; here is what each family does with them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import shown
from specmd_jax.core.schema import read_record
from specmd_jax.model_zoo import GroupedQuery, Latent, ModelSpec, from_config
from specmd_jax.model_zoo.hf_config import config_file, read_config
from specmd_jax.models.checkpoints.decoder_schema import DecoderRecord
from specmd_jax.models.config import Attention, DecoderConfig, Rope, Router
from specmd_jax.models.layers.hf_rope import read_rope, softmax_correction
from specmd_kernels import Activation


def from_hf(config: Mapping[str, Any] | str | Path) -> DecoderConfig:
    """Reads how a model computes from its config.json: a path, its folder, or the parsed dict.

    Raises:
      InputError: not a readable config, or a family or variation that is not supported.
    """
    raw = config if isinstance(config, Mapping) else read_config(config)
    origin = "config" if isinstance(config, Mapping) else str(config_file(config))
    record = read_record(raw, DecoderRecord, origin, "mend the config.json", check_spelling=False)
    family = record.model_type or ""
    if family not in FAMILIES:
        raise InputError(
            f"model_type {shown(family)} is not supported by the decoder: {', '.join(FAMILIES)} are"
        )
    if (record.hidden_act or "silu") not in ("silu", "swish"):
        raise InputError(f"hidden_act {shown(record.hidden_act)} is not supported: silu is")
    spec = from_config(config)
    parts = _Parts(raw, spec, read_rope(raw, _rotary_dim(spec)))
    return FAMILIES[family](parts)


@dataclass(frozen=True)
class _Parts:
    """What every family starts from."""

    raw: Mapping[str, Any]
    spec: ModelSpec
    rope: Rope

    def get(self, key: str, default: Any) -> Any:
        """Returns a value, or `default` where it is missing or null."""
        value = self.raw.get(key)
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        """Returns a value that JSON may have written without its point."""
        return float(self.get(key, default))

    def config(self, attention: Attention, **differences: Any) -> DecoderConfig:
        known = {
            "spec": self.spec,
            "rope": self.rope,
            "family": self.raw["model_type"],
            "norm_eps": self.number("rms_norm_eps", 1e-6),
        }
        return DecoderConfig(attention=attention, **(known | differences))

    def attention(self, **differences: Any) -> Attention:
        bias = bool(self.get("attention_bias", False))
        known = {"scale": _head_dim(self.spec) ** -0.5, "qkv_bias": bias, "out_bias": bias}
        return Attention(**(known | differences))

    def windowed(self, window: int | None) -> ModelSpec:
        """Returns the sizes with a sliding window in every layer, if there is one."""
        if not window:
            return self.spec
        mixers = tuple(
            replace(m, window=window) if isinstance(m, GroupedQuery) else m
            for m in self.spec.mixers
        )
        return replace(self.spec, mixers=mixers)


def _olmoe(parts: _Parts) -> DecoderConfig:
    clip = parts.get("clip_qkv", None)
    return parts.config(
        parts.attention(qk_norm="full", clip=None if clip is None else float(clip)),
        norm_eps=parts.number("rms_norm_eps", 1e-5),
        router=Router(normalize=parts.get("norm_topk_prob", False)),
    )


def _mixtral(parts: _Parts) -> DecoderConfig:
    return parts.config(
        parts.attention(),
        spec=parts.windowed(parts.get("sliding_window", None)),
        norm_eps=parts.number("rms_norm_eps", 1e-5),
        router=Router(normalize=True),
    )


def _qwen2_moe(parts: _Parts) -> DecoderConfig:
    return parts.config(
        parts.attention(qkv_bias=parts.get("qkv_bias", True), out_bias=False),
        router=Router(normalize=parts.get("norm_topk_prob", False)),
        shared_gate=True,
    )


def _qwen3_moe(parts: _Parts) -> DecoderConfig:
    sliding = parts.get("use_sliding_window", False)
    return parts.config(
        parts.attention(qk_norm="head"),
        spec=parts.windowed(parts.get("sliding_window", 4096) if sliding else None),
        router=Router(normalize=parts.get("norm_topk_prob", False)),
    )


def _granitemoe(parts: _Parts) -> DecoderConfig:
    return parts.config(
        parts.attention(scale=parts.number("attention_multiplier", 1.0)),
        router=Router("top_k_softmax"),
        embedding_multiplier=parts.number("embedding_multiplier", 1.0),
        residual_multiplier=parts.number("residual_multiplier", 1.0),
        logits_divisor=parts.number("logits_scaling", 1.0),
    )


def _phimoe(parts: _Parts) -> DecoderConfig:
    return parts.config(
        parts.attention(),
        spec=parts.windowed(parts.get("sliding_window", None)),
        norm_eps=parts.number("rms_norm_eps", 1e-5),
        layer_norm=True,
        router=Router("sparsemixer", jitter=parts.number("router_jitter_noise", 0.01)),
        head_bias=parts.get("lm_head_bias", False),
    )


def _gpt_oss(parts: _Parts) -> DecoderConfig:
    limit = parts.number("swiglu_limit", 7.0)
    return parts.config(
        parts.attention(
            qkv_bias=parts.get("attention_bias", True),
            out_bias=parts.get("attention_bias", True),
            sinks=True,
        ),
        norm_eps=parts.number("rms_norm_eps", 1e-5),
        router=Router("top_k_softmax", bias=True),
        activation=Activation(limit, slope=parts.number("swiglu_alpha", 1.702), offset=1.0),
    )


def _deepseek_v2(parts: _Parts) -> DecoderConfig:
    limited = parts.get("topk_method", "greedy") == "group_limited_greedy"
    return parts.config(
        parts.attention(scale=_latent_scale(parts)),
        rope=replace(parts.rope, interleaved=True),
        router=Router(  # norm_topk_prob is false in all published weights, and not read
            scale=parts.number("routed_scaling_factor", 1.0),
            groups=parts.get("n_group", 1) if limited else 1,
            kept_groups=parts.get("topk_group", 1) if limited else 1,
        ),
    )


def _deepseek_v3(parts: _Parts) -> DecoderConfig:
    return parts.config(
        parts.attention(scale=_latent_scale(parts)),
        rope=replace(parts.rope, interleaved=parts.get("rope_interleave", True)),
        router=Router(
            "sigmoid",
            normalize=parts.get("norm_topk_prob", True),
            scale=parts.number("routed_scaling_factor", 2.5),
            groups=parts.get("n_group", 8),
            kept_groups=parts.get("topk_group", 4),
        ),
    )


FAMILIES: dict[str, Callable[[_Parts], DecoderConfig]] = {
    "olmoe": _olmoe,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "granitemoe": _granitemoe,
    "phimoe": _phimoe,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "gpt_oss": _gpt_oss,
}


def _head_dim(spec: ModelSpec) -> int:
    """Returns the width of a query's head."""
    match spec.mixers[0]:
        case Latent() as latent:
            return latent.qk_nope_head_dim + latent.qk_rope_head_dim
        case GroupedQuery() as grouped:
            return grouped.head_dim
        case other:
            raise InputError(f"{spec.name}: {type(other).__name__} layers are not supported")


def _rotary_dim(spec: ModelSpec) -> int:
    mixer = spec.mixers[0]
    return mixer.qk_rope_head_dim if isinstance(mixer, Latent) else _head_dim(spec)


def _latent_scale(parts: _Parts) -> float:
    return _head_dim(parts.spec) ** -0.5 * softmax_correction(parts.raw)
