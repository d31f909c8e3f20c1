"""The token mixer of each kind of layer, by the sizes in a config.json."""

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo.config_layers import CONV, LINEAR, MLP, MOE, SLIDING, STATE
from specmd_jax.model_zoo.config_sizes import HIDDEN_SIZE, ConfigSizes
from specmd_jax.model_zoo.mixers import (
    GatedDelta,
    GroupedQuery,
    Latent,
    LowRank,
    Mixer,
    NoMixer,
    ShortConv,
    StateSpace,
)

_HEADS = ("num_attention_heads", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads", "num_attention_groups")
_HEAD_DIM = ("head_dim", "kv_channels")
_WINDOW = ("sliding_window", "sliding_window_size")
_MAMBA_HEAD = 64  # of its head, where a config does not say (Mamba-1 has none)


def read_mixers(sizes: ConfigSizes, kinds: list[str]) -> tuple[Mixer, ...]:
    """Returns the mixers of the layers, as the shortest pattern that repeats.

    Raises:
      InputError: a size that a kind of layer needs is missing.
    """
    mixers = [_mixer(sizes, kind, layer) for layer, kind in enumerate(kinds)]
    number = {mixer: place for place, mixer in enumerate(dict.fromkeys(mixers))}
    numbers = [number[mixer] for mixer in mixers]
    periods = range(1, len(numbers))
    period = next((p for p in periods if numbers[p:] == numbers[:-p]), len(numbers))
    return tuple(mixers[:period])


def _mixer(sizes: ConfigSizes, kind: str, layer: int) -> Mixer:
    if kind == STATE:
        return _state_space(sizes)
    if kind == CONV:
        return ShortConv(sizes.get("conv_L_cache", default=3))
    if kind in (MOE, MLP):
        return NoMixer()
    if kind == LINEAR:
        return _gated_delta(sizes, layer)
    if sizes.get("kv_lora_rank"):
        return _latent(sizes, layer)
    if sizes.get("q_lora_rank"):
        return _low_rank(sizes, layer)
    return _grouped_query(sizes, layer, sliding=kind == SLIDING)


def _grouped_query(sizes: ConfigSizes, layer: int, *, sliding: bool) -> GroupedQuery:
    heads, kv_heads, head_dim = _heads(sizes, layer)
    if sliding:  # some shape their layers of one kind apart
        other = sizes.get("attention_other_setting")
        heads = sizes.get("swa_num_attention_heads", "num_sliding_attention_heads", default=heads)
        kv_heads = sizes.get("swa_num_key_value_heads", default=kv_heads)
        head_dim = sizes.get("swa_head_dim", default=head_dim)
        if other is not None:
            heads = other.num_attention_heads or heads
            kv_heads = other.num_attention_groups or kv_heads
            head_dim = other.head_dim or head_dim
    else:  # Gemma 4
        kv_heads = sizes.get("num_global_key_value_heads", default=kv_heads)
        head_dim = sizes.get("global_head_dim", default=head_dim)
    hybrid = sizes.get("linear_num_key_heads") is not None
    value_head_dim = sizes.get("v_head_dim")
    return GroupedQuery(
        heads,
        kv_heads,
        head_dim,
        window=sizes.need(*_WINDOW) if sliding else None,
        output_gate=sizes.get("attn_output_gate", default=hybrid),
        key_is_value=not sliding and sizes.get("attention_k_eq_v", default=False),
        value_head_dim=None if value_head_dim == head_dim else value_head_dim,
    )


def _heads(sizes: ConfigSizes, layer: int) -> tuple[int, int, int]:
    """Returns heads, key-value heads and the width of a head."""
    sizes.need(*_HEADS)
    heads = sizes.by_layer(*_HEADS)[layer]
    kv_heads = sizes.by_layer(*_KV_HEADS, default=heads)[layer]
    head_dim = sizes.get(*_HEAD_DIM) or sizes.need(*HIDDEN_SIZE) // heads
    if not head_dim:
        raise InputError(
            f"{sizes.origin}: {heads} heads are more than the hidden size has values: give head_dim"
        )
    return heads, kv_heads, head_dim


def _latent(sizes: ConfigSizes, layer: int) -> Latent:
    sizes.need(*_HEADS)
    return Latent(
        sizes.by_layer(*_HEADS)[layer],
        kv_lora_rank=sizes.need("kv_lora_rank"),
        qk_nope_head_dim=sizes.need("qk_nope_head_dim"),
        qk_rope_head_dim=sizes.get("qk_rope_head_dim", default=0),
        v_head_dim=sizes.need("v_head_dim"),
        q_lora_rank=sizes.get("q_lora_rank", default=0),
    )


def _low_rank(sizes: ConfigSizes, layer: int) -> LowRank:
    heads, kv_heads, head_dim = _heads(sizes, layer)
    rates = sizes.get("compress_rates", default={})
    named = rates.get((sizes.get("layer_types") or [""] * (layer + 1))[layer], 0)
    ratio = sizes.by_layer("compress_ratios", default=named)[layer]
    return LowRank(
        heads,
        kv_heads,
        head_dim,
        q_lora_rank=sizes.need("q_lora_rank"),
        o_lora_rank=sizes.get("o_lora_rank", default=0),
        o_groups=sizes.get("o_groups", default=1),
        ratio=ratio or 1,
        key_is_value=sizes.get("compress_ratios", "compress_rates") is not None,
    )


def _gated_delta(sizes: ConfigSizes, layer: int) -> GatedDelta:
    kernel = sizes.get("linear_conv_kernel_dim", default=4)
    if sizes.get("linear_num_key_heads") is not None:
        return GatedDelta(
            sizes.need("linear_num_key_heads"),
            sizes.need("linear_num_value_heads"),
            key_head_dim=sizes.need("linear_key_head_dim"),
            value_head_dim=sizes.need("linear_value_head_dim"),
            conv_kernel=kernel,
        )
    if (kimi := sizes.get("linear_attn_config")) is not None:
        heads, width, kernel = kimi.num_heads, kimi.head_dim, kimi.short_conv_kernel_size
    else:
        heads, _, width = _heads(sizes, layer)
        heads = sizes.get("linear_num_heads", default=heads)
        width = sizes.get("linear_head_dim", default=width)
    return GatedDelta(heads, heads, key_head_dim=width, value_head_dim=width, conv_kernel=kernel)


def _state_space(sizes: ConfigSizes) -> StateSpace:
    inner = sizes.get("mamba_expand", default=2) * sizes.need(*HIDDEN_SIZE)
    width = sizes.get("mamba_d_head", "mamba_head_dim")
    heads = sizes.get("mamba_n_heads", "mamba_num_heads")
    if not isinstance(width, int):
        width = max(1, inner // heads) if heads else _MAMBA_HEAD
    return StateSpace(
        heads or max(1, inner // width),
        width,
        state_dim=sizes.need("mamba_d_state", "ssm_state_size"),
        num_groups=sizes.get("mamba_n_groups", "n_groups", default=1),
        conv_kernel=sizes.get("mamba_d_conv", "conv_kernel", default=4),
    )
