"""What a verb runs: a generation, a replay of a trace, the demo. Prompts come from files."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.runs.demo import demonstrate as demonstrate
    from specmd_jax.runtime.runs.generation import follow as follow
    from specmd_jax.runtime.runs.generation import summarise_run as summarise_run
    from specmd_jax.runtime.runs.generation import warm_up as warm_up
    from specmd_jax.runtime.runs.offloading import Offloading as Offloading
    from specmd_jax.runtime.runs.prompts import encode as encode
    from specmd_jax.runtime.runs.prompts import read_prompts as read_prompts
    from specmd_jax.runtime.runs.prompts import read_tokens as read_tokens
    from specmd_jax.runtime.runs.trace_replay import open_forced as open_forced
    from specmd_jax.runtime.runs.trace_replay import replay_passes as replay_passes
    from specmd_jax.runtime.runs.trace_replay import time_passes as time_passes

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "demo": ("demonstrate",),
        "generation": (
            "follow",
            "summarise_run",
            "warm_up",
        ),
        "offloading": ("Offloading",),
        "prompts": (
            "encode",
            "read_prompts",
            "read_tokens",
        ),
        "trace_replay": (
            "open_forced",
            "replay_passes",
            "time_passes",
        ),
    },
)
