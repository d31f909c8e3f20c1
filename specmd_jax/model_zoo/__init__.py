"""Shapes and sizes of MoE models: a table of known ones, and a reader of config.json."""

from specmd_jax.model_zoo.bundled import BUNDLED, bundled_folder
from specmd_jax.model_zoo.hf_config import from_config
from specmd_jax.model_zoo.mixers import GatedDelta, GroupedQuery, Latent, Mixer
from specmd_jax.model_zoo.models import MODELS, get_model, known_models
from specmd_jax.model_zoo.precision import PRECISIONS, find_precision, weight_bytes
from specmd_jax.model_zoo.spec import ModelSpec

__all__ = [
    "BUNDLED",
    "MODELS",
    "PRECISIONS",
    "GatedDelta",
    "GroupedQuery",
    "Latent",
    "Mixer",
    "ModelSpec",
    "bundled_folder",
    "find_precision",
    "from_config",
    "get_model",
    "known_models",
    "weight_bytes",
]
