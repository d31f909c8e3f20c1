"""specmd-jax: expert caching for mixture-of-experts models, simulated exactly and fast in JAX.

import specmd_jax as sx

trace = sx.import_trace("routing.csv")
setups = [sx.make_setup(sx.Choice(eviction=name)) for name in ("lru", "least-stale")]
for answer in sx.run(trace, setups):
    print(answer.setup.name, sx.summarise_answer(trace, answer)["hit_rate"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specmd_jax.core.errors import InputError
    from specmd_jax.hardware.profiles import HardwareProfile, get_hardware
    from specmd_jax.model_zoo import ModelSpec, get_model
    from specmd_jax.policies.base import Eviction, Miss, Prefetch, Routing
    from specmd_jax.policies.strategy import Strategy, make_strategy
    from specmd_jax.study.choice import Choice, make_setup
    from specmd_jax.study.metrics import summarise_answer
    from specmd_jax.study.run import Answer, Setup, run
    from specmd_jax.traces import Trace, import_trace, read_trace, write_trace

_HOMES = {
    "core.errors": ("InputError",),
    "hardware": ("HardwareProfile", "get_hardware"),
    "model_zoo": ("ModelSpec", "get_model"),
    "policies": ("Eviction", "Miss", "Prefetch", "Routing", "Strategy", "make_strategy"),
    "study": ("Answer", "Choice", "Setup", "make_setup", "run", "summarise_answer"),
    "traces": ("Trace", "import_trace", "read_trace", "write_trace"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "Choice",
    "Eviction",
    "HardwareProfile",
    "InputError",
    "Miss",
    "ModelSpec",
    "Prefetch",
    "Routing",
    "Setup",
    "Strategy",
    "Trace",
    "get_hardware",
    "get_model",
    "import_trace",
    "make_setup",
    "make_strategy",
    "read_trace",
    "run",
    "summarise_answer",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: the command line's help should not wait for JAX.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
