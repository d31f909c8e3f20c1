"""The link from host memory to the device: first come, first served, real or throttled.

`send` returns at once; whoever needs the weights waits for the transfer.
"""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.runtime.offload.store import Packed, to_device

ATTEMPTS = 3  # of one transfer, before the run gives up
AWAKE_S = 2e-4  # at the end: a thread takes about a tenth of a millisecond to wake


class TransferFailed(RuntimeError):
    """An expert could not be brought to the device, however often it was tried."""


@runtime_checkable
class Transfer(Protocol):
    """An expert on its way."""

    def wait(self) -> Shaped[Array, " P"]:
        """Returns it once it has arrived.

        Raises:
          RuntimeError: the transfer failed.
        """
        ...


@runtime_checkable
class Link(Protocol):
    """Brings experts over.

    Attributes:
      busy_s: seconds it was in use so far.
      transfers: for how many.
    """

    busy_s: float
    transfers: int

    def send(self, expert: Packed) -> Transfer:
        """Begins a transfer, behind those that are under way."""
        ...


class DirectLink:
    """The device's own link, as fast as it is."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.busy_s, self.transfers = 0.0, 0
        self._clock = clock
        self._free_at = 0.0

    def send(self, expert: Packed) -> Transfer:
        """See `Link`."""
        return _Direct(self, to_device(expert), self._clock())

    def landed(self, sent_at: float) -> None:
        """Counts the time since a transfer was sent, or since the one before it landed."""
        now = self._clock()
        self.busy_s += now - max(sent_at, self._free_at)
        self.transfers += 1
        self._free_at = now


class _Direct:
    def __init__(self, link: DirectLink, weights: Shaped[Array, " P"], sent_at: float):
        self._link, self._weights, self._sent_at = link, weights, sent_at

    def wait(self) -> Shaped[Array, " P"]:
        weights = jax.block_until_ready(self._weights)
        self._link.landed(self._sent_at)
        return weights


def sleep_exactly(seconds: float) -> None:
    """Sleeps for so long and hardly longer, which `time.sleep` does not promise.

    Other threads may run meanwhile.
    """
    end = time.perf_counter() + seconds
    if seconds > AWAKE_S:
        time.sleep(seconds - AWAKE_S)
    while time.perf_counter() < end:
        time.sleep(0)


class ThrottledLink:
    """A link of a given rate: the copy is real, and counts as arrived when its time has come."""

    def __init__(
        self,
        bytes_per_s: float,
        latency_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = sleep_exactly,
    ):
        """Makes a link that is idle.

        Args:
          bytes_per_s: of one transfer after the other.
          latency_s: fixed part of each.
          clock, sleep: another time than the machine's, for tests.

        Raises:
          InputError: the rate is not positive, or the latency is negative.
        """
        if not bytes_per_s > 0 or not latency_s >= 0:
            raise InputError(
                f"a link of {bytes_per_s} bytes/s and {latency_s} s a transfer brings nothing: "
                "give a positive rate"
            )
        self.busy_s, self.transfers = 0.0, 0
        self._rate, self._latency_s = bytes_per_s, latency_s
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0

    def send(self, expert: Packed) -> Transfer:
        """See `Link`."""
        takes = self._latency_s + expert.nbytes / self._rate
        self._free_at = max(self._free_at, self._clock()) + takes
        self.busy_s += takes
        self.transfers += 1
        weights = to_device(expert)
        return _Throttled(weights, self._free_at, self._clock, self._sleep)


class _Throttled:
    def __init__(
        self,
        weights: Shaped[Array, " P"],
        due: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ):
        self._weights, self._due, self._clock, self._sleep = weights, due, clock, sleep

    def wait(self) -> Shaped[Array, " P"]:
        remaining = self._due - self._clock()
        if remaining > 0:
            self._sleep(remaining)
        return jax.block_until_ready(self._weights)


class Delivery:
    """An expert on its way, which is sent again if a transfer fails."""

    def __init__(self, link: Link, expert: Packed, name: str):
        """Sends it.

        Args:
          link: to the device.
          expert: on the host.
          name: for the message of a failure.
        """
        self._link, self._expert, self._name = link, expert, name
        self._failures = 0
        self._transfer = self._send()

    def wait(self) -> Shaped[Array, " P"]:
        """Returns it once it has arrived.

        Raises:
          TransferFailed: it was tried often enough.
        """
        while True:
            try:
                return self._transfer.wait()
            except (RuntimeError, OSError) as error:
                self._failed(error)
            self._transfer = self._send()

    def _send(self) -> Transfer:
        while True:
            try:
                return self._link.send(self._expert)
            except (RuntimeError, OSError) as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise TransferFailed(
                f"{self._name} could not be brought to the device in {ATTEMPTS} attempts: {error}"
            ) from error
