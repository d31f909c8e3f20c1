"""The watchdog of the paper's Figure 2: a thread that drains the prefetch queue while the main
loop computes, one transfer after the other, so that a demand waits for one at most.
"""

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Shaped

from specmd_jax.runtime.decide.decisions import Place
from specmd_jax.runtime.transfer.link import Transfer
from specmd_jax.runtime.transfer.prefetch_queue import Prefetched, PrefetchLoop


class WatchdogFailed(RuntimeError):
    """The watchdog came upon an error, which is the cause."""


@runtime_checkable
class Watching(Protocol):
    """Starts prefetches from when it is released until it is held.

    While it is held it touches neither decisions nor link; only a transfer that is under way
    goes on.
    """

    def hold(self) -> Place | None:
        """Has nothing more started, and what is still queued dropped.

        Returns:
          The copy that is still on the link.

        Raises:
          WatchdogFailed: it met an error since it was last asked.
        """
        ...

    def release(self) -> None:
        """Lets it start what is queued."""
        ...

    def claim(self) -> Transfer | None:
        """Hands over the copy that is still on the link, for the main loop to write to its slot.

        Waiting for it raises `WatchdogFailed` if it will not arrive. None: it is in its slot by
        now.
        """
        ...

    def close(self) -> None:
        """Ends it, once the transfer that is under way has landed."""
        ...


class Watchdog:
    """The thread; see `Watching`."""

    def __init__(self, prefetch: PrefetchLoop, *, drained: bool = False):
        """Makes one that is held.

        Args:
          prefetch: what it starts.
          drained: let the queue run empty before it is held, as on an infinitely fast link.
        """
        self._prefetch, self._drained = prefetch, drained
        self._turn = threading.Condition()
        self._released = False
        self._closed = False
        self._flight: Prefetched | None = None
        self._claim: _Claim | None = None  # of the main loop on the flight
        self._landed: Shaped[Array, " P"] | None = None  # the flight's, before anybody took it
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def hold(self) -> Place | None:
        """See `Watching`."""
        with self._turn:
            if self._drained:
                self._turn.wait_for(lambda: not self._released and self._flight is None)
            self._released = False
            self._check()
            return None if self._flight is None else self._flight.place

    def release(self) -> None:
        """See `Watching`."""
        with self._turn:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            self._released = self._error is None
            self._turn.notify_all()

    def claim(self) -> Transfer | None:
        """See `Watching`."""
        with self._turn:
            self._check()
            if self._flight is None:
                return None
            claim = _Claim(self._turn, self._check)
            if self._landed is None:
                self._claim = claim
            else:
                claim.row = self._landed
                self._flight = self._landed = None
            return claim

    def close(self) -> None:
        """See `Watching`."""
        with self._turn:
            if self._drained:
                self._turn.wait_for(lambda: not self._released and self._flight is None)
            self._closed, self._released = True, False
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _check(self) -> None:
        if self._error is not None:
            raise WatchdogFailed(f"prefetching failed: {self._error}") from self._error

    def _run(self) -> None:
        try:
            while (flight := self._take_turn()) is not None:
                self._land(flight.delivery.wait())
        except BaseException as error:
            with self._turn:
                self._error = error
        finally:
            with self._turn:
                self._flight, self._released = None, False
                self._turn.notify_all()

    def _land(self, row: Shaped[Array, " P"]) -> None:
        """Gives the main loop what it has claimed; what it has not can still be claimed."""
        with self._turn:
            if self._claim is None:
                self._landed = row
                return
            self._claim.row = row
            self._flight = self._claim = None
            self._turn.notify_all()

    def _take_turn(self) -> Prefetched | None:
        """Starts what is next, as soon as there is something; None: the thread ends.

        Only then is what has landed written to its slot, so that the link does not wait for that.
        """
        with self._turn:
            started = self._prefetch.start_next() if self._released else None
            if self._flight is not None and self._landed is not None:
                self._prefetch.fill(self._flight.place, self._landed)
                self._landed = None
            while started is None:
                self._flight, self._released = None, False
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._released or self._closed)
                if self._closed:
                    return None
                started = self._prefetch.start_next()
            self._flight = started
            self._turn.notify_all()
            return started


class _Claim:
    """A `Transfer` that the watchdog waits for."""

    def __init__(self, turn: threading.Condition, check: Callable[[], None]):
        self.row: Shaped[Array, " P"] | None = None
        self._turn, self._check = turn, check

    def wait(self) -> Shaped[Array, " P"]:
        with self._turn:
            while self.row is None:
                self._check()
                self._turn.wait()
            return self.row
