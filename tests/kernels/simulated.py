"""The simulator's own policies, as the kernel takes them, and the simulator's own counts."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specmd_jax.counting import Counts
from specmd_jax.policy import Eviction
from specmd_jax.simulate import begin, replay
from specmd_jax.strategy import make_strategy
from specmd_jax.types import CacheState, Event, Events, ModelShape, Outcome
from specmd_kernels import CachePolicy, SimOutcome, SimView


def kernel_policy(eviction: Eviction, shape: ModelShape) -> CachePolicy:
    """Returns `eviction` for the kernel: the same functions, told of the same things."""
    own_score = eviction.score

    def score(params: Any, state: Any, view: SimView) -> Array:
        assert own_score is not None
        return own_score(params, state, _cache(view), _event(view))

    def update(params: Any, state: Any, view: SimView, done: SimOutcome) -> Any:
        outcome = Outcome(
            demand=True, layer=view.layer, step=view.step, used=view.used, found=done.found,
            high=view.used, named=jnp.zeros_like(view.used), inserted=done.inserted,
            evicted=done.evicted,
        )  # fmt: skip
        return eviction.update(params, state, _cache(view), _event(view), outcome)

    return CachePolicy(
        lambda params: eviction.init(params, shape), None if own_score is None else score, update
    )


def _cache(view: SimView) -> CacheState:
    unknown: Any = None  # what forced admission of equal copies does not need
    return CacheState(
        tier=jnp.where(view.resident, 0, -1).astype(jnp.int8), last_used=view.last_used,
        next_use=None, speculative=None, seen=unknown, evicted=unknown, occupied=unknown,
        copies=unknown, broken=unknown,
    )  # fmt: skip


def _event(view: SimView) -> Event:
    return Event(
        clock=view.clock, step=view.step, layer=view.layer, tokens=jnp.int32(1),
        prefill=jnp.bool_(False), fresh=jnp.bool_(False), valid=jnp.bool_(True), used=view.used,
        routed=view.used.astype(jnp.int32), gate=view.gate, next_use=None, upcoming=None,
        predicted=None, logits=None, probs=None,
    )  # fmt: skip


def simulator_counts(
    name: str, params: Any, capacities: Int[Array, " C"], gate: Int[Array, "P L N"]
) -> Counts:
    """Returns what the simulator counts for each capacity."""
    passes, layers, experts = gate.shape
    shape = ModelShape(layers, experts, top_k=1)
    strategy = make_strategy(name)
    params = strategy.params._replace(eviction=params)
    units = jnp.ones((layers, 1), jnp.int32)
    no = jnp.zeros(passes, bool)
    events = Events(
        tokens=jnp.ones(passes, jnp.int32), prefill=no, fresh=no, valid=~no,
        routed=(gate > 0).astype(jnp.int32), gate=gate, next_use=None, upcoming=None,
        predicted=None, logits=None, probs=None,
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    def counts(capacity: Int[Array, ""]) -> Counts:
        start = begin(strategy, params, shape, units)
        end = replay(strategy, shape, params, capacity[None], units, None, start, events)
        return end[0].counts

    return counts(capacities)
