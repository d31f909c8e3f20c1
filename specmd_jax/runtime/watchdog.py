"""The watchdog of the paper's Figure 2: a thread that drains the prefetch queue while the main
loop computes, one transfer after the other, so that a demand waits for one at most.
"""

import threading
from typing import Protocol, runtime_checkable

from specmd_jax.runtime.decisions import Place
from specmd_jax.runtime.prefetch_loop import Landed, Prefetched, PrefetchLoop


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

    def wait_landed(self) -> None:
        """Waits for the transfer that is under way.

        Raises:
          WatchdogFailed: it will not arrive.
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

    def wait_landed(self) -> None:
        """See `Watching`."""
        with self._turn:
            flight = self._flight
            self._turn.wait_for(lambda: self._flight is not flight or flight is None)
            self._check()

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
        landed: Landed | None = None
        try:
            while self._take_turn(landed):
                assert self._flight is not None
                landed = self._flight.place, self._flight.delivery.wait()
        except BaseException as error:
            with self._turn:
                self._error = error
        finally:
            with self._turn:
                self._flight, self._released = None, False
                self._turn.notify_all()

    def _take_turn(self, landed: Landed | None) -> bool:
        """Starts what is next, as soon as there is something; False: the thread ends.

        Only then is what has landed written to its slot, so that the link does not wait for that.
        """
        with self._turn:
            started = self._prefetch.start_next() if self._released else None
            if landed is not None:
                self._prefetch.fill(*landed)
            while started is None:
                self._flight, self._released = None, False
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._released or self._closed)
                if self._closed:
                    return False
                started = self._prefetch.start_next()
            self._flight = started
            self._turn.notify_all()
            return True
