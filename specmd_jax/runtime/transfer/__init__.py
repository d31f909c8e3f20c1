"""The link, and what travels on it. Demand loads go first, prefetches behind them."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.transfer.link import DirectLink as DirectLink
    from specmd_jax.runtime.transfer.link import Link as Link
    from specmd_jax.runtime.transfer.link import ThrottledLink as ThrottledLink
    from specmd_jax.runtime.transfer.link import TransferFailed as TransferFailed
    from specmd_jax.runtime.transfer.watchdog import Watchdog as Watchdog
    from specmd_jax.runtime.transfer.watchdog import WatchdogFailed as WatchdogFailed

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "link": (
            "DirectLink",
            "Link",
            "ThrottledLink",
            "TransferFailed",
        ),
        "watchdog": (
            "Watchdog",
            "WatchdogFailed",
        ),
    },
)
