"""The four families of policies, one policy a file, and what four of them make: a strategy."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.policies.base import Eviction as Eviction
    from specmd_jax.policies.base import Miss as Miss
    from specmd_jax.policies.base import Prefetch as Prefetch
    from specmd_jax.policies.base import Routing as Routing
    from specmd_jax.policies.strategy import Strategy as Strategy
    from specmd_jax.policies.strategy import StrategyParams as StrategyParams
    from specmd_jax.policies.strategy import make_strategy as make_strategy

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "base": (
            "Eviction",
            "Miss",
            "Prefetch",
            "Routing",
        ),
        "strategy": (
            "Strategy",
            "StrategyParams",
            "make_strategy",
        ),
    },
)
