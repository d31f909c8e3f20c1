"""vLLM's routed experts: integers [tokens, MoE layers, top-k] per request, saved with NumPy.

`--enable-return-routed-experts` returns them; the user saves them as `.npy`, or as `.npz` of one
array a request, in natural order of the names (`request_2` before `request_10`). The pair
`prompt_routed_experts` and `routed_experts` of one `.npz` is one request, its prompt one prefill
pass. A folder of such files is several requests. Otherwise phases are not known: every token is
replayed as a decode pass, and a prefill length may be given afterwards. Older versions leave the
rows of dense layers at 0: such layers are left out. SGLang's and TensorRT-LLM's
`return_routed_experts` have the same axes. Learned from vLLM's documentation
(training/routed_experts) and pull requests 28284 and 50721.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._archive import (
    NPY,
    ZIP,
    member_names,
    parse_npy,
    read_members,
)
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.trace import Provenance, Trace

NAME = "vllm"
DESCRIPTION = "routed experts as NumPy integers (tokens, layers, k): .npy, .npz, or a folder"

_PROMPT, _GENERATED = "prompt_routed_experts.npy", "routed_experts.npy"
_SUFFIXES = (".npy", ".npz")


class _Request(NamedTuple):
    experts: Integer[np.ndarray, "T L K"]
    prefill: int  # leading tokens that are one pass


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
    requests = [request for file in files for request in _requests(file)]
    if not requests:
        raise InputError("no array is inside: save one array [tokens, layers, k] a request")
    shapes = {request.experts.shape[1:] for request in requests}
    if len(shapes) > 1:
        raise InputError(f"requests differ in (layers, k): {sorted(shapes)}: give one model's")
    experts, notes = _without_dense(np.concatenate([r.experts for r in requests]))
    lengths = [len(request.experts) for request in requests]
    prefill = np.concatenate([np.arange(len(r.experts)) < r.prefill for r in requests])
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
        provenance=Provenance(producer="vllm", source=path.name, recorded="routed experts"),
        notes=notes,
    )


def _files(folder: Path) -> list[Path]:
    """The arrays of a folder, in natural order of their names."""
    found = [item for item in folder.iterdir() if item.suffix in _SUFFIXES and item.is_file()]
    return sorted(found, key=lambda item: _natural(item.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `r2` before `r10`: runs of digits count by length, then by value."""
    return [(len(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _requests(file: Path) -> Iterator[_Request]:
    with file.open("rb") as stream:
        archive = stream.read(len(ZIP)) == ZIP
    if not archive:
        yield _Request(_checked(parse_npy(file.read_bytes(), file.name), file.name), 0)
        return
    members = read_members(file, ".npy")
    arrays = {name: _checked(parse_npy(members[name], name), name) for name in members}
    if arrays.keys() == {_PROMPT, _GENERATED}:
        prompt, generated = arrays[_PROMPT], arrays[_GENERATED]
        if prompt.shape[1:] != generated.shape[1:]:
            raise InputError(f"prompt {prompt.shape} and generated {generated.shape} tokens differ")
        yield _Request(np.concatenate([prompt, generated]), len(prompt))
        return
    for name in sorted(arrays, key=_natural):
        yield _Request(arrays[name], 0)


def _checked(array: Shaped[np.ndarray, "..."], name: str) -> Integer[np.ndarray, "T L K"]:
    if array.dtype.kind not in "iu" or array.ndim != 3 or not array.size:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: expected integers "
            "[tokens, layers, k], none of them 0"
        )
    return array.astype(np.int64)


def _without_dense(
    experts: Integer[np.ndarray, "T L K"],
) -> tuple[Integer[np.ndarray, "T M K"], list[str]]:
    """Leaves out layers that are 0 throughout, which no router of top-k > 1 can write."""
    dense = ~experts.any(axis=(0, 2)) & (experts.shape[2] > 1)
    if not dense.any() or dense.all():
        return experts, []
    shown = ", ".join(map(str, np.flatnonzero(dense)))
    return experts[:, ~dense], [f"layers {shown} are 0 throughout: taken as dense, left out"]
