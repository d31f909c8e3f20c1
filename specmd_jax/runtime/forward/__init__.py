"""The decoder cut at its gates, where the host may move experts. Whole passes, too."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.forward.pass_state import PassState as PassState
    from specmd_jax.runtime.forward.segments import Segments as Segments
    from specmd_jax.runtime.forward.whole_pass import WholePass as WholePass
    from specmd_jax.runtime.forward.whole_pass import run_whole as run_whole

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "pass_state": ("PassState",),
        "segments": ("Segments",),
        "whole_pass": (
            "WholePass",
            "run_whole",
        ),
    },
)
