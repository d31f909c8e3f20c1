"""What runs a model whose experts do not fit on the device. It records the gates' choices, too."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.engine import OffloadedModel as OffloadedModel
    from specmd_jax.runtime.options import RunOptions as RunOptions

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "engine": ("OffloadedModel",),
        "options": ("RunOptions",),
    },
)
