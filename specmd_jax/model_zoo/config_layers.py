"""Which decoder layers of a config.json have experts, and how each mixes its tokens.

DeepSeek and GLM count from `first_k_dense_replace` and take every `moe_layer_freq`-th; Qwen and
Llama 4 take the last of every `step` layers; Jamba has a period and an offset; others mark or list
the layers one by one.
"""

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo.config_schema import MAX_LAYERS
from specmd_jax.model_zoo.config_sizes import ConfigSizes

NUM_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_FIRST_MOE_LAYER = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_MOE_STEP = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")

# Kinds of layers by every name there is for them.
FULL, SLIDING, LINEAR, STATE, CONV = "full", "sliding", "linear", "state space", "convolution"
NO_MIXER, MOE, MLP = "no mixer", "moe", "mlp"
_KINDS = {
    "full_attention": FULL,
    "attention": FULL,
    "chunked_attention": FULL,  # chunks of 8192 tokens: as good as all
    "heavily_compressed_attention": FULL,
    "compressed_sparse_attention": FULL,
    "indexed_attention": FULL,
    "*": FULL,
    "sliding_attention": SLIDING,
    "linear_attention": LINEAR,
    "mamba": STATE,
    "mamba2": STATE,
    "M": STATE,
    "conv": CONV,
    "moe": MOE,
    "E": MOE,
    "mlp": MLP,
    "-": MLP,
}
_SEPARATE = {MOE, MLP, NO_MIXER}  # kinds that are layers of their own in Nemotron-H


def layer_kinds(sizes: ConfigSizes) -> tuple[list[str], list[str]]:
    """Returns the kind of each decoder layer, and the names of kinds that are not known."""
    named = _named_kinds(sizes)
    unknown = sorted({name for name in named if name not in _KINDS and name not in _SEPARATE})
    kinds = [_KINDS.get(name, FULL) for name in named]
    has_states = sizes.get("mamba_d_state", "ssm_state_size") is not None
    if has_states and sizes.get("linear_num_key_heads", "linear_num_heads") is None:
        kinds = [STATE if kind == LINEAR else kind for kind in kinds]
    return kinds, unknown


def moe_layers(sizes: ConfigSizes, kinds: list[str]) -> list[int]:
    """Returns the decoder layers that have experts, ascending.

    Raises:
      InputError: a list has not one entry a layer, or names a layer that is not there.
    """
    layers = range(sizes.num_layers)
    if MOE in kinds:
        return [layer for layer in layers if kinds[layer] == MOE]
    experts = sizes.by_layer(*NUM_EXPERTS, default=0)
    listed = _listed_layers(sizes)
    return [
        layer
        for layer in layers
        if experts[layer] > 1
        and (layer in listed if listed is not None else _in_turn(sizes, layer))
    ]


def bare_layers(kinds: list[str]) -> list[int]:
    """Returns the layers without a feed-forward block, where blocks are layers of their own."""
    if not {MOE, MLP} & set(kinds):
        return []
    return [layer for layer, kind in enumerate(kinds) if kind not in (MOE, MLP)]


def _named_kinds(sizes: ConfigSizes) -> list[str]:
    layers = range(sizes.num_layers)
    for key in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        if sizes.get(key) is not None:
            return sizes.by_layer(key)
    if sizes.get("hybrid_layer_pattern") is not None:  # MiMo
        marks = sizes.by_layer("hybrid_layer_pattern")
        return ["sliding_attention" if mark else "full_attention" for mark in marks]
    if sizes.get("attn_type_list") is not None:  # MiniMax
        marks = sizes.by_layer("attn_type_list")
        return ["full_attention" if mark else "linear_attention" for mark in marks]
    if (linear := sizes.get("linear_attn_config")) is not None:
        delta = set(linear.kda_layers)
        return ["linear_attention" if i + 1 in delta else "full_attention" for i in layers]
    if period := sizes.get("attn_layer_period"):
        offset = sizes.get("attn_layer_offset", default=0)
        return ["full_attention" if i % period == offset else "mamba" for i in layers]
    if every := sizes.get("sliding_window_pattern", "global_attn_every_n_layers"):
        return ["sliding_attention" if (i + 1) % every else "full_attention" for i in layers]
    every = sizes.get("full_attention_interval") or 1
    return ["linear_attention" if (i + 1) % every else "full_attention" for i in layers]


def _listed_layers(sizes: ConfigSizes) -> set[int] | None:
    """Returns the layers that a config lists or marks as having experts, None if it does not."""
    named = sizes.get("moe_layers", "moe_layers_enum")
    if isinstance(named, str):
        named = _numbers(sizes, named)
    if named is not None:
        if max(named, default=0) >= sizes.num_layers:
            raise InputError(
                f"{sizes.origin}: layer {max(named)} has experts, of {sizes.num_layers} layers: "
                "name those there are, from 0 on"
            )
        return set(named)
    if sizes.get("mlp_layer_types") is not None:
        return {i for i, kind in enumerate(sizes.by_layer("mlp_layer_types")) if kind != "dense"}
    if isinstance(sizes.get("moe_layer_freq"), list):
        return {i for i, marked in enumerate(sizes.by_layer("moe_layer_freq")) if marked}
    return None


def _numbers(sizes: ConfigSizes, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InputError(
            f"{sizes.origin}: moe_layers_enum must be layers between commas, got {text[:40]!r}"
        )
    return [int(part) for part in parts]


def _in_turn(sizes: ConfigSizes, layer: int) -> bool:
    first = sizes.get(*_FIRST_MOE_LAYER, default=0)
    last = sizes.get("moe_layer_end_index", default=-1)
    frequency = sizes.get("moe_layer_freq") or 1
    step = sizes.get(*_MOE_STEP) or 1
    period = sizes.get("expert_layer_period") or 1
    offset = sizes.get("expert_layer_offset", default=0)
    return (
        first <= layer <= (MAX_LAYERS if last < 0 else last)
        and layer % frequency == 0
        and (layer + 1) % step == 0
        and layer % period == offset
        and layer not in sizes.get("mlp_only_layers", default=())
    )
