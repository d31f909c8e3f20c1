"""How programs of many small steps are compiled, and when they are forgotten."""

from collections.abc import Callable
from functools import cache, cached_property, update_wrapper
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

MAPPINGS = Path("/proc/self/maps")  # a line each; only Linux has it
MOST_MAPPINGS = Path("/proc/sys/vm/max_map_count")
QUICK = {"xla_cpu_use_fusion_emitters": False}


@cache
def quick_options() -> dict[str, bool] | None:
    """Returns XLA's options for a program of many small integer operations, None for its defaults.

    Its MLIR emitters take twice as long over the loops of the simulator and make them no faster.
    Only for integers: with the older ones LLVM has been seen to give up a float program, and the
    process with it ("Cannot select: v8f32", on a CPU with AVX-512).
    Not every release of XLA, nor every backend, can do without them.
    """
    try:
        jax.jit(lambda: 0, compiler_options=dict(QUICK)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return dict(QUICK)


class QuickJit(Generic[P, R]):
    """A function jitted with `quick_options`.

    They ask for a backend, so it is not jitted before it is called.
    """

    def __init__(self, function: Callable[P, R], static_argnums: int | tuple[int, ...]):
        update_wrapper(self, function)
        self._function, self._static_argnums = function, static_argnums

    @cached_property
    def jitted(self) -> Any:
        """What `jax.jit` returned."""
        return jax.jit(
            self._function,
            static_argnums=self._static_argnums,
            compiler_options=quick_options(),
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function, compiling it if need be."""
        return self.jitted(*args, **kwargs)


def quick_jit(
    static_argnums: int | tuple[int, ...],
) -> Callable[[Callable[P, R]], QuickJit[P, R]]:
    """Returns a decorator for programs of the simulator's many small steps; see `QuickJit`."""
    return lambda function: QuickJit(function, static_argnums)


def make_room_for_programs() -> None:
    """Forgets all compiled programs if they hold more than half of what the process may map.

    Each program maps pieces of memory of its own, of which Linux allows a process 65530 by default.
    XLA crashes when there are no more: some thousand programs into a search. To be called before
    more are compiled, not for each call of one.
    """
    try:
        most = int(MOST_MAPPINGS.read_text())
        held = MAPPINGS.read_bytes().count(b"\n")
    except OSError:
        return
    if held > most // 2:
        jax.clear_caches()
