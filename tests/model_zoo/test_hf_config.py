"""config.json of each family, cut to the keys that size a model, read back to the table's row."""

import dataclasses
import json

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import MODELS, ModelSpec, from_config

MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
OLMOE = {
    "model_type": "olmoe",
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "vocab_size": 50304,
}
QWEN2_MOE = {
    "model_type": "qwen2_moe",
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_MOE = {
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
}
QWEN3_NEXT = {
    "model_type": "qwen3_next",
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "mlp_only_layers": [],
    "moe_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 512,
    "vocab_size": 151936,
}
QWEN3_5 = {
    "model_type": "qwen3_5_moe",
    "text_config": QWEN3_NEXT
    | {
        "model_type": "qwen3_5_moe_text",
        "attn_output_gate": True,
        "layer_types": [*["linear_attention"] * 3, "full_attention"] * 10,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 40,
        "vocab_size": 248320,
    },
    "vision_config": {"hidden_size": 1152},
}
DEEPSEEK_MOE = {
    "model_type": "deepseek",
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 28,
    "num_key_value_heads": 16,
    "vocab_size": 102400,
}
DEEPSEEK_V2_LITE = DEEPSEEK_MOE | {
    "model_type": "deepseek_v2",
    "kv_lora_rank": 512,
    "num_hidden_layers": 27,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
DEEPSEEK_V3 = DEEPSEEK_V2_LITE | {
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "vocab_size": 129280,
}
PHI_MOE = {
    "model_type": "phimoe",
    "hidden_size": 4096,
    "intermediate_size": 6400,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
GRANITE_MOE = {
    "model_type": "granitemoe",
    "hidden_size": 1536,
    "intermediate_size": 512,
    "num_attention_heads": 24,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 40,
    "tie_word_embeddings": True,
    "vocab_size": 49155,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "sliding_window": 128,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}
GLM4_MOE = {
    "model_type": "glm4_moe",
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 46,
    "num_key_value_heads": 8,
    "vocab_size": 151552,
}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "attention_chunk_size": 8192,
        "head_dim": 128,
        "hidden_size": 5120,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_attention_heads": 40,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "vocab_size": 202048,
    },
}
GEMMA_4 = {
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text",
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 5,
        "moe_intermediate_size": 704,
        "num_attention_heads": 16,
        "num_experts": 128,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "sliding_window": 1024,
        "top_k_experts": 8,
        "vocab_size": 262144,
    },
}
DBRX = {
    "model_type": "dbrx",
    "attn_config": {"kv_n_heads": 8, "clip_qkv": 8},
    "d_model": 6144,
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    "n_heads": 48,
    "n_layers": 40,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}
LING = {
    "model_type": "bailing_moe",
    "first_k_dense_replace": 0,
    "hidden_size": 2048,
    "intermediate_size": 1408,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "num_shared_experts": 2,
    "tie_word_embeddings": False,
    "vocab_size": 126464,
}

FAMILIES = {
    "mixtral-8x7b": MIXTRAL,
    "olmoe-1b-7b-0924": OLMOE,
    "qwen1.5-moe-a2.7b": QWEN2_MOE,
    "qwen3-30b-a3b": QWEN3_MOE,
    "qwen3-next-80b-a3b": QWEN3_NEXT,
    "qwen3.5-35b-a3b": QWEN3_5,
    "deepseek-moe-16b": DEEPSEEK_MOE,
    "deepseek-v2-lite": DEEPSEEK_V2_LITE,
    "deepseek-v3": DEEPSEEK_V3,
    "phi-3.5-moe": PHI_MOE,
    "granite-3.1-3b-a800m": GRANITE_MOE,
    "gpt-oss-20b": GPT_OSS,
    "glm-4.5-air": GLM4_MOE,
    "llama-4-maverick": LLAMA_4,
    "gemma-4-26b-a4b": GEMMA_4,
    "dbrx": DBRX,
    "ling-lite": LING,
}


def sizes(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, name="", hf_id="", source="")


@pytest.mark.parametrize("name", FAMILIES)
def test_config_gives_the_row_of_the_table(name):
    assert sizes(from_config(FAMILIES[name])) == sizes(MODELS[name])


def test_file_and_folder_are_read_alike(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MIXTRAL))
    spec = from_config(path)
    assert spec == from_config(tmp_path) == from_config(str(path))
    assert spec.source == str(path)


def test_a_config_without_an_id_is_called_by_its_folder(tmp_path):
    folder = tmp_path / "my-mixtral"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MIXTRAL))
    assert from_config(folder).name == from_config(folder / "config.json").name == "my-mixtral"
    assert from_config(folder).hf_id == str(folder / "config.json")


def test_name_comes_from_the_hub_id():
    spec = from_config(OLMOE | {"_name_or_path": "allenai/OLMoE-1B-7B-0125"})
    assert (spec.name, spec.hf_id) == ("OLMoE-1B-7B-0125", "allenai/OLMoE-1B-7B-0125")


@pytest.mark.parametrize(
    ("change", "dense_layers"),
    [
        ({"decoder_sparse_step": 4}, (0, 1, 2, 4, 5, 6)),
        ({"mlp_only_layers": [0, 5]}, (0, 5)),
        ({"first_k_dense_replace": 2}, (0, 1)),
        ({"moe_layer_freq": 4}, (1, 2, 3, 5, 6, 7)),
        ({"moe_layer_freq": [0, 1, 1, 1, 1, 1, 1, 0]}, (0, 7)),
    ],
)
def test_dense_layers(change, dense_layers):
    spec = from_config(QWEN3_MOE | {"num_hidden_layers": 8} | change)
    assert spec.dense_layers == dense_layers
    assert spec.dense_intermediate_size == 6144


def test_experts_of_a_plain_activation_have_no_gate():
    assert not from_config(MIXTRAL | {"hidden_act": "relu2"}).gated


def without(config: dict, key: str) -> dict:
    return {k: v for k, v in config.items() if k != key}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (without(MIXTRAL, "num_local_experts"), "is a dense model"),
        (MIXTRAL | {"num_local_experts": 1}, "is a dense model"),
        (without(MIXTRAL, "num_experts_per_tok"), "lacks num_experts_per_tok"),
        (without(MIXTRAL, "hidden_size"), "lacks hidden_size or d_model"),
        (without(GPT_OSS, "sliding_window"), "lacks sliding_window"),
        (without(DEEPSEEK_V3, "v_head_dim"), "lacks v_head_dim"),
        (without(MIXTRAL, "vocab_size") | {"vocab_sizes": 1}, "is vocab_sizes a slip of it"),
        (without(MIXTRAL, "vocab_size") | {"vocab_size" + " " * 99: 1}, "is it a MoE config"),
        (MIXTRAL | {"num_hidden_layers": 10**9}, "at most 4,096, got 1000000000"),
        (MIXTRAL | {"num_hidden_layers": 10**400}, "at most 4,096, got"),
        (MIXTRAL | {"hidden_size": True}, "hidden_size must be a whole number, got true"),
        (MIXTRAL | {"head_dim": 0}, "head_dim must be a whole number of at least 1, got 0"),
        (MIXTRAL | {"num_attention_heads": 8192}, "8192 heads are more than the hidden size"),
        (MIXTRAL | {"mlp_only_layers": 0}, "mlp_only_layers must be a list, got 0"),
        (MIXTRAL | {"mlp_only_layers": ["0"]}, r"mlp_only_layers\[0\] must be a whole number"),
        (MIXTRAL | {"moe_layers_enum": "3,x"}, "layers between commas, got '3,x'"),
        (MIXTRAL | {"first_k_dense_replace": 32}, "no layer has experts"),
        (MIXTRAL | {"moe_layers": [32]}, "layer 32 has experts, of 32 layers"),
        (MIXTRAL | {"moe_topk": [2] * 31 + [3], "num_experts_per_tok": None}, "differs among"),
        (MIXTRAL | {"hidden_size": 1 << 22, "intermediate_size": 1 << 22}, "more than any model"),
        (MIXTRAL | {"quantization_config": {"bits": "4"}}, "bits must be a whole number"),
        (MIXTRAL | {"d_ff": 8}, "an encoder-decoder"),
        (
            MIXTRAL | {"num_hidden_layers": "32"},
            "num_hidden_layers must be a whole number, got '32'",
        ),
        (MIXTRAL | {"num_attention_heads": 0}, "num_attention_heads must be .* at least 1, got 0"),
        (MIXTRAL | {"layer_types": ["full_attention"]}, "layer_types has 1 entries, 32 layers"),
    ],
)
def test_what_cannot_be_sized_is_refused_in_one_line(config, message):
    with pytest.raises(InputError, match=message) as error:
        from_config(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "is not JSON"), ("[1]", "holds no JSON object")],
)
def test_unreadable_files_are_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        from_config(path)
