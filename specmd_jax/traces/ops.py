"""Traces cut and batched: each operation gives a new trace and says so in its notes."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int, Integer

from specmd_jax.core.errors import InputError
from specmd_jax.traces.trace import PREFILL, Provenance, Trace

_BY_TOKEN = ("experts", "step", "request", "phase", "weights", "logits", "predicted")

Unit = Int[np.ndarray, " R"]  # the rows that one request has in one pass


def slice_passes(trace: Trace, start: int, stop: int) -> Trace:
    """Passes `start` to `stop` (exclusive), their steps counted from 0 again.

    Raises:
      InputError: the range is empty or reaches outside the trace.
    """
    if not 0 <= start < stop <= trace.num_passes:
        raise InputError(
            f"passes {start}..{stop} of a trace of {trace.num_passes}: "
            "give 0 <= start < stop <= passes"
        )
    first, end = np.searchsorted(trace.step, np.asarray([start, stop], trace.step.dtype))
    return _take(trace, np.arange(first, end), f"passes {start}..{stop} of {trace.num_passes}")


def slice_requests(trace: Trace, ids: Sequence[int]) -> Trace:
    """The tokens of the named requests, in the order they have in the trace.

    A pass shared with other requests keeps the tokens of those that stay; requests keep their
    numbers.

    Raises:
      InputError: no id is given, or one is not in the trace.
    """
    unknown = sorted(set(ids) - set(trace.request.tolist()))
    if unknown or not ids:
        raise InputError(
            f"requests {unknown or 'none'} asked of a trace that has "
            f"{_some(np.unique(trace.request))}: name requests of the trace"
        )
    kept = np.flatnonzero(np.isin(trace.request, list(ids)))
    return _take(trace, kept, f"requests {_some(np.unique(list(ids)))} only")


def batch_prefill(trace: Trace, num_tokens: int) -> Trace:
    """The first `num_tokens` tokens of each request become one prefill pass.

    The pass stands where the request begins; requests may be interleaved. Nothing else moves.

    Raises:
      InputError: `num_tokens` is not positive, or the trace has prefill passes already.
    """
    if num_tokens < 1:
        raise InputError(f"{num_tokens} prefill tokens: give at least 1")
    if (trace.phase == PREFILL).any():
        raise InputError(
            f"{int((trace.phase == PREFILL).sum())} tokens are recorded as prefill "
            "already: leave out the number of prefill tokens"
        )
    rank, first_row = _ranks(trace.request)
    early = rank < num_tokens
    last_row = np.searchsorted(trace.step, trace.step, side="right") - 1
    place = np.where(early, first_row, last_row)
    order = np.lexsort((np.arange(trace.num_tokens), ~early, place))
    moved = _reordered(trace, order, np.stack([place, ~early])[:, order])
    phase = np.where(early[order], PREFILL, moved.phase).astype(np.uint8)
    note = f"first {num_tokens} tokens of each request batched as its prefill"
    return replace(moved, phase=phase, provenance=_noted(trace, note))


def batch_requests(trace: Trace, num_requests: int) -> Trace:
    """Continuous batching: at most `num_requests` requests are alive at a time.

    Every decode pass takes the next token of each live request; a prefill pass of a request
    stays a pass of its own, before the decode pass it would join. When a request ends, the next
    one, in order of first appearance, is admitted.

    Raises:
      InputError: `num_requests` is not positive.
    """
    if num_requests < 1:
        raise InputError(f"{num_requests} requests at a time: give at least 1")
    passes = list(_scheduled(trace, num_requests))
    order = np.concatenate(passes)
    label = np.repeat(np.arange(len(passes)), [len(rows) for rows in passes])
    batched = _reordered(trace, order, label[None])
    return replace(batched, provenance=_noted(trace, f"batched, {num_requests} requests at a time"))


def _scheduled(trace: Trace, num_requests: int) -> Iterator[Unit]:
    """Yields the rows of each pass of the batched schedule."""
    waiting = deque(deque(units) for units in _units(trace))
    prefill = trace.phase == PREFILL
    live: list[deque[Unit]] = []
    while waiting or live:
        while waiting and len(live) < num_requests:
            live.append(waiting.popleft())
            yield from _leading_prefills(live[-1], prefill)
            live = [units for units in live if units]
        if live:
            yield np.concatenate([units.popleft() for units in live])
        for units in live:
            yield from _leading_prefills(units, prefill)
        live = [units for units in live if units]


def _leading_prefills(units: deque[Unit], prefill: Bool[np.ndarray, " T"]) -> Iterator[Unit]:
    while units and prefill[units[0][0]]:
        yield units.popleft()


def _units(trace: Trace) -> list[list[Unit]]:
    """For each request, in order of first appearance, its rows pass by pass."""
    request = renumbered(trace.request)
    order = np.lexsort((trace.step, request))  # stable: rows of a pass stay in order
    keys = np.stack([request, trace.step])[:, order]
    units: list[list[Unit]] = [[] for _ in range(int(request.max()) + 1)]
    for rows in np.split(order, np.flatnonzero(_changes(keys))[1:]):
        units[request[rows[0]]].append(rows)
    return units


def _take(trace: Trace, rows: Int[np.ndarray, " R"], note: str) -> Trace:
    """Some rows in their old order; passes that lose all their rows are gone."""
    taken = _reordered(trace, rows, trace.step[rows][None])
    return replace(taken, provenance=_noted(trace, note))


def _reordered(trace: Trace, order: Int[np.ndarray, " R"], passes: Int[np.ndarray, "I R"]) -> Trace:
    """Rows picked in a new order; a pass ends where any of its labels changes."""
    present = [name for name in _BY_TOKEN if getattr(trace, name) is not None]
    picked = {name: getattr(trace, name)[order] for name in present}
    picked["step"] = np.cumsum(_changes(passes), dtype=np.int32) - 1
    return replace(trace, **picked)


def _changes(labels: Int[np.ndarray, "I R"]) -> Bool[np.ndarray, " R"]:
    """Where a column differs from the one before; True for the first."""
    differs = (labels[:, 1:] != labels[:, :-1]).any(axis=0)
    return np.concatenate([[True], differs])


def _ranks(
    request: Integer[np.ndarray, " T"],
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " T"]]:
    """For each token its place within its request, and the row where that request begins."""
    _, first, group, counts = np.unique(
        request, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(request), np.int64)
    rank[order] = np.arange(len(request)) - starts[group[order]]
    return rank, first[group]


def renumbered(request: Integer[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """Requests numbered from 0 in order of first appearance."""
    _, first, group = np.unique(request, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group].astype(np.int32)


def _noted(trace: Trace, note: str) -> Provenance:
    return replace(trace.provenance, notes=(*trace.provenance.notes, note))


def _some(values: Integer[np.ndarray, " R"]) -> str:
    """A few values, for a message."""
    shown = ", ".join(str(value) for value in values[:6])
    return shown if len(values) <= 6 else f"{shown}, ... ({len(values)} in all)"
