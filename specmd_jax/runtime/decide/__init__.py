"""The simulator's own step, compiled for a run. It says what is loaded, evicted and computed."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.runtime.decide.compiled_step import Decision as Decision
    from specmd_jax.runtime.decide.compiled_step import MissOutcome as MissOutcome
    from specmd_jax.runtime.decide.decisions import Decisions as Decisions
    from specmd_jax.runtime.decide.decisions import Place as Place
    from specmd_jax.runtime.decide.layer_work import LayerWork as LayerWork

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "compiled_step": (
            "Decision",
            "MissOutcome",
        ),
        "decisions": (
            "Decisions",
            "Place",
        ),
        "layer_work": ("LayerWork",),
    },
)
