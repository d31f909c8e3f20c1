"""Sizes of real MoE models, for the tests and measurements of every op."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """What the kernels see of a model."""

    layers: int  # with experts
    experts: int
    top_k: int
    hidden: int
    width: int  # of one expert
    gpt_oss: bool = False  # biases and the clamped activation


# As the config.json of each on Hugging Face has them.
MODELS = {
    "olmoe": Sizes(16, 64, 8, 2048, 1024),
    "mixtral": Sizes(32, 8, 2, 4096, 14336),
    "qwen3-30b": Sizes(48, 128, 8, 2048, 768),
    "deepseek-v2-lite": Sizes(26, 64, 6, 2048, 1408),
    "gpt-oss-20b": Sizes(24, 32, 4, 2880, 2880, gpt_oss=True),
}
