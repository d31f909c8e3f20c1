"""The demand loads of a layer: what is missing, a few at a time on the link."""

from collections import deque
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Shaped

from specmd_jax.runtime.offload.store import ExpertStore
from specmd_jax.runtime.transfer.link import Delivery, Link, Transfer
from specmd_jax.runtime.transfer.prefetch_queue import name_of


class DemandLoads:
    """Experts on their way in ascending order, the first of them sent at once."""

    def __init__(
        self,
        link: Link,
        store: ExpertStore,
        layer: int,
        experts: Bool[np.ndarray, " N"],
        tier: Int8[np.ndarray, " N"],
        lanes: int,
    ):
        """Sends as many as there are lanes.

        Args:
          link: to the device.
          store: of the experts.
          layer: whose experts they are.
          experts: the ones to load.
          tier: in which each is.
          lanes: on the link at a time.
        """
        self._link, self._store, self._lanes = link, store, lanes
        self._layer, self._tier = layer, tier
        self._then: Callable[[], None] | None = None
        self._waiting: deque[int] = deque(np.flatnonzero(experts).tolist())
        self._sent: deque[tuple[int, Transfer]] = deque()
        self._send()

    def __bool__(self) -> bool:
        """Whether any is left."""
        return bool(self._sent)

    @property
    def expert(self) -> int:
        """The one that arrives next."""
        return self._sent[0][0]

    def wait(self) -> Shaped[Array, " P"]:
        """Returns it once it has arrived.

        Raises:
          RuntimeError: it will not.
        """
        return self._sent[0][1].wait()

    @property
    def last(self) -> bool:
        """Whether no other follows it."""
        return len(self._sent) + len(self._waiting) == 1

    def lead(self, expert: int, transfer: Transfer) -> None:
        """Has one that is on the link already come before all others."""
        self._sent.appendleft((expert, transfer))

    def then(self, act: Callable[[], None]) -> None:
        """Calls `act` as soon as the last of them is sent: prefetches queue up behind it."""
        self._then = act
        self._send()

    def advance(self) -> None:
        """Leaves the first behind."""
        self._sent.popleft()
        self._send()

    def _send(self) -> None:
        while self._waiting and len(self._sent) < self._lanes:
            expert = self._waiting.popleft()
            copy = self._store[int(self._tier[expert]), self._layer, expert]
            delivery = Delivery(self._link, copy, name_of((self._layer, expert)))
            self._sent.append((expert, delivery))
        if self._then is not None and not self._waiting:
            self._then()
            self._then = None


def missing(
    there: Bool[np.ndarray, " columns"], ids: Int[np.ndarray, "..."]
) -> Bool[np.ndarray, " N"]:
    """Returns the experts that are asked for and have no slot.

    Args:
      there: whether each has, and true in the last column: of none.
      ids: -1 for no expert.
    """
    asked = np.zeros_like(there)
    asked[ids] = True
    return (asked & ~there)[:-1]
