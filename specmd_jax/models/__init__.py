"""A mixture-of-experts decoder in Flax NNX that loads real checkpoints; it knows no cache.

The routed experts are a function handed in (`ExpertFn`), so that a model that is on the device
whole, an offloading runtime and a kernel all plug in at the same place.
"""

from specmd_jax.models.checkpoints.checkpoint import Checkpoint
from specmd_jax.models.checkpoints.families import FAMILIES, from_hf
from specmd_jax.models.checkpoints.library import BUNDLED, open_model, open_tokenizer
from specmd_jax.models.checkpoints.save import save_olmoe
from specmd_jax.models.config import DecoderConfig, small_olmoe
from specmd_jax.models.decoder import Decoder, Gate, Pass
from specmd_jax.models.experts.quantize import PackedExpert, dequantize, quantize
from specmd_jax.models.experts.resident import resident, trainable
from specmd_jax.models.experts.weights import ExpertFn, ExpertWeights, apply_expert, init_experts
from specmd_jax.models.forward import Forward, ResidentModel
from specmd_jax.models.generate import generate, stream_tokens
from specmd_jax.models.layers.kv_cache import KvCache, Span, empty_cache
from specmd_jax.models.sampling import Sampling, sample

__all__ = [
    "BUNDLED",
    "FAMILIES",
    "Checkpoint",
    "Decoder",
    "DecoderConfig",
    "ExpertFn",
    "ExpertWeights",
    "Forward",
    "Gate",
    "KvCache",
    "PackedExpert",
    "Pass",
    "ResidentModel",
    "Sampling",
    "Span",
    "apply_expert",
    "dequantize",
    "empty_cache",
    "from_hf",
    "generate",
    "init_experts",
    "open_model",
    "open_tokenizer",
    "quantize",
    "resident",
    "sample",
    "save_olmoe",
    "small_olmoe",
    "stream_tokens",
    "trainable",
]
