"""The prefetch guard: whether an expert that was named is worth its transfer.

A transfer that is still on the link when the next gate fires holds up that gate's demand; one that
is not used has also cost a resident its place. With p the chance that an expert is used, l one
transfer and o what of it overruns the next gate, a prefetch saves l - o where it is right and costs
o where it is wrong, so it is started only if

  p (l - o) - (1 - p) o > margin l,   that is   p - o / l > margin

where the margin is what the evicted copy is worth. p is counted on use: of the experts that were
named while absent, how many their gate then asked for, by lookahead and place in the queue, whether
or not they were fetched. Over all that is named it would be far too high, for the experts that are
easy to foresee are mostly there already.

Source: this project. That a guard is needed is known from engines, where prefetchers of 80 %
precision slow decoding down by up to a fifth (BigMoeOnEdge, colibri's PR 571).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.arrays import fixed, how_many_before
from specmd_jax.core.types import Event, ModelShape

PLACES = 16  # in the queue, that are told apart; the last stands for all that follow
MEMORY = 1 << 10  # experts named at a place before its counts are halved
BITS = 10  # of chances in fixed point


class GuardParams(NamedTuple):
    margin: Float[Array, ""] | float = 0.1  # chance of use that the evicted copy is credited with


class Outlook(NamedTuple):
    """What is expected of the link until the next gate fires, in ticks of any length."""

    spare: Int[Array | np.ndarray, ""]  # that it is free, once the demand is served
    load: Int[Array | np.ndarray, ""]  # one transfer

    def after(self, transfers: Int[Array, ""]) -> "Outlook":
        """Returns what is left when some transfers have been started."""
        return self._replace(spare=self.spare - transfers * self.load)


class GuardState(NamedTuple):
    """What was named and not there, and what became of it, 1..A layers ahead."""

    waiting: Int[Array, "A L N"]  # place in the queue + 1, 0 where nothing waits to be judged
    selected: Int[Array, "A B"]
    used: Int[Array, "A B"]


def init(shape: ModelShape, lookahead: int) -> GuardState:
    counts = jnp.zeros((lookahead, PLACES), jnp.int32)
    size = (lookahead, shape.num_layers, shape.num_experts)
    return GuardState(jnp.zeros(size, jnp.int32), counts, counts)


def learn(state: GuardState, event: Event) -> GuardState:
    """Returns the state after the gate of `event`, which settles what was named for its layer."""
    waiting = state.waiting[:, event.layer]
    at_place = waiting[:, :, None] == jnp.arange(1, PLACES + 1)
    settled = at_place & event.valid
    selected = state.selected + jnp.sum(settled, axis=1, dtype=jnp.int32)
    used = state.used + jnp.sum(settled & event.used[:, None], axis=1, dtype=jnp.int32)
    full = selected > MEMORY
    return GuardState(
        state.waiting.at[:, event.layer].set(jnp.where(event.valid, 0, waiting)),
        jnp.where(full, selected // 2, selected),
        jnp.where(full, used // 2, used),
    )


def chances(state: GuardState, ahead: int) -> Int[Array, " B"]:
    """Returns the chance of use at each place in the queue; one half before anything is known."""
    return ((state.used[ahead - 1] + 1) << BITS) // (state.selected[ahead - 1] + 2)


def allow(
    params: GuardParams,
    state: GuardState,
    layer: Int[Array, ""],
    ahead: int,
    queued: Bool[Array, " N"],
    priority: Int[Array, " N"],
    outlook: Outlook | None,
) -> tuple[Bool[Array, " N"], GuardState]:
    """Returns which of the queued experts may be fetched, and that they wait to be judged.

    Args:
      queued: named for `layer`, `ahead` layers on, and absent.
      outlook: until the next gate; None: the link is infinitely fast.
    """
    place = how_many_before(queued, priority)
    spot = jnp.minimum(place, PLACES - 1)
    margin = fixed(jnp.asarray(params.margin, jnp.float32), BITS)
    worth = chances(state, ahead)[spot] - margin
    waiting = jnp.where(queued, spot + 1, 0)
    state = state._replace(waiting=state.waiting.at[ahead - 1, layer].set(waiting))
    worthy = queued & (worth > 0)
    if outlook is None:
        return worthy, state
    load, spare = jnp.maximum(outlook.load, 1), jnp.maximum(outlook.spare, 0)
    in_time = spare // load
    overrun = (in_time + 1) * load - spare
    lost = fixed(overrun.astype(jnp.float32) / load.astype(jnp.float32), BITS)
    whole = worthy & (how_many_before(worthy, priority) < in_time)
    crossing = worthy & ~whole & (worth > lost)
    first = crossing & (how_many_before(crossing, priority) == 0)
    return whole | first, state
