"""How programs of many small steps are compiled."""

from functools import cache

import jax

QUICK = {"xla_cpu_use_fusion_emitters": False}


@cache
def quick_options() -> dict[str, bool] | None:
    """Returns XLA's options for a program of many small integer operations, None for its defaults.

    Its MLIR emitters take twice as long over the loops of the simulator and make them no faster.
    Not every release of XLA, nor every backend, can do without them.
    """
    try:
        jax.jit(lambda: 0, compiler_options=dict(QUICK)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return dict(QUICK)
