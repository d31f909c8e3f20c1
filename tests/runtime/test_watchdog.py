"""Who gets a prefetch that lands just as the main loop asks for it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

from specmd_jax.runtime.transfer.link import Delivery
from specmd_jax.runtime.transfer.prefetch_queue import Prefetched, PrefetchLoop
from specmd_jax.runtime.transfer.watchdog import Watchdog

PATIENCE_S = 5.0


class Arriving(Delivery):
    """A copy that arrives when it is let."""

    def __init__(self, number: int):
        self.arrives = threading.Event()
        self._row = jnp.full(1, number)

    def wait(self) -> Any:
        assert self.arrives.wait(PATIENCE_S)
        return self._row


class Queue(PrefetchLoop):
    """A prefetch loop of numbered copies."""

    def __init__(self) -> None:
        self.deliveries = [Arriving(number) for number in range(2)]
        self.started = 0
        self.filled: list[tuple[int, int]] = []  # expert, and whose row it got

    def start_next(self) -> Prefetched | None:
        if self.started == len(self.deliveries):
            return None
        number, self.started = self.started, self.started + 1
        return Prefetched((0, number), self.deliveries[number])

    def fill(self, place: tuple[int, int], row: Any) -> None:
        self.filled.append((place[1], int(row[0])))


class Slow(Watchdog):
    """A watchdog that dawdles between a landing and what comes of it."""

    def __init__(self, queue: Any):
        super().__init__(queue)
        self.landed, self.advance = threading.Event(), threading.Event()

    def _land(self, row: Any) -> None:
        super()._land(row)
        self.landed.set()
        assert self.advance.wait(PATIENCE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_what_has_landed_and_is_not_yet_written_goes_to_who_claims_it(queue: Queue):
    watchdog = Slow(queue)
    watchdog.release()
    queue.deliveries[0].arrives.set()
    assert watchdog.landed.wait(PATIENCE_S)
    assert watchdog.hold() == (0, 0)
    claim = watchdog.claim()
    watchdog.release()
    watchdog.advance.set()
    queue.deliveries[1].arrives.set()
    assert claim is not None
    assert int(claim.wait()[0]) == 0  # and not the row of the next
    wait_until(lambda: queue.started == 2)
    watchdog.close()
    assert queue.filled == [(1, 1)]


def test_what_is_claimed_on_the_link_is_handed_over_as_it_lands(queue: Queue):
    watchdog = Watchdog(queue)
    watchdog.release()
    wait_until(lambda: queue.started == 1)
    assert watchdog.hold() == (0, 0)
    claim = watchdog.claim()
    for delivery in queue.deliveries:
        delivery.arrives.set()
    assert claim is not None
    assert int(claim.wait()[0]) == 0
    assert watchdog.hold() is None
    watchdog.close()
    assert queue.filled == []


def test_what_nobody_claims_is_written_to_its_slot(queue: Queue):
    watchdog = Watchdog(queue)
    watchdog.release()
    for delivery in queue.deliveries:
        delivery.arrives.set()
    wait_until(lambda: len(queue.filled) == 2)
    assert watchdog.hold() is None
    assert watchdog.claim() is None
    watchdog.close()
    assert queue.filled == [(0, 0), (1, 1)]
