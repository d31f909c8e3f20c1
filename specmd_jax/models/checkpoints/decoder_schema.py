"""The keys of a config.json that say how a decoder computes: their types and bounds.

What sizes it is checked by `model_zoo.config_schema`.
"""

from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Epsilon = Annotated[float, Meta(gt=0, le=1)]
Theta = Annotated[float, Meta(gt=1, le=1e15)]
Groups = Annotated[int, Meta(ge=1, le=4096)]
Positions = Annotated[int, Meta(ge=1, le=1 << 40)]
Factors = Annotated[list[Positive], Meta(max_length=1 << 20)]


class RopeRecord(Struct):
    """How rotary embeddings are stretched, see `models.layers.hf_rope`."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Theta | None = None
    factor: Positive | None = None
    original_max_position_embeddings: Positions | None = None
    attention_factor: Positive | None = None
    mscale: NotNegative | None = None
    mscale_all_dim: NotNegative | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    truncate: bool | None = None
    short_factor: Factors | None = None
    short_mscale: Positive | None = None


class DecoderRecord(Struct):
    """What the families read, each some of it."""

    model_type: str | None = None
    hidden_act: str | None = None
    rms_norm_eps: Epsilon | None = None
    clip_qkv: Positive | None = None
    norm_topk_prob: bool | None = None
    use_sliding_window: bool | None = None
    qkv_bias: bool | None = None
    attention_bias: bool | None = None
    lm_head_bias: bool | None = None
    attention_multiplier: Positive | None = None
    embedding_multiplier: Positive | None = None
    residual_multiplier: Positive | None = None
    logits_scaling: Positive | None = None
    router_jitter_noise: NotNegative | None = None
    swiglu_limit: Positive | None = None
    swiglu_alpha: Positive | None = None
    topk_method: str | None = None
    routed_scaling_factor: Positive | None = None
    n_group: Groups | None = None
    topk_group: Groups | None = None
    rope_interleave: bool | None = None
    rope_theta: Theta | None = None
    rope_scaling: RopeRecord | None = None
    rope_parameters: RopeRecord | None = None
    max_position_embeddings: Positions | None = None
    original_max_position_embeddings: Positions | None = None
