"""A trace made dense chunk by chunk, so that memory does not grow with its length.

When an expert is next demanded may lie chunks ahead. So the trace is gone through backwards once,
and what is to come is kept for the end of each chunk.
"""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int32

from specmd_jax.core.types import NEVER, Events
from specmd_jax.policies.base import NEXT_USE, UPCOMING
from specmd_jax.simulator.events import check_recorded, dense_events, fresh_passes, next_use
from specmd_jax.traces.ops import slice_passes
from specmd_jax.traces.trace import PAD, Trace

PASSES_PER_CHUNK = 512  # between two chunks progress is shown and Ctrl-C is heard
WHOLE = 64  # a chunk's passes are a multiple of so many: traces of like lengths share a program


class EventChunks:
    """The passes of a trace with what a strategy reads, as numpy arrays.

    Attributes:
      shape: of the model.
      num_passes: of the trace.
      length: passes of a chunk; the last one is padded with passes that ask for nothing.
      first_use: event that first demands each expert, NEVER if none does; None: nobody reads it.
    """

    def __init__(self, trace: Trace, reads: frozenset[str] = frozenset(), lookahead: int = 1):
        """Takes `Strategy.reads`; what is not in it is left out.

        Raises:
          InputError: a policy needs what was not recorded.
        """
        check_recorded(trace, reads, lookahead)
        self.shape, self.num_passes = trace.shape, trace.num_passes
        self.length = min(PASSES_PER_CHUNK, -(-trace.num_passes // WHOLE) * WHOLE)
        self._trace, self._reads, self._lookahead = trace, reads, lookahead
        self._fresh = fresh_passes(trace)
        self._coming: dict[int, Int32[np.ndarray, "L N"]] = {}  # by the pass that begins with it
        self._only: Events | None = None
        self.first_use: Int32[np.ndarray, "L N"] | None = None
        if NEXT_USE in reads:
            self.first_use = self._look_ahead()

    def __iter__(self) -> Iterator[tuple[int, Events]]:
        """Yields the first pass of each chunk, and its events."""
        for start in range(0, self.num_passes, self.length):
            yield start, self._chunk(start)

    def _look_ahead(self) -> Int32[np.ndarray, "L N"]:
        layers, experts, _ = self.shape
        coming = np.full((layers, experts), NEVER, np.int32)
        for start in reversed(range(0, self.num_passes, self.length)):
            self._coming[start + self.length] = coming
            coming = np.minimum(coming, self._first_use_in(start))
        return coming

    def _first_use_in(self, start: int) -> Int32[np.ndarray, "L N"]:
        """Returns the event of a chunk that first demands each expert, NEVER if none does."""
        trace, (layers, experts, _) = self._trace, self.shape
        ends = np.asarray([start, start + self.length], trace.step.dtype)
        rows = slice(*np.searchsorted(trace.step, ends))
        chosen = trace.experts[rows]
        layer = np.arange(layers)[:, None]
        event = np.broadcast_to(trace.step[rows, None, None] * layers + layer, chosen.shape)
        place = layer * experts + chosen
        found = np.full(layers * experts, NEVER, np.int32)
        np.minimum.at(found, place[chosen != PAD], event[chosen != PAD])
        return found.reshape(layers, experts)

    def _chunk(self, start: int) -> Events:
        if self._only is not None:
            return self._only
        stop = min(start + self.length, self.num_passes)
        beyond = -(-self._lookahead // self.shape.num_layers) if UPCOMING in self._reads else 0
        part = slice_passes(self._trace, start, min(stop + beyond, self.num_passes))
        events = dense_events(part, self._reads - {NEXT_USE}, self._lookahead)
        events = jax.tree.map(lambda rows: rows[: stop - start], events)
        events = events._replace(fresh=self._fresh[start:stop])
        if NEXT_USE in self._reads:
            coming = self._coming[start + self.length]
            events = events._replace(next_use=next_use(events.routed > 0, start, coming)[0])
        events = jax.tree.map(lambda rows: _padded(rows, self.length), events)
        if self.length >= self.num_passes:
            self._only = events  # replayed once for each tile of configurations
        return events


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    missing = length - rows.shape[0]
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
