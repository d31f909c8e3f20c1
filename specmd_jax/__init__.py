"""specmd-jax: expert caching for mixture-of-experts models, simulated exactly and fast in JAX.

import specmd_jax as sx

trace = sx.import_trace("routing.csv")
setups = [sx.make_setup(sx.Choice(eviction=name)) for name in ("lru", "least-stale")]
for answer in sx.compare(trace, setups):
    print(answer.setup.name, sx.summarise_result(trace, answer)["hit_rate"])
"""

from typing import TYPE_CHECKING

from specmd_jax.core.lazy import lazy_names

if TYPE_CHECKING:
    from specmd_jax.core.errors import InputError as InputError
    from specmd_jax.hardware import HardwareProfile as HardwareProfile
    from specmd_jax.hardware import get_hardware as get_hardware
    from specmd_jax.model_zoo import ModelSpec as ModelSpec
    from specmd_jax.model_zoo import get_model as get_model
    from specmd_jax.policies import Eviction as Eviction
    from specmd_jax.policies import Miss as Miss
    from specmd_jax.policies import Prefetch as Prefetch
    from specmd_jax.policies import Routing as Routing
    from specmd_jax.policies import Strategy as Strategy
    from specmd_jax.policies import make_strategy as make_strategy
    from specmd_jax.study import Choice as Choice
    from specmd_jax.study import RunResult as RunResult
    from specmd_jax.study import Setup as Setup
    from specmd_jax.study import compare as compare
    from specmd_jax.study import make_setup as make_setup
    from specmd_jax.study import summarise_result as summarise_result
    from specmd_jax.traces import Trace as Trace
    from specmd_jax.traces import import_trace as import_trace
    from specmd_jax.traces import read_trace as read_trace
    from specmd_jax.traces import write_trace as write_trace

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "core.errors": ("InputError",),
        "hardware": ("HardwareProfile", "get_hardware"),
        "model_zoo": ("ModelSpec", "get_model"),
        "policies": ("Eviction", "Miss", "Prefetch", "Routing", "Strategy", "make_strategy"),
        "study": ("RunResult", "Choice", "Setup", "compare", "make_setup", "summarise_result"),
        "traces": ("Trace", "import_trace", "read_trace", "write_trace"),
    },
)
