"""What holds for every test."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Gives back what a file compiled.

    Each program maps some pieces of memory of its own, of which Linux allows a process 65530 by
    default. XLA crashes when there are no more.
    """
    yield
    jax.clear_caches()
