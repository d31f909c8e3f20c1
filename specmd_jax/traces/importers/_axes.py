"""Which axis of a bare array counts tokens: no name says it, so shapes and contents must."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from specmd_jax.traces.importers._options import ImportOptions

LAYERS_FIRST = "layers-first"  # what `ImportOptions.axes` calls it

_MOST_LAYERS = 512  # of a model; real ones stop at some hundred
_FEW = 64  # rows of each axis that are looked at
_SURE = 6.0  # standard errors between the two axes from which on they tell tokens from layers

Array = Integer[np.ndarray, "_ _ _"]


class Order(NamedTuple):
    """The order of the first two axes, and what is to be said about it."""

    layers_first: bool
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def order_of_axes(
    arrays: Sequence[Array], options: ImportOptions, tokens: int | None = None
) -> Order:
    """Whether arrays are [tokens, layers, k] or [layers, tokens, k].

    What the user says comes first; then a number of tokens or layers that is known; then the axis
    that all arrays of a file share, which is that of the layers; then the axis along which experts
    come back, which is that of the tokens.

    Args:
      arrays: of one file or folder.
      tokens: of all arrays together, where the file says so.
    """
    if options.axes is not None:
        return Order(options.axes == LAYERS_FIRST)
    first, second = ([array.shape[axis] for array in arrays] for axis in (0, 1))
    layers = options.shape.num_layers if options.shape else None
    for is_first, is_second, why in (
        (sum(second) == tokens, sum(first) == tokens, f"there are {tokens} tokens"),
        (set(first) == {layers}, set(second) == {layers}, f"the model has {layers} layers"),
        (
            len(set(first)) == 1 < len(set(second)),
            len(set(second)) == 1 < len(set(first)),
            f"all arrays have {first[0]} rows on their first axis",
        ),
        (
            max(second) > _MOST_LAYERS,
            max(first) > _MOST_LAYERS,
            f"no model has {max(second)} layers",
        ),
    ):
        if is_second and not is_first:
            return Order(False)
        if is_first and not is_second:
            return Order(True, (f"axes taken as [layers, tokens, k]: {why}",))
    return _by_contents(arrays)


def in_order(array: np.ndarray, order: Order) -> np.ndarray:
    """The array as [tokens, layers, ...]."""
    return array.swapaxes(0, 1) if order.layers_first else array


def _by_contents(arrays: Sequence[Array]) -> Order:
    """By how often an expert comes back in the next row along either axis.

    Along tokens it does so two to five times as often as chance; along layers, whose experts have
    nothing in common but their numbers, as often as chance.
    """
    along_first, along_second = (_returns(arrays, axis) for axis in (0, 1))
    (hits, tries), (hits2, tries2) = along_first, along_second
    if tries and hits2 < tries2:  # layers that are all the same say nothing
        share = (hits + hits2) / (tries + tries2)
        error = sqrt(share * (1 - share) * (1 / tries + 1 / tries2)) or 1.0
        apart = (hits / tries - hits2 / tries2) / error
        if apart > _SURE:
            return Order(False)
        if apart < -_SURE:
            return Order(
                True,
                doubts=(
                    "axes taken as [layers, tokens, k]: experts come back "
                    f"{hits2 / tries2:.0%} along the second axis and {hits / tries:.0%} along the "
                    "first; if they are not, import with --axes tokens-first",
                ),
            )
    said = (
        "axes taken as [tokens, layers, k]; if they are [layers, tokens, k], import with "
        f"--axes {LAYERS_FIRST}"
    )
    few = sum(array.shape[0] for array in arrays) < arrays[0].shape[1]
    return Order(False, doubts=(said,)) if few else Order(False, notes=(said,))


def _returns(arrays: Sequence[Array], axis: int) -> tuple[int, int]:
    """How many choices come back in the next row along an axis, and of how many."""
    hits = tries = 0
    for array in arrays[:_FEW]:
        few = np.moveaxis(array[:_FEW, :_FEW], axis, 0)
        now, then = few[:-1, :, :, None], few[1:, :, None, :]
        hits += int(((now == then) & (now >= 0)).any(-1).sum())
        tries += int((few[:-1] >= 0).sum())
    return hits, tries
