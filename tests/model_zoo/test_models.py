"""The model table against what papers and checkpoints say of the same models."""

import dataclasses
import json

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.hardware.capacity import find_model
from specmd_jax.model_zoo import (
    MODELS,
    PRECISIONS,
    ModelSpec,
    bundled_folder,
    from_config,
    get_model,
    weight_bytes,
)
from tests.helpers.recorded import FOLDER, needs_recorded

MIB, GIB = 2**20, 2**30

# Parameters of the checkpoint as its safetensors headers or loaders count them, language model
# only. The specs leave out biases and norms inside attention, hence a relative 1e-4.
CHECKPOINT_PARAMS = {
    "olmoe-1b-7b-0924": 6_919_161_856,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140.62e9,
    "qwen2-57b-a14b": 57.41e9,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235.09e9,
    "deepseek-moe-16b": 16_375_728_128,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "kimi-k2": 1026.41e9,
    "moonlight-16b-a3b": 15_960_111_936,
    "phi-3.5-moe": 41.87e9,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "glm-4.5-air": 106_852_245_504,
}
# Totals as the makers announce them, rounded as they rounded them.
ANNOUNCED_PARAMS = {
    "qwen1.5-moe-a2.7b": 14.3e9,
    "qwen3-next-80b-a3b": 80e9,
    "qwen3.5-35b-a3b": 35e9,
    "deepseek-v2": 236e9,
    "granite-3.1-1b-a400m": 1.33e9,
    "granite-3.1-3b-a800m": 3.3e9,
    "glm-4.5": 355e9,
    "llama-4-scout": 109e9,  # with a vision tower of 0.9e9
    "llama-4-maverick": 400e9,
    "minimax-m2": 230e9,
    "ling-lite": 16.8e9,
    "gemma-4-26b-a4b": 25.2e9,
    "dbrx": 132e9,
    "grok-1": 314e9,
}
ANNOUNCED_ACTIVE = {
    "mixtral-8x7b": 12.9e9,
    "qwen1.5-moe-a2.7b": 2.7e9,
    "qwen2-57b-a14b": 14e9,
    "qwen3-235b-a22b": 22e9,
    "deepseek-v3": 37e9,
    "deepseek-v2": 21e9,
    "deepseek-moe-16b": 2.8e9,
    "phi-3.5-moe": 6.6e9,
    "llama-4-scout": 17e9,
    "llama-4-maverick": 17e9,
    "ling-lite": 2.75e9,
    "gemma-4-26b-a4b": 3.8e9,
    "dbrx": 36e9,
}


def test_every_model_is_held_against_a_published_total():
    assert set(MODELS) == CHECKPOINT_PARAMS.keys() | ANNOUNCED_PARAMS.keys()


@pytest.mark.parametrize("name", CHECKPOINT_PARAMS)
def test_total_is_that_of_the_checkpoint(name):
    assert MODELS[name].total_params == pytest.approx(CHECKPOINT_PARAMS[name], rel=1e-4)


@pytest.mark.parametrize("name", ANNOUNCED_PARAMS)
def test_total_is_the_announced_one(name):
    assert MODELS[name].total_params == pytest.approx(ANNOUNCED_PARAMS[name], rel=0.02)


@pytest.mark.parametrize("name", ANNOUNCED_ACTIVE)
def test_active_parameters_are_the_announced_ones(name):
    assert MODELS[name].active_params == pytest.approx(ANNOUNCED_ACTIVE[name], rel=0.02)


@pytest.mark.parametrize(
    ("name", "expert_mib", "total", "experts", "non_expert", "activated"),
    [
        ("olmoe-1b-7b-0924", 12, 12.89, 12.0, 0.89, 2.39),
        ("mixtral-8x7b", 336, 86.99, 84.0, 2.99, 23.99),
        ("qwen1.5-moe-a2.7b", 16.5, 26.67, 23.2, 3.46, 5.01),
        ("phi-3.5-moe", 150, 77.99, 75.0, 2.99, 12.37),
    ],
)
def test_specmd_table_3(name, expert_mib, total, experts, non_expert, activated):
    """SpecMD (arXiv 2602.03921), Table 3, fp16: its "MB" and "GB" are MiB and GiB.

    Every figure follows from the configs. Half a unit of the last digit is the paper's rounding,
    the rest of the tolerance the attention biases of Qwen1.5 that a spec leaves out.
    """
    spec = MODELS[name]
    printed = pytest.approx
    assert spec.expert_bytes("fp16") == expert_mib * MIB
    assert spec.routed_bytes("fp16") / GIB == printed(experts, abs=0.05)
    assert spec.non_expert_bytes() / GIB == printed(non_expert, abs=0.006)
    assert 2 * spec.total_params / GIB == printed(total, abs=0.006)
    assert 2 * spec.active_params / GIB == printed(activated, abs=0.006)


@pytest.mark.parametrize("name", MODELS)
def test_parts_sum_to_the_whole(name):
    spec = MODELS[name]
    shape = spec.shape
    assert shape == ModelShape(spec.num_moe_layers, spec.num_experts, spec.top_k)
    assert spec.total_params == spec.non_expert_params + (
        shape.num_layers * shape.num_experts * spec.expert_params
    )
    assert spec.non_expert_params < spec.active_params < spec.total_params
    assert spec.source.startswith("https://")


def test_interleaved_layers():
    assert MODELS["llama-4-maverick"].num_moe_layers == 24
    assert MODELS["llama-4-maverick"].dense_layers[:3] == (0, 2, 4)
    assert MODELS["deepseek-v3"].num_moe_layers == 58


def test_plain_precisions_are_bits_of_the_parameters():
    olmoe = MODELS["olmoe-1b-7b-0924"]
    sizes = {p: olmoe.expert_bytes(p) for p in ("fp32", "bf16", "fp8", "int8", "int4", "int2")}
    assert [sizes[p] / MIB for p in sizes] == [24, 12, 6, 6, 3, 1.5]
    assert olmoe.routed_bytes("int4") == 1024 * 3 * MIB


@pytest.mark.parametrize(
    ("precision", "overhead"), [("int8", 1 / 32), ("int4", 1 / 16), ("int2", 1 / 8)]
)
def test_scales_cost_16_bits_per_group_of_64(precision, overhead):
    mixtral = MODELS["mixtral-8x7b"]
    plain = mixtral.expert_bytes(precision)
    assert mixtral.expert_bytes(precision, with_scales=True) == plain * (1 + overhead)


def test_mxfp4_has_its_scales_and_keeps_the_biases():
    spec = MODELS["gpt-oss-20b"]
    weights, biases = 3 * 2880 * 2880, 3 * 2880
    assert spec.expert_params == weights + biases
    assert spec.expert_bytes("mxfp4") == weights // 2 + weights // 32 + 2 * biases
    assert spec.expert_bytes("mxfp4", with_scales=True) == spec.expert_bytes("mxfp4")


def test_weight_bytes_round_up():
    assert [weight_bytes(n, "int2") for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    with pytest.raises(InputError, match="unknown precision 'int3'"):
        weight_bytes(1, "int3")
    assert all(weight_bytes(64, p) > 0 for p in PRECISIONS)


def test_cache_of_one_sequence():
    # Grouped query: 2 (key, value) x 8 heads x 128 x 32 layers x 2 bytes = 128 KiB a token.
    assert MODELS["mixtral-8x7b"].cache_bytes(100) == 100 * 128 * 1024
    # Latent: 512 + 64 values a layer.
    assert MODELS["deepseek-v3"].cache_bytes(10) == 10 * 576 * 61 * 2
    # Half the layers of gpt-oss look back 128 tokens and keep no more.
    per_token = 2 * 8 * 64 * 2
    assert MODELS["gpt-oss-20b"].cache_bytes(1000) == 12 * per_token * (1000 + 128)
    # Three quarters of Qwen3-Next's layers keep a state of fixed size instead.
    hybrid = MODELS["qwen3-next-80b-a3b"]
    assert hybrid.cache_bytes(2) - hybrid.cache_bytes(1) == 12 * 2 * 2 * 256 * 2


@pytest.mark.parametrize("name", ["mixtral-8x7b", "Mixtral-8x7B", "mistralai/mixtral-8x7b-v0.1"])
def test_models_are_found_by_name_or_hub_id(name):
    assert get_model(name) is MODELS["mixtral-8x7b"]


def test_an_unknown_model_is_answered_with_near_names():
    with pytest.raises(InputError, match=r"'mixtral-8x8b'.*mixtral-8x7b"):
        get_model("mixtral-8x8b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 9}, "top-k 9 of 8 experts"),
        ({"top_k": 0}, "top-k 0"),
        ({"dense_layers": tuple(range(32)), "dense_intermediate_size": 1}, "a layer with experts"),
        ({"dense_layers": (0,)}, "intermediate size of the dense layers"),
        ({"mixers": ()}, "needs a mixer"),
    ],
)
def test_contradictory_sizes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MODELS["mixtral-8x7b"], **change)


def test_experts_without_a_gate_have_two_matrices():
    plain: ModelSpec = dataclasses.replace(MODELS["mixtral-8x7b"], gated=False)
    assert plain.expert_params == 2 * 4096 * 14336


@needs_recorded
def test_shapes_are_those_of_recorded_traces():
    recorded = {
        "gpt-oss-20b": "gpt-oss-20b",
        "deepseek-v2-lite-law": "deepseek-v2-lite",
        "olmoe-sampled": "olmoe-1b-7b-0924",
        "granite-3b-loops": "granite-3.1-3b-a800m",
    }
    for trace, model in recorded.items():
        meta = json.loads((FOLDER / trace / "meta.json").read_text())
        shape = ModelShape(meta["layers"], meta["experts"], meta["top_k"])
        assert MODELS[model].shape == shape, trace


@pytest.mark.parametrize("name", ["specmd-tiny", "SpecMD-tiny"])
def test_the_bundled_model_is_known_by_name(name: str):
    spec = get_model(name)
    assert spec.shape == (8, 32, 4)
    assert spec == from_config(bundled_folder())
    assert find_model(name, spec.shape) == spec
    assert find_model(name, get_model("mixtral-8x7b").shape) is None
