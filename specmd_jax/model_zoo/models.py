"""The sizes of real MoE models, each as its config.json on Hugging Face gives them.

Language models only: vision towers and the extra layers that predict further tokens are left out.
The tests hold every row against the parameter count its makers publish.
"""

from collections.abc import Iterator

from specmd_jax.core.errors import InputError
from specmd_jax.core.model_name import plain_model_name
from specmd_jax.core.names import near_names, plain
from specmd_jax.model_zoo.bundled import bundled_model
from specmd_jax.model_zoo.mixers import GatedDelta, GroupedQuery, Latent, Mixer
from specmd_jax.model_zoo.spec import ModelSpec


def get_model(name: str) -> ModelSpec:
    """Returns the model called `name`: a key of `MODELS`, a Hugging Face id, or the bundled one.

    Case, `-`, `_` and `.` do not count.

    Raises:
      InputError: no such model; the message lists the nearest names.
    """
    wanted = plain(plain_model_name(name))
    for model in known_models():
        if wanted in (plain(model.name), plain(model.hf_id), plain(model.hf_id.split("/")[-1])):
            return model
    near = near_names(name.rsplit("/", 1)[-1], MODELS) or MODELS
    raise InputError(f"unknown model {name!r}: try {', '.join(near)}, or a config.json")


def known_models() -> Iterator[ModelSpec]:
    """Yields the models of the table, then the bundled one, whose config is only then read."""
    yield from MODELS.values()
    yield bundled_model()


def _model(
    hf_id: str,
    num_hidden_layers: int,
    num_experts: int,
    top_k: int,
    hidden_size: int,
    moe_intermediate_size: int,
    vocab_size: int,
    mixers: tuple[Mixer, ...],
    *,
    shared: int = 0,
    dense: int = 0,
    dense_layers: tuple[int, ...] = (),
    tie_embeddings: bool = False,
    expert_bias: bool = False,
    name: str = "",
    source: str = "",
) -> ModelSpec:
    return ModelSpec(
        name=name or hf_id.rsplit("/", 1)[-1].lower(),
        hf_id=hf_id,
        num_hidden_layers=num_hidden_layers,
        num_experts=num_experts,
        top_k=top_k,
        hidden_size=hidden_size,
        moe_intermediate_size=moe_intermediate_size,
        vocab_size=vocab_size,
        mixers=mixers,
        dense_layers=dense_layers,
        dense_intermediate_size=dense,
        shared_intermediate_size=shared,
        tie_embeddings=tie_embeddings,
        expert_bias=expert_bias,
        source=source or f"https://huggingface.co/{hf_id}/blob/main/config.json",
    )


def _attention(num_heads: int, num_key_value_heads: int, head_dim: int) -> tuple[Mixer, ...]:
    return (GroupedQuery(num_heads, num_key_value_heads, head_dim),)


def _latent(num_heads: int, q_lora_rank: int = 0) -> tuple[Mixer, ...]:
    """Returns DeepSeek-V2's attention, whose other sizes all its successors kept."""
    return (
        Latent(
            num_heads,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            q_lora_rank=q_lora_rank,
        ),
    )


# Qwen3-Next and Qwen3.5: three layers of linear attention, then one of full attention.
_QWEN_HYBRID = (
    *[GatedDelta(16, 32, key_head_dim=128, value_head_dim=128)] * 3,
    GroupedQuery(16, 2, 256, output_gate=True),
)
_GPT_OSS = (GroupedQuery(64, 8, 64, window=128), GroupedQuery(64, 8, 64))
_GEMMA_4 = (
    *[GroupedQuery(16, 8, 256, window=1024)] * 5,
    GroupedQuery(16, 2, 512, key_is_value=True),
)

# fmt: off
_ALL = (
    # id, decoder layers, experts, top-k, hidden size, expert size, vocabulary,
    # token mixers, then the intermediate sizes of shared experts and dense layers
    _model("allenai/OLMoE-1B-7B-0924",               16,  64,  8, 2048,  1024,  50304,
           _attention(16, 16, 128)),
    _model("mistralai/Mixtral-8x7B-v0.1",            32,   8,  2, 4096, 14336,  32000,
           _attention(32, 8, 128), name="mixtral-8x7b"),
    _model("mistralai/Mixtral-8x22B-v0.1",           56,   8,  2, 6144, 16384,  32000,
           _attention(48, 8, 128), name="mixtral-8x22b"),
    _model("Qwen/Qwen1.5-MoE-A2.7B",                 24,  60,  4, 2048,  1408, 151936,
           _attention(16, 16, 128), shared=5632),
    _model("Qwen/Qwen2-57B-A14B",                    28,  64,  8, 3584,  2560, 151936,
           _attention(28, 4, 128), shared=20480),
    _model("Qwen/Qwen3-30B-A3B",                     48, 128,  8, 2048,   768, 151936,
           _attention(32, 4, 128)),
    _model("Qwen/Qwen3-235B-A22B",                   94, 128,  8, 4096,  1536, 151936,
           _attention(64, 4, 128)),
    _model("Qwen/Qwen3-Next-80B-A3B-Instruct",       48, 512, 10, 2048,   512, 151936,
           _QWEN_HYBRID, name="qwen3-next-80b-a3b", shared=512),
    _model("Qwen/Qwen3.5-35B-A3B",                   40, 256,  8, 2048,   512, 248320,
           _QWEN_HYBRID, shared=512),
    _model("deepseek-ai/deepseek-moe-16b-base",      28,  64,  6, 2048,  1408, 102400,
           _attention(16, 16, 128), name="deepseek-moe-16b",
           shared=2816, dense_layers=(0,), dense=10944),
    _model("deepseek-ai/DeepSeek-V2-Lite",           27,  64,  6, 2048,  1408, 102400,
           _latent(16), shared=2816, dense_layers=(0,), dense=10944),
    _model("deepseek-ai/DeepSeek-V2",                60, 160,  6, 5120,  1536, 102400,
           _latent(128, 1536), shared=3072, dense_layers=(0,), dense=12288),
    _model("deepseek-ai/DeepSeek-V3",                61, 256,  8, 7168,  2048, 129280,
           _latent(128, 1536), shared=2048, dense_layers=(0, 1, 2), dense=18432),
    _model("moonshotai/Kimi-K2-Instruct",            61, 384,  8, 7168,  2048, 163840,
           _latent(64, 1536), name="kimi-k2", shared=2048, dense_layers=(0,), dense=18432),
    _model("moonshotai/Moonlight-16B-A3B",           27,  64,  6, 2048,  1408, 163840,
           _latent(16), shared=2816, dense_layers=(0,), dense=11264),
    _model("microsoft/Phi-3.5-MoE-instruct",         32,  16,  2, 4096,  6400,  32064,
           _attention(32, 8, 128), name="phi-3.5-moe"),
    _model("ibm-granite/granite-3.1-1b-a400m-base",  24,  32,  8, 1024,   512,  49155,
           _attention(16, 8, 64), name="granite-3.1-1b-a400m", tie_embeddings=True),
    _model("ibm-granite/granite-3.1-3b-a800m-base",  32,  40,  8, 1536,   512,  49155,
           _attention(24, 8, 64), name="granite-3.1-3b-a800m", tie_embeddings=True),
    _model("openai/gpt-oss-20b",                     24,  32,  4, 2880,  2880, 201088,
           _GPT_OSS, expert_bias=True),
    _model("openai/gpt-oss-120b",                    36, 128,  4, 2880,  2880, 201088,
           _GPT_OSS, expert_bias=True),
    _model("zai-org/GLM-4.5-Air",                    46, 128,  8, 4096,  1408, 151552,
           _attention(96, 8, 128), shared=1408, dense_layers=(0,), dense=10944),
    _model("zai-org/GLM-4.5",                        92, 160,  8, 5120,  1536, 151552,
           _attention(96, 8, 128), shared=1536, dense_layers=(0, 1, 2), dense=12288),
    _model("meta-llama/Llama-4-Scout-17B-16E",       48,  16,  1, 5120,  8192, 202048,
           _attention(40, 8, 128), name="llama-4-scout", shared=8192),
    _model("meta-llama/Llama-4-Maverick-17B-128E",   48, 128,  1, 5120,  8192, 202048,
           _attention(40, 8, 128), name="llama-4-maverick", shared=8192,
           dense_layers=tuple(range(0, 48, 2)), dense=16384),
    _model("MiniMaxAI/MiniMax-M2",                   62, 256,  8, 3072,  1536, 200064,
           _attention(48, 8, 128)),
    _model("inclusionAI/Ling-lite",                  28,  64,  6, 2048,  1408, 126464,
           _attention(16, 4, 128), shared=2816),
    _model("google/gemma-4-26B-A4B",                 30, 128,  8, 2816,   704, 262144,
           _GEMMA_4, shared=2112, tie_embeddings=True),  # a dense block runs beside the experts
    _model("databricks/dbrx-base",                   40,  16,  4, 6144, 10752, 100352,
           _attention(48, 8, 128), name="dbrx"),
    _model("xai-org/grok-1",                         64,   8,  2, 6144, 32768, 131072,
           _attention(48, 8, 128), tie_embeddings=True,
           source="https://github.com/xai-org/grok-1/blob/main/run.py"),
)
# fmt: on

MODELS: dict[str, ModelSpec] = {model.name: model for model in _ALL}
