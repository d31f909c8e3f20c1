"""The closed loop: a cache decides inside the model, and what it bends flows on.

Text is read token by token, as in decoding, but each next token is the text's own (teacher
forcing). At every gate the simulator's step serves the event; the experts that it leaves compute,
and the hidden states after them reach the next gate. All of it is one compiled scan.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specmd_jax.core.types import LOGIT_ONE, ONE, Event
from specmd_jax.models import Decoder, DecoderConfig, ExpertWeights, Gate, KvCache, apply_expert
from specmd_jax.models.forward import Structure
from specmd_jax.models.layers.kv_cache import empty_cache
from specmd_jax.policies.base import LOGITS, PREDICTED, PROBS
from specmd_jax.policies.strategy import Strategy, StrategyParams
from specmd_jax.runtime.decide.applied_choice import TokenChoice, bent_choice, computed
from specmd_jax.runtime.gates.scores import foresee
from specmd_jax.simulator.cache import CacheConfig
from specmd_jax.simulator.counts import Counts, add_pass
from specmd_jax.simulator.gate_arithmetic import mean_probs
from specmd_jax.simulator.state import SimState
from specmd_jax.simulator.step import Service, begin_pass, serve_event

Tiers = tuple[ExpertWeights, ...]  # of each MoE layer, [precisions, experts, ...]


class Cached(NamedTuple):
    """The traced half of a cache: one program serves every capacity."""

    params: StrategyParams
    capacity: Int[Array, " W"]
    units: Int[Array, "L Q"]


class Exact(NamedTuple):
    """What the model makes of a text with all its experts."""

    logits: Float[Array, "S V"]
    ids: Int[Array, "S L K"]


class Compared(NamedTuple):
    """Each token of a text beside the exact model."""

    nll: Float[Array, " S"]  # nats, of the token that follows
    kl: Float[Array, " S"]  # nats, of these predictions from the exact ones
    same_top: Bool[Array, " S"]
    same_experts: Float[Array, " S"]  # share of the choices at all gates


@partial(jax.jit, static_argnums=(0, 1))
def read_text(
    structure: Structure,
    strategy: Strategy,
    weights: list[Array],
    experts: Tiers,
    cached: Cached,
    state: SimState,
    tokens: Int[Array, " S1"],
    exact: Exact,
) -> tuple[SimState, Compared]:
    """Reads one text as a new request.

    Args:
      structure: of the decoder, with `weights`.
      strategy: of the cache; without default parameters.
      experts: copies in every precision, best first.
      cached: parameters, capacity and sizes.
      state: of the cache, as the text before left it.
      tokens: of the text; the last one is only predicted.
      exact: of all but the last token.
    """
    decoder: Decoder = structure.module(weights)
    setting = CacheConfig(strategy, decoder.config.spec.shape, *cached)
    length = tokens.shape[0] - 1
    kv = empty_cache(decoder.config, 1, length, jnp.zeros(1, jnp.int32))

    def step(
        carried: tuple[SimState, KvCache], one: tuple[Array, Array, Array, Exact]
    ) -> tuple[tuple[SimState, KvCache], Compared]:
        state, kv = carried
        token, following, fresh, wanted = one
        state, kv, logits, chosen = _pass(decoder, experts, setting, state, kv, token, fresh)
        return (state, kv), _compare(logits, chosen, following, wanted)

    fresh = jnp.arange(length) == 0
    (state, _), compared = jax.lax.scan(step, (state, kv), (tokens[:-1], tokens[1:], fresh, exact))
    return state, compared


def _pass(
    decoder: Decoder,
    experts: Tiers,
    setting: CacheConfig,
    state: SimState,
    kv: KvCache,
    token: Int[Array, ""],
    fresh: Bool[Array, ""],
) -> tuple[SimState, KvCache, Float[Array, " V"], Bool[Array, "L N"]]:
    """Runs one token through the model and its experts through the cache."""
    step, state = state.next_step, begin_pass(state)

    def serve(
        carried: tuple[SimState, tuple[Service, ...]],
        layer: int,
        stream: Float[Array, "B S H"],
        gate: Gate,
    ) -> tuple[tuple[SimState, tuple[Service, ...]], Float[Array, "T H"]]:
        state, services = carried
        event = _event(decoder, setting, gate, layer, step, fresh)
        state, service = serve_event(setting, None, None, state, event)
        used = _experts_of(decoder.config, setting, gate, service.event, service.served)
        out = _apply(experts[layer], gate.hidden, used, decoder.config)
        return (state, (*services, service)), out

    none: tuple[Service, ...] = ()
    done, (state, services) = decoder.run(token[None, None], kv, serve, (state, none))
    counted = [service.counts for service in services]
    counts: Counts = jax.tree.map(lambda *rows: jnp.stack(rows), *counted)
    state = state._replace(counts=add_pass(state.counts, counts))
    assert done.cache is not None
    chosen = jnp.stack([service.event.used for service in services])
    return state, done.cache, done.logits[0, 0], chosen


def _event(
    decoder: Decoder,
    setting: CacheConfig,
    gate: Gate,
    layer: int,
    step: Int[Array, ""],
    fresh: Bool[Array, ""],
) -> Event:
    """Returns what a gate asks for: to the last count what `make_events` makes of one token.

    What float32 holds is only scaled by a power of two, which is exact; probabilities are worked
    out on the host, for float32 would round them otherwise.
    """
    num_layers, num_experts, _ = setting.shape
    reads = setting.strategy.reads
    routed = jnp.zeros(num_experts, jnp.int32).at[gate.ids[0]].add(1)
    share = jnp.zeros(num_experts).at[gate.ids[0]].add(gate.weights[0])
    mean = jnp.maximum(_fixed(share, ONE), 1)  # used is never weightless
    predicted = None
    if PREDICTED in reads:
        lookahead = setting.strategy.lookahead
        shares = foresee(decoder.blocks_after(layer, lookahead), gate, lookahead)
        predicted = _fixed(shares[0], ONE)
    return Event(
        clock=step * num_layers + layer,
        step=step,
        layer=jnp.int32(layer),
        tokens=jnp.int32(1),
        prefill=jnp.bool_(False),
        fresh=fresh & (layer == 0),
        valid=jnp.bool_(True),
        used=routed > 0,
        routed=routed,
        gate=jnp.where(routed > 0, mean, 0),
        next_use=None,
        upcoming=None,
        predicted=predicted,
        logits=_fixed(gate.logits[0], LOGIT_ONE) if LOGITS in reads else None,
        probs=_probs(gate.logits) if PROBS in reads else None,
    )


def _probs(logits: Float[Array, "1 N"]) -> Int[Array, " N"]:
    def on_host(logits: Any) -> Int[np.ndarray, " N"]:
        whole = np.asarray(logits, np.float64)
        return mean_probs(whole, np.zeros(1, np.intp))[0].astype(np.int32)

    made = jax.ShapeDtypeStruct(logits.shape[1:], jnp.int32)
    return jax.pure_callback(on_host, made, logits, vmap_method="sequential")


def _fixed(values: Float[Array, "*D N"], one: int) -> Int[Array, "*D N"]:
    return jnp.rint(values * one).astype(jnp.int32)


def _experts_of(
    config: DecoderConfig, setting: CacheConfig, gate: Gate, event: Event, served: Any
) -> TokenChoice:
    ids, weights = gate.ids[0], gate.weights[0]
    if setting.strategy.routing.choose is not None:
        ids, weights = bent_choice(gate, event.used, config)
    return computed(ids, weights, event, served)


def _apply(
    experts: ExpertWeights, hidden: Float[Array, "1 H"], used: TokenChoice, config: DecoderConfig
) -> Float[Array, "1 H"]:
    """Returns the weighted sum of one token's experts, each in the precision it is there in."""

    def add(total: Array, one: tuple[Array, Array, Array]) -> tuple[Array, None]:
        expert, tier, weight = one
        picked = jax.tree.map(lambda leaf: leaf[tier, expert], experts)
        return total + weight * apply_expert(picked, hidden, config.activation), None

    pairs = used.ids, used.tiers, used.weights
    return jax.lax.scan(add, jnp.zeros_like(hidden), pairs)[0]


def _compare(
    logits: Float[Array, " V"],
    chosen: Bool[Array, "L N"],
    following: Int[Array, ""],
    exact: Exact,
) -> Compared:
    found, wanted = jax.nn.log_softmax(logits), jax.nn.log_softmax(exact.logits)
    same = jnp.take_along_axis(chosen, jnp.maximum(exact.ids, 0), axis=1)
    return Compared(
        nll=-found[following],
        kl=jnp.sum(jnp.exp(wanted) * (wanted - found)),
        same_top=jnp.argmax(logits) == jnp.argmax(exact.logits),
        same_experts=jnp.mean(same.astype(jnp.float32)),
    )
