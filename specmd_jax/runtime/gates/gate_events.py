"""What a gate asks for, as the event that the policies see: the numbers a trace would replay.

The arithmetic is that of `simulator.events`, one layer at a time, so that a run and the replay of
its recording decide alike to the last count.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import Event
from specmd_jax.policies.base import LOGITS, PREDICTED, PROBS
from specmd_jax.simulator.events import LOGIT_LIMIT
from specmd_jax.simulator.gate_arithmetic import (
    count_demand,
    fixed_shares,
    mean_logits,
    mean_probs,
)

ALL = np.zeros(1, np.intp)  # the first token of one pass that holds all


class GateChoices(NamedTuple):
    """What the gates of some layers chose; T counts the tokens of all sequences."""

    ids: Integer[np.ndarray, "L T K"]  # -1 where the token is padding
    weights: Float[np.ndarray, "L T K"]
    logits: Float[np.ndarray, "L T N"] | None
    predicted: Float[np.ndarray, "L T D N"] | None  # for the layers 1..D ahead


class GatePosition(NamedTuple):
    """When gates ask; where it is said of several passes, they are alike."""

    step: int  # the first pass, from 0
    layer: int  # of the first of them
    num_layers: int  # of the model
    prefill: bool
    fresh: bool  # the pass is the first of a request


def make_events(
    choices: GateChoices, position: GatePosition, num_experts: int, reads: frozenset[str]
) -> Event:
    """Returns the events of layers that follow on each other, stacked, as numpy values.

    Args:
      choices: by their gates; at least one token is no padding, and the same ones in all of them.
      position: of the first gate.
      num_experts: of a layer.
      reads: `Strategy.reads`; of what is not in it nothing is worked out.

    Raises:
      InputError: the model computed NaN, or logits that no router has.
    """
    real = (choices.ids[0] >= 0).any(axis=1)
    tokens = int(real.sum())
    routed, gate = _demand(choices, tokens, num_experts)
    logits = probs = None
    if reads & {LOGITS, PROBS}:
        assert choices.logits is not None
        scores = _checked(choices.logits[:, real].astype(np.float64))
        logits = _one_pass(mean_logits(scores, ALL, axis=1)) if LOGITS in reads else None
        probs = _one_pass(mean_probs(scores, ALL, axis=1)) if PROBS in reads else None
    predicted = None
    if PREDICTED in reads:
        assert choices.predicted is not None
        predicted = fixed_shares(choices.predicted[:, real]).max(axis=1).astype(np.int32)
    first = position.step * position.num_layers + position.layer
    clock = np.arange(first, first + len(routed), dtype=np.int32)
    step, layer = np.divmod(clock, np.int32(position.num_layers))
    values = {
        "clock": clock,
        "step": step,
        "layer": layer,
        "tokens": np.full(len(clock), tokens, np.int32),
        "prefill": np.full(len(clock), position.prefill),
        "fresh": (layer == 0) & position.fresh,
        "valid": np.ones(len(clock), bool),
        "used": routed > 0,
        "routed": routed,
        "gate": gate,
        "predicted": predicted,
        "logits": logits,
        "probs": probs,
    }
    return Event._make(values.get(name) for name in Event._fields)


def event_of(events: Event, layer: int) -> Event:
    """Returns one of some stacked events."""
    return Event._make(None if values is None else values[layer] for values in events)


def _demand(
    choices: GateChoices, tokens: int, num_experts: int
) -> tuple[Integer[np.ndarray, "L N"], Integer[np.ndarray, "L N"]]:
    """Returns the tokens routed to each expert, and its mean gate weight in fixed point."""
    chosen = choices.ids >= 0
    weights = choices.weights[chosen].astype(np.float64)
    if not np.isfinite(weights).all():
        raise InputError("the model computed NaN: its weights, or their precision, are at fault")
    layers = len(choices.ids)
    place = (choices.ids + num_experts * np.arange(layers)[:, None, None])[chosen]
    routed, gate = count_demand(place, weights, tokens, (1, layers, num_experts))
    return routed[0].astype(np.int32), gate[0].astype(np.int32)


def _checked(logits: Float[np.ndarray, "L T N"]) -> Float[np.ndarray, "L T N"]:
    if not np.abs(logits).max() < LOGIT_LIMIT:
        raise InputError(f"a router logit is {np.abs(logits).max():.3g}: no router's")
    return logits


def _one_pass(values: Integer[np.ndarray, "L 1 N"]) -> Integer[np.ndarray, "L N"]:
    return values[:, 0].astype(np.int32)
