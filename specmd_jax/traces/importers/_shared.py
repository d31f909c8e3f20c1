"""Shared experts that a fused kernel counts among the routed ones: every token chooses them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import PAD

SHARED_DOUBT = "every token chooses expert"  # how the doubt begins
_EVIDENCE = 32  # choices (tokens x layers) below which chance may look the same
_FEW = 64  # tokens by which candidates are picked before all are looked at


class Scores(NamedTuple):
    """Ids and what is recorded beside them."""

    experts: Integer[np.ndarray, "T L K"]
    weights: Float[np.ndarray, "T L K"] | None
    logits: Float[np.ndarray, "T L N"] | None


def always_chosen(experts: Integer[np.ndarray, "T L K"]) -> list[int]:
    """Ids that every token chooses at every layer, where that is no accident."""
    tokens, layers, top_k = experts.shape
    if tokens < 4 or tokens * layers < _EVIDENCE:
        return []
    found = _in_all(experts[:_FEW], np.unique(experts[0]).tolist())
    found = _in_all(experts, found)
    return found if len(found) < top_k else []


def without_shared(found: Scores, shared: tuple[int, ...]) -> Scores:
    """Leaves ids out; those above them move down, so that routed ones count from 0 again.

    Raises:
      InputError: one is not chosen by every token.
    """
    experts, weights, logits = found
    kept = set(_in_all(experts, list(shared)))
    for expert in shared:
        if expert not in kept:
            raise InputError(
                f"expert {expert} is not chosen by every token at every layer, as a shared one "
                "is: leave it out of --shared-experts"
            )
    slots = experts.shape[2] - len(shared)
    if not slots:
        raise InputError("no routed expert is left beside the shared ones")
    order = np.argsort(np.isin(experts, shared), axis=2, kind="stable")[:, :, :slots]
    left = np.take_along_axis(experts, order, 2)
    below = np.searchsorted(np.sort(shared), left)  # shared ids below each, all of which go
    experts = np.where(left == PAD, PAD, left - below)
    if weights is not None:
        weights = np.take_along_axis(weights, order, 2)
    if logits is not None:
        named = [expert for expert in shared if expert < logits.shape[2]]
        logits = np.delete(logits, named, axis=2)
    return Scores(experts, weights, logits)


def _in_all(experts: Integer[np.ndarray, "T L K"], candidates: list[int]) -> list[int]:
    """Those candidates that every token with a choice at all chooses, at every layer."""
    idle = (experts == PAD).all(axis=2)
    return [
        expert
        for expert in candidates
        if expert != PAD and ((experts == expert).any(axis=2) | idle).all()
    ]
