"""Models on disk: families, tensor names, safetensors files. A folder as Hugging Face has it."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.models.checkpoints.checkpoint import Checkpoint as Checkpoint
    from specmd_jax.models.checkpoints.families import FAMILIES as FAMILIES
    from specmd_jax.models.checkpoints.families import from_hf as from_hf
    from specmd_jax.models.checkpoints.library import BUNDLED as BUNDLED
    from specmd_jax.models.checkpoints.library import open_model as open_model
    from specmd_jax.models.checkpoints.library import open_tokenizer as open_tokenizer
    from specmd_jax.models.checkpoints.save import save_olmoe as save_olmoe

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "checkpoint": ("Checkpoint",),
        "families": (
            "FAMILIES",
            "from_hf",
        ),
        "library": (
            "BUNDLED",
            "open_model",
            "open_tokenizer",
        ),
        "save": ("save_olmoe",),
    },
)
