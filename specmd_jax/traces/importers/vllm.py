"""vLLM's routed experts: integers [tokens, MoE layers, top-k] per request, saved with NumPy.

`--enable-return-routed-experts` returns them; the user saves them as `.npy`, or as `.npz` of one
array a request, in natural order of the names (`request_2` before `request_10`). The pair
`prompt_routed_experts` and `routed_experts` of one `.npz` is one request, its prompt one prefill
pass. A folder of such files is several requests. Otherwise phases are not known: every token is
replayed as a decode pass, and a prefill length may be given afterwards. Older versions leave the
rows of dense layers at 0: such layers are left out. SGLang's and TensorRT-LLM's
`return_routed_experts` have the same axes; those of sgl-jax are [layers, tokens, k], see `_axes`.
Arrays [tokens, k] are of one layer each, see `_layer_files`. Learned from vLLM's documentation
(training/routed_experts) and pull requests 28284 and 50721.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.core.inputs import open_input
from specmd_jax.traces.importers._archive import (
    NPY,
    ZIP,
    member_names,
    opened,
    parse_npy,
)
from specmd_jax.traces.importers._axes import Order, in_order, order_of_axes
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._layer_files import by_layer
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import PAD, Provenance, Trace

NAME = "vllm"
DESCRIPTION = "routed experts as NumPy integers (tokens, layers, k): .npy, .npz, or a folder"

_PROMPT, _GENERATED = "prompt_routed_experts.npy", "routed_experts.npy"
_SUFFIXES = (".npy", ".npz")

Ids = Integer[np.ndarray, "_ _ _"] | Integer[np.ndarray, "_ _"]


class _Request(NamedTuple):
    name: str
    parts: list[Ids]  # of its tokens, in order
    prompted: bool = False  # the first part is the prompt, one pass


def detect(head: bytes, path: Path) -> bool:
    if path.is_dir():
        return bool(_files(path))
    if head.startswith(ZIP):
        names = member_names(path)
        return bool(names) and all(name.endswith(".npy") for name in names)
    return head.startswith(NPY)


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads every request and puts them one after another."""
    files = _files(path) if path.is_dir() else [path]
    found = [request for file in files for request in _requests(file)]
    if not found:
        raise InputError("no array is inside: save one array [tokens, layers, k] a request")
    arrays = [part for request in found for part in request.parts]
    if len({array.ndim for array in arrays}) > 1:
        raise InputError("arrays of 2 and of 3 axes: save all as [tokens, layers, k]")
    if arrays[0].ndim == 2:
        requests, layers = by_layer([(name, parts[0]) for name, parts, _ in found])
        order, prompts = Order(False), [0] * len(requests)
    else:
        order, layers = order_of_axes(arrays, options), ()
        turned = [[in_order(part, order) for part in request.parts] for request in found]
        _check_alike([part.shape[1:] for parts in turned for part in parts])
        requests = [np.concatenate(parts) for parts in turned]
        prompts = [len(parts[0]) * one.prompted for parts, one in zip(turned, found, strict=True)]
    _check_alike([request.shape[1:] for request in requests])
    return _joined(requests, prompts, layers, order, path, options)


def _check_alike(shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        raise InputError(
            f"requests differ in (layers, k): {sorted(set(shapes))[:4]}: give one model's, and "
            "--axes if the first axis is that of the layers"
        )


def _joined(
    requests: list[Ids],
    prompts: list[int],
    layers: tuple[int, ...],
    order: Order,
    path: Path,
    options: ImportOptions,
) -> Trace:
    """One trace of all requests; the first tokens of each, as many as it prompts, are one pass."""
    experts, kept, notes = _without_dense(np.concatenate(requests))
    lengths = [len(request) for request in requests]
    prefill = np.concatenate([np.arange(n) < m for n, m in zip(lengths, prompts, strict=True)])
    request = np.repeat(np.arange(len(requests)), lengths)
    joined = prefill[1:] & prefill[:-1] & (request[1:] == request[:-1])
    if not prefill.any():
        notes.append("phases not recorded: every token is a decode pass")
    return finish(
        experts,
        step=np.cumsum(np.concatenate([[0], ~joined])),
        request=request,
        phase=prefill.astype(np.uint8),
        options=options,
        provenance=Provenance(
            producer="vllm",
            source=path.name,
            recorded="routed experts",
            layers=layers or kept,
            doubts=order.doubts,
        ),
        notes=[*order.notes, *notes],
    )


def _files(folder: Path) -> list[Path]:
    """The arrays of a folder, in natural order of their names."""
    found = [item for item in folder.iterdir() if item.suffix in _SUFFIXES and item.is_file()]
    return sorted(found, key=lambda item: _natural(item.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `r2` before `r10`: runs of digits count by length, then by value."""
    return [(len(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _requests(file: Path) -> Iterator[_Request]:
    with open_input(file) as stream:
        archive = stream.read(len(ZIP)) == ZIP
        stream.seek(0)
        data = b"" if archive else stream.read()
    if not archive:
        yield _Request(file.stem, [_checked(parse_npy(data, file.name), file.name)])
        return
    with opened(file) as members:
        names = [name for name in members.names if name.endswith(".npy")]
        arrays = {name: _checked(parse_npy(members.read(name), name), name) for name in names}
    if arrays.keys() == {_PROMPT, _GENERATED}:
        yield _Request(file.stem, [arrays[_PROMPT], arrays[_GENERATED]], prompted=True)
        return
    for name in sorted(arrays, key=_natural):
        yield _Request(name.removesuffix(".npy"), [arrays[name]])


def _checked(array: Shaped[np.ndarray, "..."], name: str) -> Ids:
    if array.dtype.kind not in "iu" or array.ndim not in (2, 3) or not array.size:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: expected integers "
            "[tokens, layers, k], or [tokens, k] of one layer, none of them 0"
        )
    if not PAD <= int(array.min()) <= int(array.max()) < 2**31:
        raise InputError(f"{name} names experts {array.min()} to {array.max()}: is it damaged?")
    return array.astype(np.int32)


def _without_dense(
    experts: Integer[np.ndarray, "T L K"],
) -> tuple[Integer[np.ndarray, "T M K"], tuple[int, ...], list[str]]:
    """Leaves out layers of 0 or -1 throughout, which no router of top-k > 1 can write.

    Returns:
      The ids, the numbers of the layers that are left where any went, and a note of it.
    """
    dense = (experts == PAD).all(axis=(0, 2))
    dense |= ~experts.any(axis=(0, 2)) & (experts.shape[2] > 1)
    if not dense.any() or dense.all():
        return experts, (), []
    shown = ", ".join(map(str, np.flatnonzero(dense)))
    note = f"layers {shown} are 0 or -1 throughout: taken as dense, left out"
    return experts[:, ~dense], tuple(np.flatnonzero(~dense).tolist()), [note]
