"""What holds for every test."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import jax
import pytest

from specmd_jax.core.jit import make_room_for_programs

_CACHE = {  # as JAX reads it: everything that is compiled, however small
    "jax_compilation_cache_dir": "",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_QUICK = "--xla_backend_optimization_level=0"


def pytest_configure(config: pytest.Config) -> None:
    """Has the workers and the programs they start share what they compile, on disk.

    Most of the time goes into compiling: many files run the same few small models, and a program
    runs for milliseconds. So LLVM does not optimise, unless SPECMD_OPTIMIZED is set: `.ci/run`
    does so for the files whose claims are about what users run.
    """
    if hasattr(config, "workerinput"):
        return  # its environment has been set by the one who started it
    _CACHE["jax_compilation_cache_dir"] = tempfile.mkdtemp(prefix="specmd-tests-")
    for name, value in _CACHE.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    if not os.environ.get("SPECMD_OPTIMIZED"):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Throws away what was compiled."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_CACHE["jax_compilation_cache_dir"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Gives back what a file compiled, once there is much of it."""
    yield
    make_room_for_programs()
