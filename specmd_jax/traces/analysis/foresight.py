"""How much of what the router chose was foreseen a few layers before."""

import numpy as np
from jaxtyping import Float

from specmd_jax.errors import InputError
from specmd_jax.traces.trace import PAD, Trace


def foreseen_recall(trace: Trace) -> Float[np.ndarray, " D"]:
    """Give the share of a token's experts among the k it was foreseen to use, by lookahead.

    Entry d tells of predictions d + 1 layers ahead; NaN where none were recorded.

    Raises:
      InputError: the trace holds no predictions.
    """
    if trace.predicted is None:
        raise InputError(
            "the trace holds no predicted router probabilities: record them, or "
            "generate a trace with lookahead > 0"
        )
    return np.array([_recall(trace, trace.predicted, d) for d in range(trace.lookahead)])


def _recall(trace: Trace, predicted: np.ndarray, ahead: int) -> float:
    chosen = trace.experts[:, ahead + 1 :]
    scores = predicted[:, : chosen.shape[1], ahead]
    if not scores.any():
        return float("nan")
    named = np.argsort(-scores, axis=-1, kind="stable")[..., : trace.shape.top_k]
    hit = (chosen[..., :, None] == named[..., None, :]).any(-1) & (chosen != PAD)
    foreseen = scores.any(-1)  # rows left empty were not predicted
    return float(hit[foreseen].sum() / max((chosen[foreseen] != PAD).sum(), 1))
