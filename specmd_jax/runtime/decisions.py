"""The decisions, taken by the simulator's own step on the host: what to load, what to evict.

In a replay the step is told what everything takes and works out what happens. In a run it is told
what happened: whether a copy is in flight at the gate, and how many prefetches have been started
since. For that it gets `Costs` in which one prefetch takes as long as another and the window
between two gates is as many of them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Integer

from specmd_jax.cache import Served, Setting
from specmd_jax.counting import Counts
from specmd_jax.runtime.wire import Wire
from specmd_jax.simulate import Replay, begin, begin_pass, serve_event
from specmd_jax.strategy import Strategy, StrategyParams
from specmd_jax.timeline import NOTHING, Costs, Link, PassCosts
from specmd_jax.types import Event, Flight, ModelShape

TRANSFER_TICKS = 2
REMAINING_TICKS = 1  # of a copy in flight at the gate: more than none, less than a transfer

Place = tuple[int, int]  # layer, expert


class Decision(NamedTuple):
    """What an event's demand comes to, and where that leaves the cache; as numpy arrays."""

    event: Event  # as the routing policy left it
    served: Served
    resident: Int8[Array | np.ndarray, "L N"]  # tier of all that is there or has a slot reserved
    arrivals: tuple["Queue", ...]  # by prefetch target, nearest first

    @property
    def queued(self) -> int:
        """Prefetches that are wanted."""
        return sum(int(one.queued.sum()) for one in self.arrivals)

    @property
    def smooth(self) -> bool:
        """Whether all was there and nothing is wanted."""
        return not self.queued and not (self.event.used & ~self.served.hit).any()

    @property
    def all_held(self) -> bool:
        """Whether all that is computed is in slots, in one precision."""
        served = self.served
        elsewhere = served.loaded | served.late | served.plan.on_host
        tiers = served.tier[served.used]
        return not elsewhere.any() and bool((tiers == tiers[:1]).all())

    @property
    def held(self) -> Bool[np.ndarray, " N"]:
        """The experts to compute from where they are: hits, and those that stand in."""
        served = self.served
        return np.asarray(served.used & ~served.loaded & ~served.late)


class Queue(NamedTuple):
    """What a prefetcher named for one layer; over its experts."""

    queued: Bool[Array | np.ndarray, " N"]
    started: Bool[Array | np.ndarray, " N"]


class _Question(NamedTuple):
    """What a step is told."""

    event: Event  # or those of a pass, stacked
    flight: Flight
    starts: Int[Array | np.ndarray, ""]  # prefetches begun since the gate
    begins: Bool[Array | np.ndarray, ""]  # whether a pass begins with it


class Decisions:
    """One strategy over one cache, event by event."""

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
        self._static = strategy.structure, shape
        self._host = jax.local_devices(backend="cpu")[0]
        traced = jax.tree.map(jnp.asarray, (params, capacity.astype(np.int32), _int32(units)))
        self._traced = jax.device_put(traced, self._host)
        self.reset()

    def reset(self) -> None:
        """Forgets all: a cold cache, nothing counted."""
        strategy, shape = self._static
        params, _, units = self._traced
        state = begin(strategy, params, shape, units)
        self._wire = Wire.of(state)
        self._before = jax.device_put(self._wire.pack(jax.tree.map(np.asarray, state)), self._host)
        self._after = self._before  # as one row
        self._decision: Decision | None = None
        self._asked: _Question | None = None
        self._begins = False

    @property
    def next_step(self) -> int:
        """The number of the pass to come."""
        return int(self._state.next_step)

    def begin_pass(self) -> None:
        """Begins a pass with the event to come: what was evicted in the last one is forgotten."""
        self._begins = True

    def serve(self, event: Event, flight: Place | None) -> Decision:
        """Serves the demand of a gate; no prefetch has been started yet.

        Args:
          event: what it asks for.
          flight: the copy on the link.
        """
        self._before, self._asked = self._after, self._question(event, flight)
        self._after, self._decision = self._serve(self._asked)
        return self._decision

    def serve_smooth(self, events: Event) -> int:
        """Serves the layers of a pass, up to the first one that misses or wants something.

        Args:
          events: of all layers, stacked; nothing is on the link.

        Returns:
          How many were served.
        """
        return int(self._serve_pass(events))

    def serve_hits(self, events: Event) -> None:
        """Serves the layers of a pass while everything is resident; nothing waits for it.

        Args:
          events: of all layers, stacked.
        """
        self._serve_pass(events)

    def start_next(self) -> Place | None:
        """Lets the first of the queue in, and its victims out; None if no other may come in.

        An event is served anew with one start more, which is how the step knows of them.
        """
        asked, decision = self._asked, self._decision
        assert asked is not None and decision is not None
        more = asked._replace(starts=asked.starts + np.int32(1))
        after, found = self._serve(more)
        pairs = zip(decision.arrivals, found.arrivals, strict=True)
        for ahead, (old, new) in enumerate(pairs, 1):
            for expert in np.flatnonzero(new.started & ~old.started):
                self._asked, self._after, self._decision = more, after, found
                layer = (int(asked.event.layer) + ahead) % self._static[1].num_layers
                return layer, int(expert)
        return None

    @property
    def resident(self) -> Int8[np.ndarray, "L N"]:
        """The tier of what is on the device, or has a slot reserved."""
        assert self._decision is not None
        return np.asarray(self._decision.resident)

    @property
    def counts(self) -> Counts:
        """All that was counted, as numpy arrays."""
        return self._state.counts

    @property
    def broken(self) -> bool:
        """Whether a policy's score was not a number."""
        return bool(self._state.cache.broken)

    @property
    def _state(self) -> Replay:
        return self._wire.unpack(np.asarray(self._after))

    def _question(self, event: Event, flight: Place | None = None) -> _Question:
        where: list[Any] = [np.int32(part) for part in flight or (NOTHING, 0)]
        asked = _Question(event, Flight(*where), np.asarray(0, np.int32), np.asarray(self._begins))
        self._begins = False
        return asked

    def _serve(self, asked: _Question) -> tuple[Int[Array, " R"], Decision]:
        wires = self._wire, Wire.of(asked)
        answers = _answers(*self._static, *wires, *self._traced)
        rows = self._before, wires[1].pack(asked)
        after, row = _serve(*self._static, *wires, answers, *self._traced, *rows)
        return after, answers.unpack(np.asarray(row))

    def _serve_pass(self, events: Event) -> Int[Array, ""]:
        asked = self._question(events)
        wires = self._wire, Wire.of(asked)
        rows = self._after, wires[1].pack(asked)
        self._after, smooth = _serve_pass(*self._static, *wires, *self._traced, *rows)
        return smooth


_ANSWERS: dict[Any, Wire] = {}


def _answers(strategy: Strategy, shape: ModelShape, held: Wire, asks: Wire, *traced: Any) -> Wire:
    """Returns how the answers to such questions are wired."""
    key = strategy, shape, held, asks
    if key not in _ANSWERS:

        def answer(params: Any, capacity: Any, units: Any, state: Any, asked: Any) -> Decision:
            return _step(strategy, shape, params, capacity, units, state, asked)[1]

        trees = (held.like(), asks.like())
        _ANSWERS[key] = Wire.of(jax.eval_shape(answer, *traced, *trees))
    return _ANSWERS[key]


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _serve(
    strategy: Strategy,
    shape: ModelShape,
    held: Wire,
    asks: Wire,
    answers: Wire,
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    state: Int[Array, " R"],
    asked: Int[Array, " M"],
) -> tuple[Int[Array, " R"], Int[Array, " A"]]:
    """Takes a step; all that goes in and comes out is in rows, see `Wire`."""
    before, question = held.unpack(state), asks.unpack(asked)
    after, decision = _step(strategy, shape, params, capacity, units, before, question)
    return held.join(after), answers.join(decision)


def _step(
    strategy: Strategy,
    shape: ModelShape,
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    state: Replay,
    asked: _Question,
) -> tuple[Replay, Decision]:
    """Serves an event in whose window `starts` prefetches are started, and counts it."""
    event, flight, starts, begins = asked
    state = jax.tree.map(partial(jnp.where, begins), begin_pass(state), state)
    setting = Setting(strategy, shape, params, capacity, units)
    busy = jnp.where(flight.layer == NOTHING, 0, REMAINING_TICKS)
    state = state._replace(link=Link(flight, busy))
    costs, pass_costs = _window(units, jnp.asarray(starts))
    state, service = serve_event(setting, costs, pass_costs, state, event)
    state = state._replace(counts=_add(state.counts, service.counts, event.layer))
    arrivals = tuple(Queue(one.queued, one.started) for one in service.arrivals)
    return state, Decision(service.event, service.served, state.cache.tier, arrivals)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _serve_pass(
    strategy: Strategy,
    shape: ModelShape,
    held: Wire,
    asks: Wire,
    params: StrategyParams,
    capacity: Int[Array, " W"],
    units: Int[Array, "L Q"],
    row: Int[Array, " R"],
    questions: Int[Array, " M"],
) -> tuple[Int[Array, " R"], Int[Array, ""]]:
    """Serves events as long as they are hits alone, and says how many there were."""
    state, asked = held.unpack(row), asks.unpack(questions)
    state = jax.tree.map(partial(jnp.where, asked.begins), begin_pass(state), state)
    no = jnp.bool_(False)

    def one(
        carried: tuple[Replay, Bool[Array, ""]], event: Event
    ) -> tuple[tuple[Replay, Bool[Array, ""]], Bool[Array, ""]]:
        state, going = carried
        question = asked._replace(event=event, begins=no)
        after, found = _step(strategy, shape, params, capacity, units, state, question)
        wanted = [one.queued.any() for one in found.arrivals]
        missing = found.event.used & ~found.served.hit
        going = going & ~jnp.stack([missing.any(), *wanted]).any()
        return (jax.tree.map(partial(jnp.where, going), after, state), going), going

    (state, _), going = jax.lax.scan(one, (state, jnp.bool_(True)), asked.event)
    return held.join(state), jnp.sum(going, dtype=jnp.int32)


def _window(units: Int[Array, "L Q"], starts: Int[Array, ""]) -> tuple[Costs, PassCosts]:
    """Returns costs by which the next gate fires when `starts` prefetches have been started.

    Computing takes no time and every load the same. The window goes on for that many loads behind
    the demand; the rest of a copy in flight that nothing waits for is less than one of them.
    """
    zero = jnp.int32(0)
    per_pass = jnp.zeros(1, jnp.int32)
    costs = Costs(
        attention=per_pass,
        shared=per_pass,
        head=per_pass,
        expert_memory=jnp.zeros(units.shape[1], jnp.int32),
        expert_per_1024=zero,
        host_memory=zero,
        host_per_1024=zero,
        load=jnp.full_like(units, TRANSFER_TICKS),
        overlap=jnp.bool_(True),
    )
    return costs, PassCosts(zero, zero, shared=starts * TRANSFER_TICKS, head=zero)


def _add(counts: Counts, one: Counts, layer: Int[Array, ""]) -> Counts:
    """Returns `counts` with those of an event of `layer`; prefetches count for their target."""
    num_layers = counts.accesses.shape[0]

    def by_target(total: Int[Array, " L"], ahead: Int[Array, " D"]) -> Int[Array, " L"]:
        targets = (layer + 1 + jnp.arange(ahead.shape[0])) % num_layers
        return total.at[targets].add(ahead)

    added = {
        name: getattr(counts, name).at[layer].add(getattr(one, name))
        for name in Counts._fields
        if name not in ("queued", "prefetched")
    }
    return Counts(
        queued=by_target(counts.queued, one.queued),
        prefetched=by_target(counts.prefetched, one.prefetched),
        **added,
    )


def _int32(values: Integer[np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
    return values.astype(np.int32)
