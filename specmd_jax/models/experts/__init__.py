"""Routed experts: their weights, packed copies, and the feed-forward over them.

A kernel computes where there is one, else XLA.
"""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.models.experts.quantize import PackedExpert as PackedExpert
    from specmd_jax.models.experts.quantize import dequantize as dequantize
    from specmd_jax.models.experts.weights import ExpertFn as ExpertFn
    from specmd_jax.models.experts.weights import ExpertWeights as ExpertWeights
    from specmd_jax.models.experts.weights import apply_expert as apply_expert
    from specmd_jax.models.experts.weights import init_experts as init_experts

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "quantize": (
            "PackedExpert",
            "dequantize",
        ),
        "weights": (
            "ExpertFn",
            "ExpertWeights",
            "apply_expert",
            "init_experts",
        ),
    },
)
