"""How the families name the tensors of their checkpoints."""

from typing import Any, NamedTuple

from specmd_jax.models.config import DecoderConfig

_PARTS = {
    "embedding": "model.embed_tokens",
    "layers": "model.layers",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "attention": "self_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "o_proj",
    "query_norm": "q_norm",
    "key_norm": "k_norm",
    "query_down": "q_a_proj",
    "query_up": "q_b_proj",
    "latent_down": "kv_a_proj_with_mqa",
    "latent_norm": "kv_a_layernorm",
    "latent_up": "kv_b_proj",
    "moe": "mlp",
    "dense": "mlp",
    "up": "up_proj",
    "down": "down_proj",
    "correction": "gate.e_score_correction_bias",
    "shared": "shared_experts",
    "shared_gate": "shared_expert_gate",
    "kernel": "weight",
    "scale": "weight",
}
_FAMILY_PARTS = {
    "mixtral": {"moe": "block_sparse_moe"},
    "phimoe": {"moe": "block_sparse_moe"},
    "granitemoe": {"moe": "block_sparse_moe", "gate": "router.layer"},
    "gpt_oss": {"gate": "router"},
    "qwen2_moe": {"shared": "shared_expert"},
}


def tensor_name(path: tuple[Any, ...], config: DecoderConfig) -> str:
    """Returns what a checkpoint of the family calls the weight at `path` of the decoder.

    Args:
      path: as in the decoder's state, e.g. ("layers", 0, "attention", "query", "kernel").
      config: of the decoder.
    """
    parts = _PARTS | _FAMILY_PARTS.get(config.family, {})
    names = [str(parts.get(part, part)) for part in path]
    match path:
        case ("embedding", _):
            names[-1] = "weight"
        case ("norm", _):
            names[0] = "model.norm"
        case ("layers", _, "norm", _):
            names[2] = "post_attention_layernorm"
        case (*_, "attention", "query_norm", _) if config.attention.qk_norm == "none":
            names[-2] = "q_a_layernorm"  # latent attention's
        case (*_, "gate", "kernel") if "shared" in path or "dense" in path:
            names[-2] = "gate_proj"
    return ".".join(names)


class SeparateExperts(NamedTuple):
    """Three matrices an expert, each [out, in], by the templates of their names."""

    gate: str
    up: str
    down: str


class FusedExperts(NamedTuple):
    """One tensor a layer for gate and up, one for down, each [experts, out, in]."""

    gate_up: str
    down: str


class InterleavedExperts(NamedTuple):
    """As fused, but [experts, in, out], gate and up in turn, and with biases: gpt-oss."""

    gate_up: str
    down: str


ExpertNames = SeparateExperts | FusedExperts | InterleavedExperts


def expert_names(config: DecoderConfig, layer: int) -> tuple[ExpertNames, ...]:
    """Returns the ways in which the family may store the experts of a decoder layer."""
    base = f"model.layers.{layer}."
    match config.family:
        case "mixtral" | "phimoe":
            one = base + "block_sparse_moe.experts.{expert}."
            return (SeparateExperts(f"{one}w1.weight", f"{one}w3.weight", f"{one}w2.weight"),)
        case "granitemoe":
            moe = base + "block_sparse_moe."
            return (FusedExperts(f"{moe}input_linear.weight", f"{moe}output_linear.weight"),)
        case "gpt_oss":
            many = base + "mlp.experts."
            return (InterleavedExperts(f"{many}gate_up_proj", f"{many}down_proj"),)
        case _:
            many = base + "mlp.experts."
            one = many + "{expert}."
            return (
                SeparateExperts(
                    f"{one}gate_proj.weight", f"{one}up_proj.weight", f"{one}down_proj.weight"
                ),
                FusedExperts(f"{many}gate_up_proj", f"{many}down_proj"),
            )
