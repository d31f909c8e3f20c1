"""How many programs JAX compiles, or reads from its cache on disk, while something runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"
_seen: list[str] = []


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == _COMPILED:
        _seen.append(event)


monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compiles() -> Iterator[list[str]]:
    """Yields a list that holds, at the end, an entry for each program compiled meanwhile."""
    before, found = len(_seen), []
    yield found
    found += _seen[before:]
