"""Tiny models of every supported family, with every variation their published weights use.

Values are those of a config.json; what is left out is the family's default.
"""

import zlib

import numpy as np

_COMMON = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_LATENT = _COMMON | {
    "num_key_value_heads": 4,
    "intermediate_size": 40,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 32,
}

ARCHITECTURES = {
    "olmoe": _COMMON
    | {
        "model_type": "olmoe",
        "num_key_value_heads": 4,
        "intermediate_size": 16,
        "num_experts": 6,
        "num_experts_per_tok": 3,
    },
    "olmoe-clipped": _COMMON
    | {
        "model_type": "olmoe",
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "clip_qkv": 0.8,
    },
    "mixtral": _COMMON
    | {
        "model_type": "mixtral",
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": 6,
    },
    "qwen2-moe": _COMMON
    | {
        "model_type": "qwen2_moe",
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
        "num_experts": 6,
        "num_experts_per_tok": 3,
    },
    "qwen3-moe": _COMMON
    | {
        "model_type": "qwen3_moe",
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 40,
        "moe_intermediate_size": 16,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
    "granite-moe": _COMMON
    | {
        "model_type": "granitemoe",
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "tie_word_embeddings": True,
        "embedding_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "residual_multiplier": 1.4,
        "logits_scaling": 6.0,
    },
    "phi-moe": _COMMON
    | {
        "model_type": "phimoe",
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "attention_bias": True,
        "lm_head_bias": True,
        "router_jitter_noise": 0.2,
        "sliding_window": 200,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.3, 2.0, 2.5],
            "long_factor": [2.0, 3.0, 4.0, 5.0],
            "short_mscale": 1.2,
            "long_mscale": 1.3,
            "original_max_position_embeddings": 128,
        },
    },
    "deepseek-v2-lite": _LATENT
    | {
        "model_type": "deepseek_v2",
        "q_lora_rank": None,
        "rope_parameters": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek-v2": _LATENT
    | {
        "model_type": "deepseek_v2",
        "q_lora_rank": 14,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 4.0,
        "rope_parameters": _YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
    },
    "deepseek-v3": _LATENT
    | {
        "model_type": "deepseek_v3",
        "q_lora_rank": 14,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "n_shared_experts": 1,
        "rope_parameters": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "gpt-oss": _COMMON
    | {
        "model_type": "gpt_oss",
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
        "swiglu_limit": 1.5,
        "rope_parameters": _YARN | {"rope_theta": 150000.0, "truncate": False},
    },
}


def weights(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the weights of a tensor, drawn by its name: the same on every machine."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = rng.standard_normal(shape)
    if "norm" in name and name.endswith("weight"):
        drawn = 1 + 0.2 * drawn
    elif len(shape) == 1 or "bias" in name:
        drawn = 0.3 * drawn
    elif "embed" not in name:
        drawn = 0.2 * drawn
    return drawn.astype(np.float32)
