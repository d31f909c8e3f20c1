"""SGLang's expert distribution recorder: `expert_distribution_recorder_*.pt`.

Modes `per_token` (a record has topk_ids_of_layer [layers, tokens, 8] with -1 as padding,
positions, forward_mode, extend_seq_lens) and `per_pass` (global_physical_count [layers, experts]).
A pass of `per_pass` holds counts only; its tokens are dealt out again so that every expert has its
count, which leaves unions and counts, all that a cache sees, as they were. Ids are of physical
experts: `last_physical_to_logical_map` takes them back. Mode `stat` keeps sums and is refused.
The file is read without unpickling, see `_torch`.
Learned from python/sglang/srt/eplb/expert_distribution.py of sgl-project/sglang.
"""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.importers._archive import ZIP, member_names
from specmd_jax.traces.importers._finish import finish
from specmd_jax.traces.importers._options import ImportOptions
from specmd_jax.traces.importers._torch import read_torch
from specmd_jax.traces.importers._values import integer, integers
from specmd_jax.traces.trace import DECODE, MAX_EXPERTS, PAD, PREFILL, Provenance, Trace

NAME = "sglang"
DESCRIPTION = "expert_distribution_recorder .pt, modes per_token and per_pass (read without pickle)"

_MOST_CELLS = 1 << 24  # of one pass: (token, layer, slot)
_MOST_DEALT = 1 << 26  # of all passes whose counts are dealt out: few counts can make many cells
_EXTEND, _MIXED = 1, 3  # values of SGLang's ForwardMode; a mixed batch computes prompts too


Map = Integer[np.ndarray, "L E"] | None  # of physical experts to logical ones


class _Pass(NamedTuple):
    experts: Integer[np.ndarray, "T L K"]
    request: list[int]
    phase: int
    dealt: bool = False  # from counts


class _Requests:
    """Which request a token belongs to: the file has no names, but positions follow on."""

    def __init__(self) -> None:
        self._next: dict[int, deque[int]] = {}  # by next position, the requests waiting there
        self._count = 0

    def take(self, position: int, length: int = 1) -> int:
        """The request that goes on at `position`, or a new one."""
        waiting = self._next.get(position)
        if waiting and position:
            request = waiting.popleft()
        else:
            request, self._count = self._count, self._count + 1
        self._next.setdefault(position + length, deque()).append(request)
        return request


def detect(head: bytes, path: Path) -> bool:
    return head.startswith(ZIP) and any(name.endswith("data.pkl") for name in member_names(path))


def load(path: Path, options: ImportOptions) -> Trace:
    """Reads the records in order; each that has tokens is one pass."""
    saved = read_torch(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("records"), list):
        raise InputError(_no_records(saved))
    logical = _integers(saved.get("last_physical_to_logical_map"), 2)
    requests = _Requests()
    passes, dealt = [], 0
    for record in saved["records"]:
        one = _pass(record, requests, logical, options)
        if one is not None:
            passes.append(one)
            dealt += one.experts.size * one.dealt
        if dealt > _MOST_DEALT:
            raise InputError(f"over {_MOST_DEALT} choices are counted: record fewer passes")
    if not passes:
        raise InputError("no record has tokens: record while requests run")
    if len({one.experts.shape[1:] for one in passes}) > 1:
        raise InputError("records differ in layers or top-k: one recorder writes one model")
    experts, layers = _routed_layers(np.concatenate([one.experts for one in passes]))
    lengths = [len(one.request) for one in passes]
    return finish(
        experts,
        step=np.repeat(np.arange(len(passes)), lengths),
        request=np.array([request for one in passes for request in one.request]),
        phase=np.repeat([one.phase for one in passes], lengths),
        options=options,
        provenance=Provenance(
            producer="sglang", source=path.name, recorded="recorder", layers=tuple(layers)
        ),
        num_experts=None if logical is None or not logical.size else int(logical.max()) + 1,
        notes=[
            "requests are not named in the file: told apart by their positions",
            *_map_notes(logical),
        ],
    )


def _no_records(saved: object) -> str:
    if isinstance(saved, dict) and "logical_count" in saved:
        return "mode stat keeps sums, not passes: record with per_token"
    return "there is no list 'records': give a file of the expert distribution recorder"


def _pass(
    record: object, requests: _Requests, logical: Map, options: ImportOptions
) -> _Pass | None:
    if not isinstance(record, dict):
        raise InputError(f"a record is {type(record).__name__}, expected a dict")
    if "topk_ids_of_layer" in record:
        return _from_tokens(record, requests, logical)
    counts = _integers(record.get("global_physical_count"), 2)
    if counts is None:
        raise InputError("a record has neither topk_ids_of_layer nor global_physical_count")
    return _from_counts(_logical_counts(counts, logical), options.known_top_k)


def _from_tokens(record: dict[str, Any], requests: _Requests, logical: Map) -> _Pass | None:
    ids = _integers(record["topk_ids_of_layer"], 3)
    positions = integers(record.get("positions"), "positions")
    if ids is None or ids.shape[1] != len(positions):
        raise InputError(
            f"topk_ids_of_layer is no [layers, {len(positions)} tokens, k] of integers"
        )
    if not positions or (ids == PAD).all():
        return None  # an idle pass, which only keeps parallel ranks in step
    _check_range(ids)
    mode = integer(record.get("forward_mode"), "forward_mode")
    lengths = record.get("extend_seq_lens")
    lengths = [1] * len(positions) if lengths is None else integers(lengths, "extend_seq_lens")
    if min(lengths, default=0) < 1 or sum(lengths) != len(positions):
        raise InputError(f"extend_seq_lens {lengths[:6]} do not add up to {len(positions)} tokens")
    starts = np.cumsum([0, *lengths[:-1]])
    owners = [requests.take(positions[at], n) for at, n in zip(starts, lengths, strict=True)]
    request = [owner for owner, n in zip(owners, lengths, strict=True) for _ in range(n)]
    phase = PREFILL if mode in (_EXTEND, _MIXED) else DECODE
    return _Pass(_logical_ids(ids, logical).transpose(1, 0, 2), request, phase)


def _from_counts(counts: Integer[np.ndarray, "L E"], top_k: int | None) -> _Pass | None:
    """Deals the experts of a pass out to tokens, each expert to as many as its count."""
    totals = np.unique(counts.sum(axis=1)[counts.any(axis=1)])
    if not len(totals):
        return None
    if counts.min() < 0 or len(totals) > 1 or totals[0] * len(counts) > _MOST_CELLS:
        raise InputError(
            f"the layers of a pass count {totals[:4].tolist()} choices: expected one total"
        )
    if top_k is None:
        raise InputError("mode per_pass does not record top-k: give it")
    total = int(totals[0])
    tokens = total // top_k
    if total % top_k or counts.max() > tokens:
        raise InputError(
            f"{total} choices with at most {counts.max()} of one expert are no whole "
            f"tokens of top-k {top_k}: give the right top-k"
        )
    experts = np.full((tokens, len(counts), top_k), PAD, np.int16)
    for layer in np.flatnonzero(counts.any(axis=1)):
        listed = np.repeat(np.arange(counts.shape[1]), counts[layer])
        experts[:, layer] = listed.reshape(top_k, tokens).T  # copies of one are < tokens apart
    return _Pass(experts, [0] * tokens, DECODE, dealt=True)


def _routed_layers(
    experts: Integer[np.ndarray, "T L K"],
) -> tuple[Integer[np.ndarray, "T M J"], list[int]]:
    """Drops what is padding for every token: dense layers, and slots beyond top-k."""
    used = experts != PAD
    layers, slots = used.any(axis=(0, 2)), used.any(axis=(0, 1))
    return experts[:, layers][:, :, slots], np.flatnonzero(layers).tolist()


def _logical_ids(ids: Integer[np.ndarray, "L T K"], logical: Map) -> Integer[np.ndarray, "L T K"]:
    """Takes ids of physical experts back to those of the model."""
    if logical is None:
        return ids
    _check_map(logical, len(ids), int(ids.max()) + 1)
    return np.where(ids == PAD, PAD, logical[np.arange(len(ids))[:, None, None], ids])


def _logical_counts(counts: Integer[np.ndarray, "L E"], logical: Map) -> Integer[np.ndarray, "L N"]:
    """Adds up the counts of the copies of each expert."""
    if logical is None:
        return counts
    _check_map(logical, *counts.shape)
    added = np.zeros((len(counts), int(logical.max()) + 1), np.int64)
    np.add.at(added, (np.arange(len(counts))[:, None], logical[:, : counts.shape[1]]), counts)
    return added


def _check_map(logical: Integer[np.ndarray, "L E"], layers: int, physical: int) -> None:
    fits = len(logical) == layers and logical.shape[1] >= physical > 0
    if not fits or not logical.size or logical.min() < 0 or logical.max() >= MAX_EXPERTS:
        raise InputError(
            f"the map of physical experts has shape {logical.shape}, a record has {layers} layers "
            f"and {physical} physical experts"
        )


def _map_notes(logical: Map) -> list[str]:
    if logical is None:
        return ["no map of physical to logical experts: ids are taken as logical"]
    if (logical == np.arange(logical.shape[1])).all():
        return []
    return ["physical ids mapped to logical ones by the last map of the run"]


def _integers(value: object, axes: int) -> np.ndarray | None:
    """The value if it is an array of integers with so many axes."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == axes:
        return value
    return None


def _check_range(ids: Integer[np.ndarray, "L T K"]) -> None:
    if ids.min() < PAD or ids.max() >= MAX_EXPERTS:
        raise InputError(
            f"expert ids run from {ids.min()} to {ids.max()}: expected {PAD} to {MAX_EXPERTS - 1}"
        )
