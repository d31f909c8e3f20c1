"""Kinds of layers and keys that few families have: sized right, or said; never passed over."""

from typing import Any

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import from_config
from specmd_jax.model_zoo.config_schema import not_understood
from tests.model_zoo.test_hf_config import DEEPSEEK_V3, FAMILIES, MIXTRAL, QWEN3_MOE

CONTEXT = 131_072
DENSE_FIRST = ",".join(str(layer) for layer in range(3, 45))
STEP_3_5: dict[str, Any] = {
    "model_type": "step3p5", "hidden_size": 4096, "num_hidden_layers": 45, "vocab_size": 128896,
    "num_attention_heads": 64, "num_attention_groups": 8, "head_dim": 128,
    "intermediate_size": 11264, "moe_num_experts": 288, "moe_top_k": 8,
    "moe_intermediate_size": 1280, "share_expert_dim": 1280, "moe_layers_enum": DENSE_FIRST,
    "sliding_window": 512,
    "layer_types": ["full_attention", *["sliding_attention"] * 3] * 11 + ["full_attention"],
    "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8},
}  # fmt: skip
DEEPSEEK_V4: dict[str, Any] = {
    "model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 43,
    "moe_intermediate_size": 2048, "num_attention_heads": 64, "num_key_value_heads": 1,
    "head_dim": 512, "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8,
    "qk_rope_head_dim": 64, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 6, "index_n_heads": 64, "vocab_size": 129280,
    "compress_ratios": [0, 0, *[4, 128] * 20, 4], "expert_dtype": "fp4",
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
HUNYUAN: dict[str, Any] = {
    "model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128167,
    "intermediate_size": 3072, "num_experts": 64, "moe_intermediate_size": [3072] * 32,
    "moe_topk": [8] * 32, "num_shared_expert": [1] * 32, "tie_word_embeddings": True,
}  # fmt: skip
GRANITE_4: dict[str, Any] = {
    "model_type": "granitemoehybrid", "hidden_size": 4096, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 72,
    "num_experts_per_tok": 10, "shared_intermediate_size": 1536, "intermediate_size": 768,
    "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_heads": 128, "mamba_d_head": 64,
    "tie_word_embeddings": True, "vocab_size": 100352,
    "layer_types": [*["mamba"] * 5, "attention", *["mamba"] * 4] * 4,
}  # fmt: skip
JAMBA: dict[str, Any] = {
    "model_type": "jamba", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_experts": 16, "num_experts_per_tok": 2, "expert_layer_period": 2,
    "expert_layer_offset": 1, "attn_layer_period": 8, "attn_layer_offset": 4,
    "mamba_d_state": 16, "mamba_expand": 2, "vocab_size": 65536,
}  # fmt: skip
NEMOTRON_3: dict[str, Any] = {  # a layer is a mixer or a feed-forward block
    "model_type": "nemotron_h", "hidden_size": 2688, "num_attention_heads": 32,
    "num_key_value_heads": 2, "head_dim": 128, "mlp_hidden_act": "relu2", "vocab_size": 131072,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "n_routed_experts": 128, "num_experts_per_tok": 6, "moe_intermediate_size": 1856,
    "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 3712,
    "mamba_num_heads": 64, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "total", "active", "kv_gb"),
    [
        (STEP_3_5, 196e9, 11e9, 6.5),
        (DEEPSEEK_V4, 284e9, 13e9, 1.0),
        (HUNYUAN, 80e9, 13e9, 17.2),
        (GRANITE_4, 32e9, 9e9, 2.2),
        (JAMBA, 52e9, 12e9, 2.1),
        (NEMOTRON_3, 31.6e9, 3.6e9, 0.8),
    ],
    ids=["step-3.5-flash", "deepseek-v4-flash", "hunyuan", "granite-4", "jamba", "nemotron-3"],
)
def test_sizes_are_the_announced_ones(config, total: float, active: float, kv_gb: float):
    spec = from_config(config)
    assert spec.total_params == pytest.approx(total, rel=0.02)
    assert spec.active_params == pytest.approx(active, rel=0.1)
    assert spec.cache_bytes(CONTEXT) / 1e9 == pytest.approx(kv_gb, rel=0.1)


def test_layers_that_are_listed_have_experts():
    spec = from_config(STEP_3_5)
    assert spec.num_moe_layers == 42 and spec.dense_layers == (0, 1, 2)
    assert from_config(STEP_3_5 | {"moe_layers_enum": [4, 9]}).num_moe_layers == 2
    kinds = ["dense", *["sparse"] * 44]
    assert from_config(
        STEP_3_5 | {"moe_layers_enum": None, "mlp_layer_types": kinds}
    ).dense_layers == (0,)


def test_sliding_layers_may_be_shaped_apart():
    full, *sliding = from_config(STEP_3_5).layer_mixers[:4]
    assert full.cache_values(CONTEXT) == 2 * 8 * 128 * CONTEXT
    assert {mixer.cache_values(CONTEXT) for mixer in sliding} == {2 * 8 * 128 * 512}
    assert sliding[0].num_params(4096) == 4096 * 128 * (2 * 96 + 2 * 8)


def test_what_is_priced_roughly_is_said():
    (note,) = from_config(GRANITE_4).notes
    assert "36 of 40 layers are state-space layers" in note
    assert "Gated DeltaNet" in from_config(MIXTRAL | {"attn_type_list": [0, 1] * 16}).notes[0]
    assert "conv2 are not known" in from_config(MIXTRAL | {"layer_types": ["conv2"] * 32}).notes[0]
    assert "index" in from_config(DEEPSEEK_V3 | {"index_n_heads": 64}).notes[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_families_are_understood(name: str):
    assert from_config(FAMILIES[name]).notes == ()


def test_keys_that_may_change_sizes_are_named():
    (note,) = from_config(QWEN3_MOE | {"cla_share_factor": 2, "attention_dropout": 0.1}).notes
    assert note == "config keys that may change sizes and are not read: cla_share_factor"
    many = {f"num_experts_of_kind_{kind}": 3 for kind in range(9)}
    assert "num_experts_of_kind_5 and 3 more" in from_config(QWEN3_MOE | many).notes[0]
    harmless = {"rope_scaling": {"factor": 2}, "num_nextn_predict_layers": 1, "mlp_bias": True}
    assert not_understood(harmless | {"head_dims": None, "use_cla": False}) == []


@pytest.mark.parametrize(
    ("given", "experts", "others"),
    [
        ({}, "bf16", "bf16"),
        ({"quant_method": "fp8"}, "fp8", "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4", "int4"),
        ({"quant_method": "awq", "bits": 8}, "int8", "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4", "int4"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
         "mxfp4", "bf16"),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"],
          "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}},
         "fp8", "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "mxfp4", "mxfp4"),
    ],
)  # fmt: skip
def test_stored_precisions_are_those_of_the_checkpoint(given: dict, experts: str, others: str):
    spec = from_config(QWEN3_MOE | {"quantization_config": given})
    assert (spec.expert_precision, spec.non_expert_precision) == (experts, others)
    assert spec.notes == ()


def test_experts_may_be_stored_apart_and_what_is_not_understood_is_said():
    v4 = from_config(DEEPSEEK_V4)
    assert (v4.expert_precision, v4.non_expert_precision) == ("mxfp4", "fp8")
    odd = from_config(QWEN3_MOE | {"quantization_config": {"quant_method": "gptq", "bits": 3}})
    assert odd.expert_precision == "bf16" and "not understood" in odd.notes[0]


def test_fewer_bits_leave_embeddings_head_router_and_norms_alone():
    plain = from_config(QWEN3_MOE)
    int4 = from_config(QWEN3_MOE | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    saved = plain.non_expert_bytes() - int4.non_expert_bytes()
    assert saved == plain.attention_params * 3 // 2


def test_experts_that_differ_among_layers_are_refused():
    with pytest.raises(InputError, match="moe_topk differs among the layers with experts"):
        from_config(HUNYUAN | {"moe_topk": [8] * 31 + [4]})
    with pytest.raises(InputError, match="moe_topk has 3 entries, 32 layers"):
        from_config(HUNYUAN | {"moe_topk": [8] * 3})
    with pytest.raises(InputError, match="moe_intermediate_size is 0"):
        from_config(HUNYUAN | {"moe_intermediate_size": [0] * 32})


def test_blocks_beside_the_experts_may_be_given_one_a_layer():
    config = FAMILIES["gemma-4-26b-a4b"]["text_config"]
    listed = config | {"intermediate_size": [2112] * 30}
    assert from_config(listed).shared_intermediate_size == 2112
