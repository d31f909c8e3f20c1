"""The simulator's own step, as a run takes it: told what happened rather than what things take.

In a replay the step works out what happens from what everything takes. In a run it is told: whether
a copy is in flight at the gate, and how many prefetches have been started since. What goes into a
program or comes out of it lies in rows, see `TreeLayout`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8

from specmd_jax.core.interned import Interned
from specmd_jax.core.jit import quick_jit
from specmd_jax.core.types import Event, Flight, ModelShape
from specmd_jax.policies.prefetch_guard import Outlook
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.runtime.decide.tree_row import TreeLayout
from specmd_jax.simulator.cache import CacheConfig, DemandResult
from specmd_jax.simulator.counts import Counts, counted_if
from specmd_jax.simulator.prefetching import ObservedStarts
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.step import Service, begin_pass, serve_event, serve_hits
from specmd_jax.simulator.timeline import NOTHING, LinkState

REMAINING_TICKS = 1  # of a copy in flight at the gate: it has not landed


class Fixed(NamedTuple):
    """What is the same for all steps, traced."""

    params: StrategyParams
    capacity: Int[Array, " W"]
    units: Int[Array, "L Q"]


class Program(NamedTuple):
    """What a step is compiled for. Hashable: static to jit."""

    strategy: Strategy
    shape: ModelShape
    tells: bool  # whether decisions say what is computed, or it goes without saying
    state: TreeLayout
    question: TreeLayout
    starts: int = 1  # rows of a state


class Question(NamedTuple):
    """What a step is told."""

    event: Event
    flight: Flight
    row: Int[Array | np.ndarray, ""]  # of the state before it
    starts: Int[Array | np.ndarray, ""]  # prefetches begun since the gate, at least
    outlook: Outlook | None  # for the guard


class HitBatch(NamedTuple):
    """Demands of which some are known to find all they ask for."""

    events: Event  # stacked
    number: Int[Array | np.ndarray, ""]  # of those that do: the first ones
    row: Int[Array | np.ndarray, ""]


class MissOutcome(NamedTuple):
    """What becomes of what a gate chose."""

    event: Event  # as the routing policy left it
    served: DemandResult


class Decision(NamedTuple):
    """What a gate comes to, and where that leaves the cache; as numpy arrays."""

    resident: Int8[Array | np.ndarray, "L N"]  # tier of all that is there or has a slot reserved
    streamed: Bool[Array | np.ndarray, " N"]  # loads that are not retained
    queued: Int[Array | np.ndarray, ""]  # prefetches that are wanted
    started: Bool[Array | np.ndarray, "D N"]  # of these, by layers ahead
    outcome: MissOutcome | None


def decide(
    program: Program,
    fixed: Fixed,
    before: Int[Array, "S R"],
    question: Int[Array | np.ndarray, " M"],
) -> tuple[Int[Array, "S R"], Decision]:
    """Takes the step of an event, for several numbers of prefetches started since; to be traced.

    Args:
      program: what the step is compiled for.
      fixed: parameters, capacity and sizes.
      before: states, of which the question names one.
      question: a `Question`; the first number of starts is in it.
    """
    asked: Question = program.question.unpack(question)
    state = program.state.unpack(before[asked.row])

    def one(more: Int[Array, ""]) -> tuple[Int[Array, " R"], Decision]:
        starts = asked.starts + more
        after, service = _step(program, fixed, state, asked._replace(starts=starts))
        return program.state.join(after), _decision(program, after, service)

    return jax.vmap(one)(jnp.arange(program.starts))


def _decision(program: Program, after: SimState, service: Service) -> Decision:
    no_experts = jnp.zeros((0, program.shape.num_experts), bool)
    queued = [jnp.sum(one.queued, dtype=jnp.int32) for one in service.arrivals]
    started = [one.started for one in service.arrivals]
    return Decision(
        resident=after.cache.tier,
        streamed=service.served.streamed,
        queued=sum(queued, jnp.int32(0)),
        started=jnp.stack(started) if started else no_experts,
        outcome=MissOutcome(service.event, service.served) if program.tells else None,
    )


@quick_jit(static_argnums=0)
def decide_now(
    static: Interned[tuple[Program, TreeLayout]],
    fixed: Fixed,
    before: Int[Array, "S R"],
    question: Int[Array | np.ndarray, " M"],
) -> tuple[Int[Array, "S R"], Int[Array, "S A"]]:
    """Returns the states after an event, and the decisions in rows; see `decide`.

    Args:
      static: the program, and how a decision lies in a row.
      fixed: parameters, capacity and sizes.
      before: states, of which the question names one.
      question: a `Question`, in a row.
    """
    program, answer = static.value
    after, decisions = decide(program, fixed, before, question)
    return after, jax.vmap(answer.join)(decisions)


@quick_jit(static_argnums=0)
def count_hits_now(
    static: Interned[tuple[Program, bool]],
    fixed: Fixed,
    before: Int[Array, "S R"],
    question: Int[Array | np.ndarray, " M"],
) -> tuple[Int[Array, "S R"], Int[Array, ""]]:
    """Serves demands that find all, and says how many: up to the first that wants a prefetch.

    Args:
      fixed: parameters, capacity and sizes.
      static: with it, whether the prefetcher is asked; it need not be where nothing is absent.
      before: states, of which the question names one.
      question: some `HitBatch`.
    """
    program, names = static.value
    asked: HitBatch = program.question.unpack(question)
    state = program.state.unpack(before[asked.row])
    setting = CacheConfig(program.strategy, program.shape, *fixed)

    def going(carried: tuple[Int[Array, ""], Bool[Array, ""], SimState]) -> Bool[Array, ""]:
        number, all_hit, _ = carried
        return all_hit & (number < asked.number)

    def one(
        carried: tuple[Int[Array, ""], Bool[Array, ""], SimState],
    ) -> tuple[Int[Array, ""], Bool[Array, ""], SimState]:
        number, _, state = carried
        event = jax.tree.map(lambda values: values[number], asked.events)
        after, counts, wanted = serve_hits(setting, _begun(state, event), event, names=names)
        after = _counted(after, counts, event)
        if not names:
            return number + 1, jnp.bool_(True), after
        kept = jax.tree.map(partial(jnp.where, wanted), state, after)
        return number + ~wanted, ~wanted, kept

    number, _, state = jax.lax.while_loop(going, one, (jnp.int32(0), jnp.bool_(True), state))
    row = program.state.join(state)
    return jnp.broadcast_to(row, (program.starts, row.shape[0])), number


def _step(
    program: Program, fixed: Fixed, state: SimState, asked: Question
) -> tuple[SimState, Service]:
    """Serves an event in whose window `starts` prefetches are started, and counts it."""
    event, flight = asked.event, asked.flight
    setting = CacheConfig(program.strategy, program.shape, *fixed)
    busy = jnp.where(flight.layer == NOTHING, 0, REMAINING_TICKS)
    state = _begun(state, event)._replace(link=LinkState(flight, busy))
    told = ObservedStarts(jnp.asarray(asked.starts), asked.outlook)
    state, service = serve_event(setting, None, None, state, event, told)
    return _counted(state, service.counts, event), service


def _begun(state: SimState, event: Event) -> SimState:
    """Returns the state at a gate: the first one begins a pass."""
    return jax.tree.map(partial(jnp.where, event.layer == 0), begin_pass(state), state)


def _counted(state: SimState, one: Counts, event: Event) -> SimState:
    """Returns the state with an event counted, in all and in its phase."""
    return state._replace(
        counts=_add(state.counts, one, event.layer),
        prefill=_add(state.prefill, counted_if(event.prefill, one), event.layer),
    )


def _add(counts: Counts, one: Counts, layer: Int[Array, ""]) -> Counts:
    """Returns `counts` with those of an event of `layer`; prefetches count for their target.

    Written as sums over all layers, which XLA makes one kernel of; updates of one would be many.
    """
    layers = jnp.arange(counts.accesses.shape[0])

    def here(total: Int[Array, "L *Q"], more: Int[Array, "*Q"]) -> Int[Array, "L *Q"]:
        at = (layers == layer).reshape(-1, *[1] * more.ndim)
        return total + jnp.where(at, more, 0)

    def by_target(total: Int[Array, " L"], ahead: Int[Array, " D"]) -> Int[Array, " L"]:
        targets = (layer + 1 + jnp.arange(ahead.shape[0])) % layers.shape[0]
        at = layers[:, None] == targets
        return total + jnp.sum(jnp.where(at, ahead, 0), axis=1, dtype=jnp.int32)

    ahead = ("queued", "prefetched")
    return Counts._make(
        (by_target if name in ahead else here)(total, more)
        for name, total, more in zip(Counts._fields, counts, one, strict=True)
    )
