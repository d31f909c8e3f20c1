"""What `gate_topk` means, in plain numpy: one token after the other."""

import numpy as np
from jaxtyping import Array, Bool, Float

from specmd_kernels.gate_topk.types import GateRule


def gate_topk(
    rule: GateRule,
    scalars: Float[Array, "2"],
    logits: Float[Array, "T N"],
    resident: Bool[Array, " N"],
    next_logits: Float[Array, "T N"] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """See `api.gate_topk`; `scalars` are the bonus and the threshold.

    Args:
      rule: top-k, top-j and normalisation.
      scalars: the bonus of residents and the threshold of foresight.
      logits: of the gate.
      resident: experts that are on the device.
      next_logits: of the next gate by the same hidden states; None: nothing is foreseen.
    """
    bonus, threshold = np.asarray(scalars)
    ids, weights = [], []
    for row in np.asarray(logits, np.float32):
        favoured = np.asarray(resident).copy()
        favoured[np.argsort(-row, kind="stable")[: rule.top_j]] = True
        bent = row + np.where(favoured, bonus, np.float32(0))
        ids.append(np.argsort(-bent, kind="stable")[: rule.top_k])
        weights.append(_softmax(row)[ids[-1]])
        if rule.normalize:
            weights[-1] = weights[-1] / weights[-1].sum()
    ahead = None
    if next_logits is not None:
        ahead = _softmax(np.asarray(next_logits, np.float32)) > threshold
    return np.asarray(ids, np.int32), np.asarray(weights), ahead


def _softmax(logits: Float[np.ndarray, "... N"]) -> Float[np.ndarray, "... N"]:
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)
