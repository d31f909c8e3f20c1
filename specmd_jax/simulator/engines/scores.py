"""What a policy says of every expert at every event, worked out once for all configurations.

It holds for policies whose score depends on the trace alone, not on what is resident. No list says
which these are: their functions are followed from what is resident to the score.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Real

from specmd_jax.core.dependence import dependent_outputs
from specmd_jax.core.errors import NOT_A_NUMBER, InputError
from specmd_jax.core.jit import quick_jit
from specmd_jax.core.types import CacheState, Event, Events, ModelShape, Outcome, Params, State
from specmd_jax.policies.base import NEXT_USE, Eviction
from specmd_jax.policies.strategy import Strategy
from specmd_jax.simulator.cache import CacheConfig, demand_hits, empty_cache, look_ahead, rank
from specmd_jax.simulator.chunks import EventChunks
from specmd_jax.simulator.scan import event_of, split_pass

MOST_BYTES = 1 << 26  # of scores in memory at once

_RESIDENCY = {"tier", "speculative", "evicted", "occupied", "copies", "broken"}
_CONSEQUENCES = {"found", "inserted", "evicted"}  # in an outcome, of what is resident


@cache
def ignores_residency(eviction: Eviction) -> bool:
    """Whether a policy's score depends on the trace alone, where every demand is served.

    Copies are of one precision, and nothing is prefetched.
    """
    if eviction.score is None:
        return True
    shape = ModelShape(num_layers=3, num_experts=4, top_k=2)
    state = eviction.init(eviction.params, shape)
    event, outcome, copies = _an_event(eviction, shape)
    inputs = (eviction.params, state, copies, event, outcome)
    no_mark = partial(jax.tree.map, lambda _: False)
    marked = [
        no_mark(eviction.params),
        no_mark(state),
        no_mark(copies)._replace(**_marks_of(copies, _RESIDENCY)),
        no_mark(event),
        no_mark(outcome)._replace(**_marks_of(outcome, _CONSEQUENCES)),
    ]
    while True:
        score, after = dependent_outputs(partial(_score_and_update, eviction), marked, *inputs)
        grown = jax.tree.map(lambda a, b: a or b, marked[1], after)
        if score or grown == marked[1]:
            return not score
        marked[1] = grown


def _score_and_update(
    eviction: Eviction,
    params: Params,
    state: State,
    copies: CacheState,
    event: Event,
    outcome: Outcome,
) -> tuple[Real[Array, "L N"], State]:
    outcome = outcome._replace(demand=True)
    if eviction.begin is not None:
        state = eviction.begin(params, state, event)
    assert eviction.score is not None
    score = eviction.score(params, state, copies, event)
    return score, eviction.update(params, state, copies, event, outcome)


def _an_event(eviction: Eviction, shape: ModelShape) -> tuple[Event, Outcome, CacheState]:
    """Returns the inputs of a policy's functions, whatever their values."""
    one, no = jnp.int32(0), jnp.bool_(False)
    mask, row = jnp.zeros(shape.num_experts, bool), jnp.zeros(shape.num_experts, jnp.int32)
    grid = jnp.zeros((shape.num_layers, shape.num_experts), jnp.int32)
    event = Event(
        clock=one, step=one, layer=one, tokens=one, prefill=no, fresh=no, valid=no, used=mask,
        routed=row, gate=row, next_use=row, upcoming=None, predicted=None, logits=row, probs=row,
    )  # fmt: skip
    outcome = Outcome(
        demand=None, layer=one, step=one, used=mask, found=mask, high=mask, selected=mask,  # pyright: ignore[reportArgumentType]
        inserted=mask, evicted=grid > 0,
    )  # fmt: skip
    copies = empty_cache(shape, 1, grid if NEXT_USE in eviction.reads else None, prefetches=False)
    return event, outcome, copies


def _marks_of(values: Any, names: set[str]) -> dict[str, bool]:
    return {name: True for name in names if getattr(values, name) is not None}


def trace_scores(
    strategy: Strategy, params: Params, events: EventChunks
) -> Iterator[tuple[Events, Int[np.ndarray, "E M"]]]:
    """Yields some passes and a policy's scores at their events, as integers that rank as they do.

    Args:
      params: of the eviction policy, which ignores residency.
      events: of a trace; those of one yield are E = passes * L, and experts M = L * N.

    Raises:
      InputError: a score is not a number.
    """
    shape = events.shape
    future = None if events.first_use is None else jnp.asarray(events.first_use)
    everything = empty_cache(shape, 1, future, prefetches=False)
    everything = everything._replace(tier=jnp.zeros_like(everything.tier))
    state = (strategy.eviction.init(params, shape), everything)
    length = _passes_at_once(shape, events.length)
    for start, chunk in events:
        for at in range(0, events.length, length):
            part = jax.tree.map(lambda x, at=at: x[at : at + length], chunk)
            state, scores = _score_passes(
                strategy.structure, shape, params, state, jnp.int32(start + at), part
            )
            yield part, _in_order(np.asarray(scores))


def _passes_at_once(shape: ModelShape, most: int) -> int:
    """Returns how many passes' scores are in memory at once: a divisor of `most`, if it can be."""
    a_pass = 4 * shape.num_layers**2 * shape.num_experts
    return next((n for n in (64, 32, 16, 8, 4, 2) if n * a_pass <= MOST_BYTES and not most % n), 1)


@quick_jit(static_argnums=(0, 1))
def _score_passes(
    strategy: Strategy,
    shape: ModelShape,
    params: Params,
    state: tuple[State, CacheState],
    first: Int[Array, ""],
    events: Events,
) -> tuple[tuple[State, CacheState], Real[Array, "E M"]]:
    """Scores every event of some passes; the cache holds every expert, so nothing is missing."""
    units = jnp.ones((shape.num_layers, 1), jnp.int32)
    all_params = strategy.params._replace(eviction=params)
    setting = CacheConfig(strategy, shape, all_params, jnp.zeros(1, jnp.int32), units)

    def one_pass(state, inputs):
        whole, by_layer = split_pass(inputs[1])
        layers = jnp.arange(shape.num_layers, dtype=jnp.int32)

        def one_layer(state, inputs):
            event = event_of(shape, step, inputs[0], whole, inputs[1])
            return _score_event(setting, state, event)

        step = inputs[0]
        return jax.lax.scan(one_layer, state, (layers, by_layer))

    steps = first + jnp.arange(events.tokens.shape[0], dtype=jnp.int32)
    state, scores = jax.lax.scan(one_pass, state, (steps, events))
    return state, scores.reshape(-1, shape.num_layers * shape.num_experts)


def _score_event(
    setting: CacheConfig, state: tuple[State, CacheState], event: Event
) -> tuple[tuple[State, CacheState], Real[Array, "L N"]]:
    policy, cache = state
    eviction = setting.strategy.eviction
    if eviction.begin is not None:
        policy = eviction.begin(setting.params.eviction, policy, event)
    score = rank(setting, look_ahead(cache, event), policy, event)
    assert score is not None
    cache, policy, _ = demand_hits(setting, cache, policy, event)
    return (policy, cache), score


def _in_order(scores: Real[np.ndarray, "E M"]) -> Int[np.ndarray, "E M"]:
    """Returns integers in the order of the scores; zeros and denormals are equal, as to XLA."""
    if scores.dtype == np.int32:
        return scores
    if np.isnan(scores).any():
        raise InputError(NOT_A_NUMBER)
    normal = np.where(np.abs(scores) < np.finfo(np.float32).tiny, np.float32(0), scores)
    bits = normal.view(np.int32)
    return np.where(bits < 0, np.int32(-(1 << 31)) - bits, bits)
