"""The decisions, taken by the simulator's own step on the host: what to load, what to evict."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int8, Integer

from specmd_jax.core.interned import Interned
from specmd_jax.core.types import ABSENT, Event, Flight, ModelShape
from specmd_jax.policies.prefetch_guard import Outlook
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.runtime.decide.compiled_step import (
    Decision,
    Fixed,
    HitBatch,
    Program,
    Question,
    count_hits_now,
    decide,
    decide_now,
)
from specmd_jax.runtime.decide.full_cache import FullCacheCounts
from specmd_jax.runtime.decide.tree_row import TreeLayout
from specmd_jax.simulator.counts import Counts
from specmd_jax.simulator.state import SimState, begin
from specmd_jax.simulator.timeline import NOTHING

STARTS = 8  # numbers of started prefetches that are decided at once: it costs little more than one

Place = tuple[int, int]  # layer, expert


class Decisions:
    """One strategy over one cache, event by event.

    Attributes:
      demand_is_fixed: what is computed depends on no decision: hits are used, misses loaded.
      resident: the tier of what is on the device or has a slot reserved, ABSENT of the others.
    """

    def __init__(
        self,
        strategy: Strategy,
        params: StrategyParams,
        shape: ModelShape,
        capacity: Integer[np.ndarray, " W"],
        units: Integer[np.ndarray, "L Q"],
    ):
        """Starts with a cold cache.

        Args:
          strategy: the four policies.
          params: of the policies.
          shape: of the model.
          capacity: units of each pool.
          units: size of one copy, by layer and tier.
        """
        self.demand_is_fixed = _demand_is_fixed(strategy, units.shape[1])
        self._strategy, self._shape = strategy.structure, shape
        self._host = jax.local_devices(backend="cpu")[0]
        sizes = (jnp.asarray(part, jnp.int32) for part in (capacity, units))
        fixed = Fixed(jax.tree.map(jnp.asarray, params), *sizes)
        self._fixed = jax.device_put(fixed, self._host)
        self._deciding: Interned[tuple[Program, TreeLayout]] | None = None
        self._counting: dict[bool, Interned[tuple[Program, bool]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets all: a cold cache, nothing counted."""
        params, _, units = self._fixed
        state = begin(self._strategy, params, self._shape, units)
        self._wire = TreeLayout.of(state)
        row = self._wire.pack(jax.tree.map(np.asarray, state))
        self._starts_each = STARTS if self._strategy.prefetches else 1
        self._full_cache = FullCacheCounts.nothing(self._shape)
        self._after = self._rows(row)  # the states that there may be by now
        self._first = 0  # prefetches started in the first of them
        self._started = 0  # since the last gate
        self.resident: Int8[np.ndarray, "L N"] = np.asarray(state.cache.tier)

    def serve(self, event: Event, flight: Place | None, outlook: Outlook | None = None) -> Decision:
        """Serves the demand of a gate; no prefetch has been started yet.

        Args:
          event: what it asks for; a pass begins with the first layer.
          flight: the copy on the link.
          outlook: until the next gate, if the strategy has a guard.
        """
        self._tell_full_cache()
        where: list[Any] = [_number(part) for part in flight or (NOTHING, 0)]
        self._asked = Question(event, Flight(*where), self._row, _number(0), outlook)
        self._before, self._first, self._started = self._after, 0, 0
        return self._decide()

    def count_hits(self, events: Event, number: int) -> None:
        """Serves demands that find all they ask for, where no prefetch may be wanted.

        Nothing waits for it. Once every expert is on the device nobody leaves any more, so that
        policies need not follow: a sum is made.

        Args:
          events: stacked; one length is one program.
          number: how many of them, the first ones.
        """
        if (self.resident != ABSENT).all():
            self._full_cache = self._full_cache.and_of(events, number)
        else:
            self._count(events, number, names=False)

    def try_hits(self, events: Event, number: int) -> int:
        """Serves demands that find all they ask for, up to the first that wants a prefetch.

        Args:
          events: stacked; nothing is on the link.
          number: how many of them, the first ones.

        Returns:
          How many were served.
        """
        return int(self._count(events, number, names=True))

    def start_next(self) -> Place | None:
        """Lets the first of the queue in, and its victims out; None if no other may come in."""
        before, self._started = self._decision, self._started + 1
        if self._started - self._first >= self._starts_each:
            self._first = self._started
            self._asked = self._asked._replace(starts=_number(self._first))
            self._decide()
        else:
            self._look_up()
        ahead, experts = np.nonzero(self._decision.started & ~before.started)
        if not len(experts):
            return None
        layer = int(self._asked.event.layer) + 1 + int(ahead[0])
        return layer % self._shape.num_layers, int(experts[0])

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """All that was counted, and what of it in passes of prefill, as numpy arrays."""
        self._tell_full_cache()
        state = self._state
        return state.counts, state.prefill

    @property
    def broken(self) -> bool:
        """Whether a policy's score was not a number."""
        return bool(self._state.cache.broken)

    @property
    def _state(self) -> SimState:
        return self._wire.unpack(np.asarray(self._after)[self._row])

    @property
    def _row(self) -> Int[np.ndarray, ""]:
        return _number(self._started - self._first)

    def _decide(self) -> Decision:
        """Asks for the decisions of the next numbers of starts."""
        if self._deciding is None:
            program = self._program(TreeLayout.of(self._asked))
            inputs = self._fixed, self._before, program.question.pack(self._asked)
            made = jax.eval_shape(lambda *inputs: decide(program, *inputs)[1], *inputs)
            self._deciding = Interned((program, TreeLayout.of(made, skip=1)))
        program, self._answer = self._deciding.value
        row = program.question.pack(self._asked)
        self._after, answers = decide_now(self._deciding, self._fixed, self._before, row)
        self._answers = np.asarray(answers)
        return self._look_up()

    def _look_up(self) -> Decision:
        self._decision: Decision = self._answer.unpack(self._answers[self._row])
        self.resident = np.asarray(self._decision.resident)
        return self._decision

    def _count(self, events: Event, number: int, *, names: bool) -> Int[Array, ""]:
        hits = HitBatch(events, _number(number), self._row)
        if names not in self._counting:
            self._counting[names] = Interned((self._program(TreeLayout.of(hits)), names))
        static = self._counting[names]
        row = static.value[0].question.pack(hits)
        self._after, served = count_hits_now(static, self._fixed, self._after, row)
        self._first = self._started = 0
        return served

    def _tell_full_cache(self) -> None:
        """Has the state know what was summed up."""
        if not self._full_cache.number.any():
            return
        row = self._wire.pack(self._full_cache.told(self._state))
        self._after, self._first, self._started = self._rows(row), 0, 0
        self._full_cache = FullCacheCounts.nothing(self._shape)

    def _rows(self, row: Int[np.ndarray, " R"]) -> Int[Array, "S R"]:
        return jax.device_put(np.tile(row, (self._starts_each, 1)), self._host)

    def _program(self, question: TreeLayout) -> Program:
        told = not self.demand_is_fixed
        return Program(self._strategy, self._shape, told, self._wire, question, self._starts_each)


def _number(value: int) -> Int[np.ndarray, ""]:
    return np.asarray(value, np.int32)


def _demand_is_fixed(strategy: Strategy, tiers: int) -> bool:
    return strategy.miss.plan is None and strategy.routing.choose is None and tiers == 1
