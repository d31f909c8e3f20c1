"""The keys of a config.json that size a model: each family's names, their types and bounds.

Keys that look as if they changed a size or the kind of a layer, and that are none of these, are
listed by `not_understood`: a reader says so rather than passing them over.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

MAX_LAYERS = 4096

Layers = Annotated[int, Meta(ge=1, le=MAX_LAYERS)]
Layer = Annotated[int, Meta(ge=0, le=MAX_LAYERS)]
Experts = Annotated[int, Meta(ge=0, le=4096)]
Chosen = Annotated[int, Meta(ge=0, le=512)]  # of a layer's experts by one token
Width = Annotated[int, Meta(ge=1, le=1 << 22)]
MaybeWidth = Annotated[int, Meta(ge=0, le=1 << 22)]
Vocabulary = Annotated[int, Meta(ge=1, le=1 << 24)]
LayerList = Annotated[list[Layer], Meta(max_length=MAX_LAYERS)]
Names = Annotated[list[str], Meta(max_length=MAX_LAYERS)]
Widths = Width | Annotated[list[Width], Meta(max_length=MAX_LAYERS)] | None  # one a layer
MaybeWidths = MaybeWidth | Annotated[list[MaybeWidth], Meta(max_length=MAX_LAYERS)] | None
TopK = Chosen | Annotated[list[Chosen], Meta(max_length=MAX_LAYERS)] | None
Counts = Experts | Annotated[list[Experts], Meta(max_length=MAX_LAYERS)] | None


class OtherAttention(Struct):
    """Step-3.5: how layers of the other kind of attention are shaped."""

    num_attention_heads: Width | None = None
    num_attention_groups: Width | None = None
    head_dim: Width | None = None


class KimiDelta(Struct):
    """Kimi Linear: which layers are of linear attention, counted from 1, and their shape."""

    num_heads: Width
    head_dim: Width
    kda_layers: LayerList
    short_conv_kernel_size: Width = 4
    full_attn_layers: LayerList | None = None


class ConfigRecord(Struct):
    """What is read of a config.json's language model; every family writes some of it."""

    model_type: str | None = None
    # the decoder
    num_hidden_layers: Layers | None = None
    n_layers: Layers | None = None
    num_layers: Layers | None = None
    hidden_size: Width | None = None
    d_model: Width | None = None
    vocab_size: Vocabulary | None = None
    tie_word_embeddings: bool | None = None
    hidden_act: str | None = None
    mlp_hidden_act: str | None = None
    # the experts
    num_local_experts: Counts = None
    num_experts: Counts = None
    n_routed_experts: Counts = None
    moe_num_experts: Counts = None
    num_experts_per_tok: TopK = None
    num_experts_per_token: TopK = None
    experts_per_token: TopK = None
    top_k_experts: TopK = None
    moe_top_k: TopK = None
    moe_topk: TopK = None
    moe_k: TopK = None
    moe_intermediate_size: MaybeWidths = None
    expert_ffn_hidden_size: Widths = None
    ffn_hidden_size: Widths = None
    intermediate_size: MaybeWidths = None
    intermediate_size_mlp: Width | None = None
    dense_intermediate_size: Width | None = None
    n_shared_experts: Counts = None
    num_shared_experts: Counts = None
    num_shared_expert: Counts = None
    moe_num_shared_experts: Counts = None
    shared_expert_intermediate_size: MaybeWidth | None = None
    shared_intermediate_size: MaybeWidth | None = None
    moe_shared_expert_intermediate_size: MaybeWidth | None = None
    share_expert_dim: MaybeWidth | None = None
    # which layers have experts
    first_k_dense_replace: Layer | None = None
    num_dense_layers: Layer | None = None
    moe_layer_start_index: Layer | None = None
    moe_layer_end_index: Annotated[int, Meta(ge=-1, le=MAX_LAYERS)] | None = None
    moe_layer_interval: Layer | None = None
    moe_layer_freq: Layer | LayerList | None = None
    decoder_sparse_step: Layer | None = None
    interleave_moe_layer_step: Layer | None = None
    expert_layer_period: Layer | None = None
    expert_layer_offset: Layer | None = None
    mlp_only_layers: LayerList | None = None
    moe_layers: LayerList | None = None
    moe_layers_enum: str | LayerList | None = None
    mlp_layer_types: Names | None = None
    # attention
    num_attention_heads: Widths = None
    n_heads: Width | None = None
    num_key_value_heads: Widths = None
    num_kv_heads: Width | None = None
    kv_n_heads: Width | None = None
    num_attention_groups: Width | None = None
    head_dim: Width | None = None
    kv_channels: Width | None = None
    attn_output_gate: bool | None = None
    attention_k_eq_v: bool | None = None
    num_global_key_value_heads: Width | None = None
    global_head_dim: Width | None = None
    swa_num_attention_heads: Width | None = None
    swa_num_key_value_heads: Width | None = None
    swa_head_dim: Width | None = None
    attention_other_setting: OtherAttention | None = None
    kv_lora_rank: MaybeWidth | None = None
    q_lora_rank: MaybeWidth | None = None
    o_lora_rank: MaybeWidth | None = None
    o_groups: Width | None = None
    num_sliding_attention_heads: Width | None = None
    qk_nope_head_dim: Width | None = None
    qk_rope_head_dim: MaybeWidth | None = None
    v_head_dim: Width | None = None
    compress_ratios: Annotated[list[MaybeWidth], Meta(max_length=MAX_LAYERS)] | None = None
    compress_rates: dict[str, MaybeWidth] | None = None
    # which layer mixes tokens how
    layer_types: Names | None = None
    layers_block_type: Names | None = None
    hybrid_override_pattern: str | None = None
    hybrid_layer_pattern: LayerList | None = None
    attn_type_list: LayerList | None = None
    attn_layer_period: Layer | None = None
    attn_layer_offset: Layer | None = None
    full_attention_interval: Layer | None = None
    sliding_window: MaybeWidth | None = None
    sliding_window_size: MaybeWidth | None = None
    sliding_window_pattern: Layer | None = None
    global_attn_every_n_layers: Layer | None = None
    index_n_heads: Width | None = None
    linear_attn_config: KimiDelta | None = None
    linear_num_key_heads: Width | None = None
    linear_num_value_heads: Width | None = None
    linear_key_head_dim: Width | None = None
    linear_value_head_dim: Width | None = None
    linear_conv_kernel_dim: MaybeWidth | None = None
    linear_num_heads: Width | None = None
    linear_head_dim: Width | None = None
    conv_L_cache: MaybeWidth | None = None
    mamba_expand: Width | None = None
    mamba_n_heads: Width | None = None
    mamba_num_heads: Width | None = None
    mamba_d_head: Width | str | None = None
    mamba_head_dim: Width | None = None
    mamba_d_state: MaybeWidth | None = None
    ssm_state_size: MaybeWidth | None = None
    mamba_n_groups: Width | None = None
    n_groups: Width | None = None
    mamba_d_conv: MaybeWidth | None = None
    conv_kernel: MaybeWidth | None = None


KNOWN = frozenset(ConfigRecord.__struct_fields__)

# A key with one of these in it may change what is counted ...
_SIZES = re.compile(
    r"expert|moe|layer|attn|attention|head|hidden|embd|embed|mamba|ssm|conv|mlp|ffn|block|pattern"
    r"|hybrid|(^|_)(num|dim|size|rank|window|ratios?|factor|share|latent|kv|interval|period|freq"
    r"|lora)(_|$)"
)
# ... unless it is about how something is computed or was trained, or about what is left out.
_NO_SIZES = re.compile(
    "activation|alpha|audio|beta|cache|chunk|clip|dropout|dtype|fp32|image|jitter|keep|label|limit"
    "|loss|mtp|multiplier|nextn|norm|overlap|prob|rope|rotary|router|routing|scal|scoring|sink"
    "|softcap|speech|strategy|theta|token|tuning|video|vision"
    "|_(act|coef|eps|epsilon|fn|implementation|kernels?|method)$|^(index|output|unpadded)_|max_"
    "|_bias$|(^|_)bias_|(^|_)init|_hash_"
)
_NO_SIZE_EITHER = {
    "add_cross_attention",
    "attn_config",
    "block_size",
    "cross_attention_hidden_size",
    "enable_moe_block",
    "ffn_config",
    "mamba_dt_rank",
    "moe_group",
    "moe_permute_fusion",
    "n_group",
    "num_expert_group",
    "num_expert_groups",
    "pruned_heads",
    "qk_head_dim",
    "topk_group",
    "use_sliding_attention",
    "use_sliding_window",
}


def not_understood(config: Mapping[str, Any]) -> list[str]:
    """Returns the keys that may change a size or a layer's kind and are not read."""
    return [
        str(key)
        for key, value in config.items()
        if key not in KNOWN and _says_something(value) and _may_size(str(key))
    ]


def _may_size(key: str) -> bool:
    harmless = key in _NO_SIZE_EITHER or _NO_SIZES.search(key)
    return bool(_SIZES.search(key)) and not harmless


def _says_something(value: Any) -> bool:
    """Says whether a value could be a size, a switch that is on, or a plan of the layers."""
    return bool(value) and not isinstance(value, float)
