"""What holds for every test."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator

import jax
import pytest

from specmd_jax.core.jit import make_room_for_programs

_CACHE = {  # as JAX reads it: everything that is compiled, however small
    "jax_compilation_cache_dir": "",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
ONE_IN = 4  # cases of a matrix that a run without --whole has
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--whole`: `.ci/run` gives it."""
    told = f"all of the tests marked matrix, of which else one in {ONE_IN} runs"
    parser.addoption("--whole", action="store_true", help=told)


@pytest.hookimpl(trylast=True)  # of what -k and -m leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out most cases of each function marked `matrix`, but where all are asked for."""
    if config.getoption("--whole"):
        return
    counted: Counter[str] = Counter()
    kept, left = [], []
    for item in items:
        function = item.nodeid.partition("[")[0]
        is_case = item.get_closest_marker("matrix") is not None
        (left if is_case and counted[function] % ONE_IN else kept).append(item)
        counted[function] += 1
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Gives back what a file compiled, once there is much of it."""
    yield
    make_room_for_programs()
