"""Experts in host memory and in device slots. The feed-forward over them, as they arrive."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.offload.ffn import FfnSpec as FfnSpec
    from specmd_jax.runtime.offload.slots import Slots as Slots
    from specmd_jax.runtime.offload.store import ExpertStore as ExpertStore
    from specmd_jax.runtime.offload.store import store_checkpoint as store_checkpoint

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ffn": ("FfnSpec",),
        "slots": ("Slots",),
        "store": (
            "ExpertStore",
            "store_checkpoint",
        ),
    },
)
