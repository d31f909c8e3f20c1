"""Arrays [tokens, k] of one layer each, whose names say which: `layer_3.npy`, `r1.L03`, `blk.7`."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._columns import COUNTS
from specmd_jax.traces.trace import PAD

_LAYER = re.compile(r"(?:layers?|blk|block|(?<![a-z])l)[-_. ]?(\d{1,4})(?!\d)", re.I)


def by_layer(
    arrays: Sequence[tuple[str, Integer[np.ndarray, "_ _"]]],
) -> tuple[list[Integer[np.ndarray, "_ _ _"]], tuple[int, ...]]:
    """Requests of all their layers, and the layers' numbers; () where the names have none.

    What a name says beside the layer is the name of a request. Without a layer in any name, each
    array is a request of one layer.

    Raises:
      InputError: some names have a layer only, or a layer is missing, given twice, or of other
        tokens than the rest of its request.
    """
    _check_distinct(arrays)
    numbers = [_LAYER.findall(name) for name, _ in arrays]
    if not any(numbers):
        return [array[:, None] for _, array in arrays], ()
    if not all(numbers):
        unnamed = next(name for (name, _), found in zip(arrays, numbers, strict=True) if not found)
        raise InputError(f"{unnamed} does not say its layer, as others do: name it like layer_3")
    requests: dict[str, dict[int, np.ndarray]] = {}
    for (name, array), found in zip(arrays, numbers, strict=True):
        layers = requests.setdefault(_LAYER.sub("", name), {})
        if int(found[-1]) in layers:
            raise InputError(f"two arrays are of layer {found[-1]} of one request: {name}")
        layers[int(found[-1])] = array
    every = sorted(set().union(*requests.values()))
    for request in requests.values():
        shapes = {array.shape for array in request.values()}
        if len(shapes) > 1 or sorted(request) != every:
            raise InputError(
                f"layers {sorted(request)[:8]} of shapes {sorted(shapes)[:4]}: every request "
                "needs all layers, of the same tokens and top-k"
            )
    stacked = [np.stack([one[layer] for layer in every], axis=1) for one in requests.values()]
    return stacked, tuple(every)


def _check_distinct(arrays: Sequence[tuple[str, Integer[np.ndarray, "_ _"]]]) -> None:
    """A token chooses an expert once; a table of counts repeats its numbers."""
    for name, array in arrays:
        ordered = np.sort(array, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD)).any():
            raise InputError(
                f"{name} repeats a number in a row, which [tokens, k] of one layer does not: save "
                f"[tokens, layers, k], also where k is 1. If it counts: {COUNTS}"
            )
