"""What a lossy cache costs in nats. The cache decides inside the model, what it bends flows on."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.quality.measure import Quality as Quality
    from specmd_jax.runtime.quality.measure import check_quality as check_quality
    from specmd_jax.runtime.quality.measure import read_exactly as read_exactly
    from specmd_jax.runtime.quality.measure import summarise_quality as summarise_quality

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "measure": (
            "Quality",
            "check_quality",
            "read_exactly",
            "summarise_quality",
        ),
    },
)
