"""What a run has seen of its own times, from which it tells the guard what to expect."""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from specmd_jax.policies.prefetch_guard import Outlook
from specmd_jax.runtime.decide.layer_work import LayerWork
from specmd_jax.runtime.gates.gate_events import GatePosition
from specmd_jax.runtime.transfer.link import Link

TICK_S = 1e-6
MOST_TICKS = 1 << 30
LATEST = 0.25  # share of the latest in a mean


@runtime_checkable
class WindowEstimator(Protocol):
    """Says what is to be expected of the link until the next gate."""

    def at_gate(self, position: GatePosition, stalled: float) -> None:
        """A gate has fired.

        Args:
          position: which gate.
          stalled: for how long the run has waited for the link so far, by its clock.
        """
        ...

    def served(self) -> None:
        """The last of what the gate asked for has come over: the link is free."""
        ...

    def skip(self) -> None:
        """Gates fire that nobody will be told of."""
        ...

    def outlook(self, work: LayerWork) -> Outlook:
        """Returns what to expect at the gate that has just fired.

        Args:
          work: of its layer; what is missing is on the link already, or about to be.
        """
        ...


class LinkEstimator:
    """Means of what gates and transfers took; nothing is expected before they are known.

    The next gate fires when a layer has taken what it takes without waiting for the link. If its
    demand is longer on the link, the gate still fires some time after: what arrived last has to be
    computed.
    """

    def __init__(self, link: Link, num_layers: int, clock: Callable[[], float] = time.perf_counter):
        """Has seen nothing yet.

        Args:
          link: to the device.
          num_layers: of experts.
          clock: of the run.
        """
        self._link, self._clock = link, clock
        self._took_s = np.zeros((2, num_layers))  # by phase, from gate to gate
        self._after_s = np.zeros((2, num_layers))  # from the last arrival to the next gate
        self._last: tuple[int, int] | None = None  # phase and layer
        self._at = self._stalled = 0.0
        self._served_at: float | None = None

    def at_gate(self, position: GatePosition, stalled: float) -> None:
        """See `WindowEstimator`."""
        now = self._clock()
        if self._last is not None and not (position.fresh and position.layer == 0):
            _learn(self._took_s, self._last, now - self._at - (stalled - self._stalled))
            if self._served_at is not None:
                _learn(self._after_s, self._last, now - self._served_at)
        self._last = int(position.prefill), position.layer
        self._at, self._stalled, self._served_at = now, stalled, None

    def served(self) -> None:
        """See `WindowEstimator`."""
        self._served_at = self._clock()

    def skip(self) -> None:
        """See `WindowEstimator`."""
        self._last = None

    def outlook(self, work: LayerWork) -> Outlook:
        """See `WindowEstimator`."""
        assert self._last is not None
        load_s = self._link.busy_s / max(self._link.transfers, 1)
        busy_s = load_s * (int(work.loaded.sum()) + 0.5 * work.late.any())
        spare_s = self._took_s[self._last] - busy_s
        if busy_s > 0:
            spare_s = max(spare_s, self._after_s[self._last])
        return Outlook(_ticks(spare_s), _ticks(load_s))


def _learn(means: np.ndarray, place: tuple[int, int], value: float) -> None:
    """Moves a mean towards its latest value, the first of which it takes as it is."""
    share = LATEST if means[place] else 1.0
    means[place] += share * (value - means[place])


def _ticks(seconds: float) -> Int[np.ndarray, ""]:
    return np.asarray(min(seconds / TICK_S, MOST_TICKS), np.int32)
