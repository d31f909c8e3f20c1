"""From what gates chose and scored to the integers of an event: one arithmetic, in float64.

The scan over a trace, a run and the closed loop all come to their events through it, so that they
decide alike to the last count.
"""

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.core.types import LOGIT_ONE, ONE


def count_demand(
    place: Integer[np.ndarray, " M"],
    weights: Float[np.ndarray, " M"],
    tokens: Integer[np.ndarray, "P 1 1"] | int,
    shape: tuple[int, int, int],
) -> tuple[Integer[np.ndarray, "P L N"], Integer[np.ndarray, "P L N"]]:
    """Returns the tokens routed to each expert, and its mean gate weight in fixed point.

    Args:
      place: of each choice, as an index into the flattened result; in order of the tokens.
      weights: of each choice, float64.
      tokens: of each pass.
      shape: P, L, N.
    """
    size = int(np.prod(shape))
    routed = np.bincount(place, minlength=size).reshape(shape)
    summed = np.bincount(place, weights=weights, minlength=size).reshape(shape)
    gate = np.rint(summed / tokens * ONE).astype(np.int64)
    return routed, np.where(routed > 0, np.maximum(gate, 1), 0)  # used is never weightless


def mean_logits(
    logits: Float[np.ndarray, "..."], first: Integer[np.ndarray, " P"], axis: int = 0
) -> Integer[np.ndarray, "..."]:
    """Returns the mean logits of each pass in fixed point.

    Args:
      logits: of each token, along an axis, float64.
      first: token of each pass, ascending from 0.
      axis: of the tokens; in the result, of the passes.
    """
    return _mean(logits, first, axis, LOGIT_ONE)


def mean_probs(
    logits: Float[np.ndarray, "..."], first: Integer[np.ndarray, " P"], axis: int = 0
) -> Integer[np.ndarray, "..."]:
    """Returns the mean probabilities of each pass in fixed point; see `mean_logits`."""
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return _mean(grown / grown.sum(axis=-1, keepdims=True), first, axis, ONE)


def fixed_shares(shares: Float[np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
    """Returns foreseen shares in fixed point."""
    return np.rint(shares.astype(np.float64) * ONE).astype(np.int64)


def _mean(
    values: Float[np.ndarray, "..."], first: Integer[np.ndarray, " P"], axis: int, one: int
) -> Integer[np.ndarray, "..."]:
    # reduceat sums row after row, however many passes there are; sum() would pair them
    summed = np.add.reduceat(values, first, axis=axis)
    tokens = np.diff(first, append=values.shape[axis])
    behind = (1,) * (values.ndim - axis - 1)
    return np.rint(summed / tokens.reshape(-1, *behind) * one).astype(np.int64)
