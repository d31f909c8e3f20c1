"""How much of what the router chose was foreseen a few layers before."""

import numpy as np
from jaxtyping import Float, Int

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import PAD, Trace


def foreseen_recall(trace: Trace) -> Float[np.ndarray, " D"]:
    """Give the share of a token's experts among the k it was foreseen to use, by lookahead.

    Entry d tells of predictions d + 1 layers ahead; NaN where none were recorded.

    Raises:
      InputError: the trace holds no predictions.
    """
    hits, chosen = _counts(trace)
    return _shares(hits.sum(axis=1), chosen.sum(axis=1))


def foreseen_recall_by_layer(trace: Trace) -> Float[np.ndarray, "D L"]:
    """Give the same for each layer by itself: entry [d, l] tells of the experts of layer l.

    The first d + 1 layers are NaN: no layer is so far before them.

    Raises:
      InputError: the trace holds no predictions.
    """
    return _shares(*_counts(trace))


def _counts(trace: Trace) -> tuple[Int[np.ndarray, "D L"], Int[np.ndarray, "D L"]]:
    """Count, where something was foreseen, the choices that were, and all choices."""
    if trace.predicted is None:
        raise InputError(
            "the trace holds no predicted router probabilities: record them, or "
            "generate a trace with lookahead > 0"
        )
    hits = np.zeros((trace.lookahead, trace.shape.num_layers), np.int64)
    chosen = np.zeros_like(hits)
    for ahead in range(trace.lookahead):
        for layer in range(ahead + 1, trace.shape.num_layers):
            scores = trace.predicted[:, layer - ahead - 1, ahead]
            foreseen = scores.any(axis=-1)  # rows left empty were not predicted
            named = np.argsort(-scores[foreseen], axis=-1, kind="stable")[:, : trace.shape.top_k]
            used = trace.experts[foreseen, layer]
            hit = (used[:, :, None] == named[:, None, :]).any(axis=-1)
            hits[ahead, layer] = hit.sum()  # padding equals no expert
            chosen[ahead, layer] = (used != PAD).sum()
    return hits, chosen


def _shares(
    hits: Int[np.ndarray, "*axes"], chosen: Int[np.ndarray, "*axes"]
) -> Float[np.ndarray, "*axes"]:
    return np.where(chosen > 0, hits / np.maximum(chosen, 1), np.nan)
