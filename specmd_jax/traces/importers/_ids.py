"""Expert ids that count on from layer to layer: `layer * N + expert` instead of `expert`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import PAD

_EVIDENCE = 14.0  # bits by which blocks of ids must beat chance
_FEW = 256  # tokens that are looked at before all are

Numbers = Integer[np.ndarray, " L"]  # by which the ids of each layer are moved, in blocks


def block_size(
    experts: Integer[np.ndarray, "T L K"], layers: Sequence[int], hint: int | None
) -> tuple[int, Numbers] | None:
    """Experts a layer if the ids of each layer lie in a block of their own, else None.

    Args:
      layers: the model's numbers of the layers; empty where they are not known.
      hint: experts of a layer or of all layers, where something says so.

    Returns:
      Experts a layer, and for each layer its block; None where ids begin anew in each layer, or
      where so few are recorded that blocks may be chance.
    """
    count = experts.shape[1]
    if count < 2 or _distinct(experts) * np.log2(count) < _EVIDENCE:
        return None
    numbered = [np.arange(count), np.array(layers, np.int64)] if layers else [np.arange(count)]
    for blocks in numbered:
        sizes = _sizes(experts[:_FEW], blocks) and _sizes(experts, blocks)
        if sizes:
            return _likely(sizes, count, hint), blocks
    return None


def within_layers(
    experts: Integer[np.ndarray, "T L K"], size: int, blocks: Numbers | None
) -> Integer[np.ndarray, "T L K"]:
    """Ids counted within their layer.

    Args:
      size: experts a layer.
      blocks: for each layer its block; None: as the ids say.

    Raises:
      InputError: a layer names experts of several blocks.
    """
    chosen = experts != PAD
    if blocks is None:
        high = experts.max(axis=(0, 2)) // size
        low = _lowest(experts) // size
        mixed = np.flatnonzero((low != high) & chosen.any(axis=(0, 2)))
        if mixed.size:
            raise InputError(
                f"layer {mixed[0]} names experts of several blocks of {size}: its ids do not "
                "count on from layer to layer, leave out --ids global"
            )
        blocks = np.asarray(np.maximum(high, 0))
    return np.where(chosen, experts - size * blocks[:, None], PAD)


def _sizes(experts: Integer[np.ndarray, "T L K"], blocks: Numbers) -> range:
    """Every block size that fits: above high / (block + 1), at most low / block."""
    chosen = experts != PAD
    used = chosen.any(axis=(0, 2))
    high = experts.max(axis=(0, 2))[used]
    low = _lowest(experts)[used]
    at = blocks[used]
    least = int((high // (at + 1)).max()) + 1
    most = min((low[at > 0] // at[at > 0]).tolist(), default=0)
    return range(least, most + 1)


def _lowest(experts: Integer[np.ndarray, "T L K"]) -> Numbers:
    """Returns the lowest id of each layer, beyond any where a layer has none."""
    ids = experts.astype(np.int64)
    return np.where(ids != PAD, ids, np.iinfo(np.int64).max).min(axis=(0, 2))


def _likely(sizes: range, layers: int, hint: int | None) -> int:
    """The size that something says, else a multiple of 8, else the least."""
    if hint is not None:
        for said in (hint, hint // layers):
            if said in sizes:
                return said
    return next((size for size in sizes if size % 8 == 0), sizes[0])


def _distinct(experts: Integer[np.ndarray, "T L K"]) -> int:
    """Different pairs of layer and expert among the first tokens, which settle the matter."""
    few = experts[:_FEW]
    layer = np.broadcast_to(np.arange(few.shape[1])[:, None], few.shape)
    pairs = np.stack([layer[few != PAD], few[few != PAD]])
    return np.unique(pairs, axis=1).shape[1]
