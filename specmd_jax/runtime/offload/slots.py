"""Device memory for experts: pages, allotted before the start.

A page is the greatest common divisor of what the copies take, so that copies of different
precision share the memory to the last byte; where there is one precision, a page is a slot. Whoever
decides what is resident is elsewhere; here a copy that leaves gives its pages back, a copy that
enters takes some, and there are never more than were paid for.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.core.interned import Interned
from specmd_jax.core.types import ABSENT
from specmd_jax.runtime.offload.pages import Memory, allot, write_now
from specmd_jax.runtime.offload.store import Packing, to_device

NO_PAGE = -1
Pages = Int[np.ndarray, " pages"]
Result = TypeVar("Result")


class Slots:
    """Room for the copies of all tiers. Safe to use from the main loop and the watchdog.

    Attributes:
      tier: of each (layer, expert) that has room, ABSENT of the others; its weights may still be
        on their way.
      there: whether it has room; the last column stands for no expert, which needs none.
      nbytes: of all pages, on the device.
    """

    def __init__(self, num_pages: int, shape: tuple[int, int], packings: tuple[Packing, ...]):
        """Allots the pages.

        Args:
          num_pages: U, at least 1.
          shape: MoE layers and experts of each.
          packings: of the tiers.

        Raises:
          InputError: the device has not that much memory.
        """
        self.tier: Int8[np.ndarray, "L N"] = np.full(shape, ABSENT, np.int8)
        self.there: Bool[np.ndarray, "L columns"] = np.zeros((shape[0], shape[1] + 1), bool)
        self.there[:, -1] = True
        self._size = int(np.gcd.reduce([packing.size for packing in packings]))
        self._pages_of_tier = [packing.size // self._size for packing in packings]
        pages = max(self._pages_of_tier)
        self._where: Int[np.ndarray, "L N pages"] = np.full((*shape, pages), NO_PAGE, np.int32)
        self.nbytes = num_pages * self._size * packings[0].row.itemsize
        self._free = list(range(num_pages - 1, -1, -1))
        self._packings = [Interned(packing) for packing in packings]
        self._memory = _allotted(packings, num_pages, self._size, self.nbytes)
        self._lock = threading.Lock()
        self._compile(num_pages)

    def _compile(self, num_pages: int) -> None:
        """Has all writing compiled by the thread that is here: XLA should not compile in two."""
        for static, pages in zip(self._packings, self._pages_of_tier, strict=True):
            if pages <= num_pages:
                nothing = np.zeros(static.value.size, static.value.row)
                row = to_device(nothing)
                for _ in range(2):  # on what was allotted, and on what was written to
                    where = np.arange(pages, dtype=np.int32)
                    self._memory = write_now(static, self._memory, row, where)

    def hold(self, tier: Int8[np.ndarray, "L N"]) -> None:
        """Takes pages from copies that left and gives them to those that came.

        Args:
          tier: of the copies that are resident from now on, ABSENT elsewhere.

        Raises:
          RuntimeError: there are more copies than fit: a decision broke the budget.
        """
        changed = self.tier != tier
        if not changed.any():
            return
        for place in zip(*np.nonzero(changed & (self.tier != ABSENT)), strict=True):
            pages = self._pages_of_tier[self.tier[place]]
            self._free += self._where[place][:pages].tolist()
            self._where[place] = NO_PAGE
        for place in zip(*np.nonzero(changed & (tier != ABSENT)), strict=True):
            pages = self._pages_of_tier[tier[place]]
            if len(self._free) < pages:
                raise RuntimeError(f"{(tier != ABSENT).sum()} copies are more than fit")
            self._where[place][:pages] = [self._free.pop() for _ in range(pages)]
        self.tier = tier.copy()
        self.there[:, :-1] = tier != ABSENT

    def pages(self, layer: int, tier: int = 0) -> Int[np.ndarray, "N pages"]:
        """Returns the pages of the experts of a layer, if they are of this tier.

        A copy, as everywhere here: JAX may read a numpy array after the call that was given it.
        """
        return self._where[layer, :, : self._pages_of_tier[tier]].copy()

    @property
    def first_pages(self) -> Int[np.ndarray, "L N"]:
        """The slot of each expert, NO_PAGE if it has none; where there is one precision."""
        return self._where[:, :, 0].copy()

    def fill(self, layer: int, expert: int, row: Shaped[Array, " P"]) -> None:
        """Writes the weights that arrived for an expert into its pages, in place."""

        def run(memory: Memory, pages: Pages) -> tuple[None, Memory]:
            return None, write_now(self._packings[self.tier[layer, expert]], memory, row, pages)

        self.change(layer, expert, run)

    def change(
        self, layer: int, expert: int, run: Callable[[Memory, Pages], tuple[Result, Memory | None]]
    ) -> Result:
        """Has an expert's pages written to, and returns what else comes of that.

        Args:
          layer: of the expert.
          expert: which has room.
          run: is given the memory of all pages, which it may reuse, and the pages of the expert;
            returns what else it makes, and the memory.
        """
        tier = self.tier[layer, expert]
        if tier == ABSENT:
            raise RuntimeError(f"expert {expert} of layer {layer} arrived and has no slot")
        pages = self._where[layer, expert, : self._pages_of_tier[tier]].copy()
        with self._lock:
            result, memory = run(self._memory, pages)
            assert memory is not None
            self._memory = memory
        return result

    @contextmanager
    def reading(self) -> Iterator[Memory]:
        """Yields the memory of all pages, to be used before it is written to again."""
        with self._lock:
            yield self._memory


def _allotted(packings: tuple[Packing, ...], num_pages: int, size: int, nbytes: int) -> Memory:
    try:
        return jax.block_until_ready(allot(packings, num_pages, size))
    except RuntimeError as error:  # XLA raises its own kind of it
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise InputError(
            f"the device has no {nbytes / 2**30:.2f} GiB for experts{_free_memory()}: give a "
            "smaller --capacity"
        ) from error


def _free_memory() -> str:
    """Returns what the device says it has left, if it says so."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return ""
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return f", {max(free, 0) / 2**30:.2f} GiB are free"
