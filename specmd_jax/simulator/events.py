"""A trace made dense, pass by pass: the arrays that the simulator scans over.

A replay takes them chunk by chunk, see `chunks`.
"""

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import NEVER, ONE, Events
from specmd_jax.policies.base import LOGITS, NEXT_USE, PREDICTED, PROBS, UPCOMING
from specmd_jax.simulator.gate_arithmetic import (
    count_demand,
    fixed_shares,
    mean_logits,
    mean_probs,
)
from specmd_jax.traces.trace import PAD, PREFILL, Trace

LOGIT_LIMIT = 1 << 12  # logits beyond this are no router's: the fixed point would overflow


def dense_events(trace: Trace, reads: frozenset[str] = frozenset(), lookahead: int = 1) -> Events:
    """Returns the passes of `trace` with what the policies of a strategy read, as numpy arrays.

    Args:
      reads: `Strategy.reads`; what is not in it is left out.
      lookahead: layers ahead for which "upcoming" and "predicted" are given.

    Raises:
      InputError: a policy needs what was not recorded.
    """
    check_recorded(trace, reads, lookahead)
    routed, gate = _demand(trace)
    used = routed > 0
    arrays = {
        "tokens": np.bincount(trace.step, minlength=trace.num_passes),
        "prefill": _per_pass(trace, trace.phase == PREFILL),
        "fresh": fresh_passes(trace),
        "valid": np.ones(trace.num_passes, bool),
        "routed": routed,
        "gate": gate,
        "next_use": next_use(used)[0] if NEXT_USE in reads else None,
        "upcoming": upcoming(used, lookahead) if UPCOMING in reads else None,
        "predicted": _predicted(trace, lookahead) if PREDICTED in reads else None,
        "logits": _mean_logits(trace) if LOGITS in reads else None,
        "probs": _mean_probs(trace) if PROBS in reads else None,
    }
    return Events._make(
        None if arrays[name] is None else _compact(arrays[name]) for name in Events._fields
    )


def check_recorded(trace: Trace, reads: frozenset[str], lookahead: int) -> None:
    """Raises InputError if a policy reads what the trace did not record."""
    if reads & {LOGITS, PROBS} and trace.logits is None:
        raise InputError(
            "the strategy needs the router's scores of all experts, and the trace records only "
            "the chosen ones: record with full scores, or choose another policy"
        )
    if PREDICTED in reads and trace.lookahead < lookahead:
        raise InputError(
            f"next-gate prefetching needs predictions {lookahead} layer(s) ahead, and the trace "
            f"records {trace.lookahead}: record them, or use another prefetcher, for example "
            "previous, transition or noisy-oracle"
        )


def first_use(events: Events) -> Integer[np.ndarray, "L N"]:
    """Returns the event that first demands each expert, NEVER if none does."""
    return next_use(np.asarray(events.routed) > 0)[1]


def _demand(
    trace: Trace,
) -> tuple[Integer[np.ndarray, "P L N"], Integer[np.ndarray, "P L N"]]:
    """Returns the tokens routed to each expert, and its mean gate weight in fixed point."""
    layers, experts = trace.shape.num_layers, trace.num_experts
    chosen = trace.experts != PAD
    row = trace.step[:, None].astype(np.int64) * layers + np.arange(layers)
    place = (row[:, :, None] * experts + trace.experts)[chosen]
    weights = _gate_weights(trace, chosen)[chosen]
    tokens = np.bincount(trace.step, minlength=trace.num_passes)
    shape = (trace.num_passes, layers, experts)
    return count_demand(place, weights, tokens[:, None, None], shape)


def _gate_weights(trace: Trace, chosen: Bool[np.ndarray, "T L K"]) -> Float[np.ndarray, "T L K"]:
    if trace.weights is not None:
        return trace.weights.astype(np.float64)
    count = np.maximum(chosen.sum(axis=2, keepdims=True), 1)
    return np.broadcast_to(1.0 / count, chosen.shape)


def fresh_passes(trace: Trace) -> Bool[np.ndarray, " P"]:
    """Returns the passes in which some request appears for the first time."""
    _, first_row = np.unique(trace.request, return_index=True)
    fresh = np.zeros(trace.num_passes, bool)
    fresh[trace.step[first_row]] = True
    return fresh


def _per_pass(trace: Trace, rows: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " P"]:
    flags = np.zeros(trace.num_passes, bool)
    flags[trace.step[rows]] = True
    return flags


def next_use(
    used: Bool[np.ndarray, "P L N"],
    first_pass: int = 0,
    coming: Int32[np.ndarray, "L N"] | None = None,
) -> tuple[Int32[np.ndarray, "P L N"], Int32[np.ndarray, "L N"]]:
    """Returns the event that next demands each expert: after each event, and from the start on.

    Args:
      used: what the events demand.
      first_pass: its number in the trace.
      coming: the event that next demands each expert after these; None: none does.
    """
    passes, layers, experts = used.shape
    coming = np.full((layers, experts), NEVER, np.int32) if coming is None else coming
    after = np.empty(used.shape, np.int32)
    layer = np.arange(layers, dtype=np.int32)[:, None]
    for step in range(passes - 1, -1, -1):
        after[step] = coming
        coming = np.where(used[step], (first_pass + step) * layers + layer, coming)
    return after, coming


def upcoming(used: Bool[np.ndarray, "P L N"], lookahead: int) -> Bool[np.ndarray, "P L D N"]:
    """Returns what each of the next `lookahead` events demands; nothing past the end."""
    passes, layers, experts = used.shape
    flat = used.reshape(passes * layers, experts)
    past_end = np.zeros((lookahead, experts), bool)
    padded = np.concatenate([flat, past_end])
    ahead = [padded[d : d + passes * layers] for d in range(1, lookahead + 1)]
    return np.stack(ahead, axis=1).reshape(passes, layers, lookahead, experts)


def _predicted(trace: Trace, lookahead: int) -> Integer[np.ndarray, "P L D N"]:
    """Returns the highest probability that any token of the pass foresaw, in fixed point."""
    assert trace.predicted is not None
    fixed = fixed_shares(trace.predicted[:, :, :lookahead])
    if fixed.max(initial=0) > ONE:
        raise InputError(
            f"a predicted probability is {fixed.max() / ONE:.3g}: predictions must lie in 0..1, "
            "so record the softmax of the gate, not its logits"
        )
    return np.maximum.reduceat(fixed, _first_rows(trace), axis=0)


def _logits(trace: Trace) -> Float[np.ndarray, "T L N"]:
    assert trace.logits is not None  # see check_recorded
    return trace.logits.astype(np.float64)


def _mean_logits(trace: Trace) -> Integer[np.ndarray, "P L N"]:
    logits = _logits(trace)
    if np.abs(logits).max() >= LOGIT_LIMIT:
        raise InputError(
            f"a router logit is {np.abs(logits).max():.3g}, beyond {LOGIT_LIMIT}: "
            "record the logits that go into the softmax"
        )
    return mean_logits(logits, _first_rows(trace))


def _mean_probs(trace: Trace) -> Integer[np.ndarray, "P L N"]:
    return mean_probs(_logits(trace), _first_rows(trace))


def _first_rows(trace: Trace) -> Integer[np.ndarray, " P"]:
    return np.flatnonzero(np.diff(trace.step, prepend=-1))


def _compact(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == bool else values.astype(np.int32)
