"""Questions put to a trace: a choice becomes a setup, a setup a run, a run a row of figures."""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.study.choice import Choice as Choice
    from specmd_jax.study.inspect import inspect_trace as inspect_trace
    from specmd_jax.study.metrics import summarise_result as summarise_result
    from specmd_jax.study.run import RunResult as RunResult
    from specmd_jax.study.run import compare as compare
    from specmd_jax.study.setup import Setup as Setup
    from specmd_jax.study.setup import make_setup as make_setup

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "choice": ("Choice",),
        "run": (
            "RunResult",
            "compare",
        ),
        "setup": ("Setup", "make_setup"),
        "inspect": ("inspect_trace",),
        "metrics": ("summarise_result",),
    },
)
