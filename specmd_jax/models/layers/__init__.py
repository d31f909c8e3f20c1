"""The layers of a decoder: norms, rotary positions, attention, router. Each stands alone."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.models.layers.attention import GroupedQueryAttention as GroupedQueryAttention
    from specmd_jax.models.layers.feed_forward import FeedForward as FeedForward
    from specmd_jax.models.layers.kv_cache import KvCache as KvCache
    from specmd_jax.models.layers.kv_cache import Span as Span
    from specmd_jax.models.layers.kv_cache import empty_cache as empty_cache
    from specmd_jax.models.layers.latent_attention import LatentAttention as LatentAttention
    from specmd_jax.models.layers.router import RoutingChoice as RoutingChoice
    from specmd_jax.models.layers.router import choose as choose

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "attention": ("GroupedQueryAttention",),
        "feed_forward": ("FeedForward",),
        "kv_cache": (
            "KvCache",
            "Span",
            "empty_cache",
        ),
        "latent_attention": ("LatentAttention",),
        "router": (
            "RoutingChoice",
            "choose",
        ),
    },
)
