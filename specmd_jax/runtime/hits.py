"""Gates that found all they asked for. Nothing waits for their count, so it is made later."""

from functools import partial

import jax
import numpy as np
from jaxtyping import Bool, Int

from specmd_jax.runtime.decisions import Decisions
from specmd_jax.runtime.demand import Asked, Moment, fetch, join_asked, make_events
from specmd_jax.types import Event, ModelShape

PASSES = 8  # whose hits are counted together: a count costs about as much as one decision


class Hits:
    """What is to be told to the decisions before they decide again."""

    def __init__(self, decisions: Decisions, num_experts: int, reads: frozenset[str]):
        """Takes note of nothing yet.

        Args:
          decisions: which count.
          num_experts: of a layer.
          reads: `Strategy.reads`.
        """
        self._decisions, self._num_experts, self._reads = decisions, num_experts, reads
        self._noted: list[Asked] = []
        self._begun: Moment | None = None
        self._layers = 0

    def note(self, asked: Asked, moment: Moment) -> None:
        """Takes note of some layers, which follow on those noted before.

        Args:
          asked: by their gates; may still be on the device.
          moment: of the first of them.
        """
        if self._begun is not None and not self._goes_on(moment, len(asked.ids)):
            self.settle()
        if self._begun is None:
            self._begun, self._layers = moment, 0
        self._noted.append(asked)
        self._layers += len(asked.ids)

    @property
    def due(self) -> bool:
        """Whether there is no room to note another pass."""
        begun = self._begun
        return begun is not None and self._layers > (PASSES - 1) * begun.num_layers

    def settle(self) -> None:
        """Has all that was noted counted.

        Raises:
          InputError: the model computed NaN.
        """
        if self._begun is None:
            return
        noted, begun = self._noted, self._begun
        self._noted, self._begun = [], None
        self._count(join_asked(fetch(noted)), begun, self._layers)

    def warm(self, shape: ModelShape, lookahead: int) -> None:
        """Has compiled what counting takes.

        Args:
          shape: of the model.
          lookahead: layers that its gates foresee, D.
        """
        layers, experts, top_k = shape
        zeros = partial(np.zeros, dtype=np.float32)
        asked = Asked(
            np.zeros((layers, 1, top_k), np.int32),
            zeros((layers, 1, top_k)),
            zeros((layers, 1, experts)),
            zeros((layers, 1, lookahead, experts)),
        )
        self._count(asked, Moment(0, 0, layers, False, False), 0)

    def _count(self, asked: Asked, moment: Moment, layers: int) -> None:
        events = self.events(asked, moment)
        self._decisions.count_hits(_padded(events, PASSES * moment.num_layers), layers)

    def events(self, asked: Asked, moment: Moment) -> Event:
        """Returns what some layers ask for, see `make_events`."""
        return make_events(asked, moment, self._num_experts, self._reads)

    def _goes_on(self, moment: Moment, layers: int) -> bool:
        """Whether layers can be counted with those noted: of one pass, or all of them of decode."""
        begun = self._begun
        assert begun is not None
        if self._layers + layers > PASSES * moment.num_layers:
            return False
        plain = not (moment.prefill or moment.fresh or begun.prefill or begun.fresh)
        return plain or moment.step == begun.step


def _padded(events: Event, size: int) -> Event:
    """Returns events with some more behind them that nobody looks at."""
    return jax.tree.map(lambda one: np.resize(one, (size, *one.shape[1:])), events)


def found_from_start(
    there: Bool[np.ndarray, "L columns"], ids: Int[np.ndarray, "layers T K"], layer: int = 0
) -> int:
    """Returns how many of some layers, from the first on, find all they ask for.

    Args:
      there: of each expert, and true in the last column: of none.
      ids: -1 for no expert.
      layer: the first of them.
    """
    if len(ids) == 1:
        return int(there[layer][ids[0]].all())
    layers = np.arange(layer, layer + len(ids))[:, None]
    found = there[layers, ids.reshape(len(ids), -1)].all(axis=1)
    return len(ids) if found.all() else int(np.argmin(found))
