"""Gates that found all they asked for. Nothing waits for their count, so it is made later."""

import jax
import numpy as np
from jaxtyping import Bool, Int

from specmd_jax.core.types import Event
from specmd_jax.runtime.decide.decisions import Decisions
from specmd_jax.runtime.gates.gate_events import GatePosition, make_events
from specmd_jax.runtime.gates.message import MessageLayout, Messages

PASSES = 8  # whose hits are counted together: a count costs about as much as one decision


class HitBacklog:
    """What is to be told to the decisions before they decide again."""

    def __init__(self, decisions: Decisions, form: MessageLayout, reads: frozenset[str]):
        """Takes note of nothing yet.

        Args:
          decisions: which count.
          form: of the gates' messages.
          reads: `Strategy.reads`.
        """
        self._decisions, self._layout, self._reads = decisions, form, reads
        self._noted: list[Messages] = []
        self._begun: GatePosition | None = None
        self._layers = 0

    def note(self, messages: Messages, position: GatePosition) -> None:
        """Takes note of some layers, which follow on those noted before.

        Args:
          messages: of their gates; may still be on the device.
          position: of the first of them.
        """
        if self._begun is not None and not self._goes_on(position, len(messages)):
            self.settle()
        if self._begun is None:
            self._begun, self._layers = position, 0
        self._noted.append(messages)
        self._layers += len(messages)

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
        self._count(np.concatenate(jax.device_get(noted)), begun, self._layers)

    def warm(self, num_layers: int) -> None:
        """Has compiled what counting takes."""
        nothing = np.zeros((num_layers, 1, self._layout.columns), np.int32)
        self._count(nothing, GatePosition(0, 0, num_layers, False, False), 0)

    def _count(
        self, messages: Int[np.ndarray, "layers T M"], position: GatePosition, layers: int
    ) -> None:
        events = self.events(messages, position)
        self._decisions.count_hits(_padded(events, PASSES * position.num_layers), layers)

    def events(self, messages: Messages, position: GatePosition) -> Event:
        """Returns what some layers ask for, see `make_events`."""
        choices = self._layout.read(messages)
        return make_events(choices, position, self._layout.num_experts, self._reads)

    def _goes_on(self, position: GatePosition, layers: int) -> bool:
        """Whether layers can be counted with those noted: of one pass, or all of them of decode."""
        begun = self._begun
        assert begun is not None
        if self._layers + layers > PASSES * position.num_layers:
            return False
        plain = not (position.prefill or position.fresh or begun.prefill or begun.fresh)
        return plain or position.step == begun.step


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
