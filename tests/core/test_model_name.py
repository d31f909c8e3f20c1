"""Names of models as other machines wrote them."""

import pytest

from specmd_jax.core.model_name import plain_model_name


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("/home/u/models/Qwen3-30B-A3B-Q4_K_M.gguf", "Qwen3-30B-A3B"),
        ("/home/u/models/Qwen3-30B-A3B-Q4_K_M.gguf (GGUF)", "Qwen3-30B-A3B"),
        ("Qwen3-30B-A3B-Q4_K_M.gguf (GGUF)", "Qwen3-30B-A3B"),
        (r"C:\models\Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "Qwen3-30B-A3B"),
        ("../gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b"),
        ("~/m/Mixtral-8x7B-v0.1.i1-IQ3_XS.gguf", "Mixtral-8x7B-v0.1"),
        ("/m/GLM-4.5-Air-Q8_0-00001-of-00003.gguf", "GLM-4.5-Air"),
        ("/m/Qwen3-30B-A3B/model-00001-of-00016.safetensors", "Qwen3-30B-A3B"),
        (
            "/root/.cache/huggingface/hub/models--Qwen--Qwen3-30B-A3B/snapshots/"
            "ad44e777bcd18fa416d9da3bd8f70d33ebb85d39",
            "Qwen/Qwen3-30B-A3B",
        ),
        ("https://huggingface.co/openai/gpt-oss-20b", "gpt-oss-20b"),
        ("/data/run 7/my finetune", "my finetune"),
        ("/data/OLMoE-1B-7B-0924-GGUF/OLMoE-1B-7B-0924-f16.gguf", "OLMoE-1B-7B-0924"),
        ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B"),
        ("Qwen/Qwen3-30B-A3B-FP8", "Qwen/Qwen3-30B-A3B-FP8"),
        ("qwen3-30b-a3b (GGUF)", "qwen3-30b-a3b"),
        ("toy", "toy"),
        ("", ""),
    ],
)
def test_a_place_is_no_part_of_a_name(written: str, plain: str) -> None:
    assert plain_model_name(written) == plain
    assert plain_model_name(plain) == plain
