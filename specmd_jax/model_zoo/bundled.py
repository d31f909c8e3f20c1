"""The model that comes with the package, by its name."""

from functools import cache
from importlib import resources
from pathlib import Path

from specmd_jax.model_zoo.hf_config import from_config
from specmd_jax.model_zoo.spec import ModelSpec

BUNDLED = "specmd-tiny"


def bundled_folder() -> Path:
    """Returns where its config.json and its weights lie."""
    return Path(str(resources.files("specmd_jax"))) / "models" / "bundled"


@cache
def bundled_model() -> ModelSpec:
    """Returns its sizes."""
    return from_config(bundled_folder())
