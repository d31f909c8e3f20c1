"""Finds decodes that fell into repetition: their routing repeats, so any cache looks good on it.

Repeated text is routed almost alike each time round (the position still differs), so a loop of
period p shows as a long stretch of tokens that share most experts with the token p before. A
router that merely changes slowly does so at short lags only, which is why lags below `MIN_LAG`
are not looked at: a shorter period shows at its multiples.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from specmd_jax.traces.trace import DECODE, PAD, Trace

MIN_LAG, MAX_LAG = 16, 256  # tokens: a longer period is not found
MIN_STRETCH = 64  # tokens that repeat what stood a period before them
SMOOTH = 16  # tokens over which the overlap is averaged
EXCESS = 0.7  # of the way from k / N, the overlap of even chance, to perfect repetition
LOOPING_SHARE = 0.1  # of a trace's decode tokens: from here on it is no evidence
BLOCK = 256  # tokens whose overlaps are computed by one matrix product


class Loop(NamedTuple):
    """A stretch of one request that repeats itself."""

    request: int
    start: int  # first token of the first round, counted in the request's decode tokens
    tokens: int  # length of the stretch, first round included
    period: int  # tokens
    share: float  # of the request's decode tokens


class LoopReport(NamedTuple):
    """The loops of a trace, at most one a request."""

    loops: tuple[Loop, ...]
    share: float  # of all decode tokens that lie in a loop

    @property
    def is_loop(self) -> bool:
        """Whether so much of the trace repeats that hit rates on it say nothing."""
        return self.share >= LOOPING_SHARE


def find_loops(trace: Trace) -> LoopReport:
    """Find each request's longest stretch in which the experts of all layers repeat.

    Periods up to `MAX_LAG` tokens are found, if the stretch after the first round is as long as
    the period and has at least `MIN_STRETCH` tokens.
    """
    chance = trace.shape.top_k / trace.num_experts
    if chance == 1:  # a router without choice
        return LoopReport((), 0.0)
    threshold = chance + EXCESS * (1 - chance)
    found = [_longest(request, rows, trace, threshold) for request, rows in _decodes(trace)]
    loops = tuple(loop for loop in found if loop is not None)
    decoded = int((trace.phase == DECODE).sum())
    return LoopReport(loops, sum(loop.tokens for loop in loops) / max(decoded, 1))


def _decodes(trace: Trace) -> Iterator[tuple[int, np.ndarray]]:
    rows = np.flatnonzero(trace.phase == DECODE)
    rows = rows[np.argsort(trace.request[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(trace.request[rows])) + 1
    for part in np.split(rows, cuts):
        if part.size:
            yield int(trace.request[part[0]]), part


def _longest(request: int, rows: np.ndarray, trace: Trace, threshold: float) -> Loop | None:
    size = len(rows)
    if size < MIN_LAG + MIN_STRETCH:
        return None
    overlaps = _lagged_overlap(trace.experts[rows], trace.num_experts)
    lag, start, length = _stretches(overlaps, threshold)
    fits = length >= np.maximum(lag, MIN_STRETCH)
    if not fits.any():
        return None
    # Of the multiples of a period the least repeats for longest.
    best = int(np.flatnonzero(fits)[length[fits].argmax()])
    stretch = slice(start[best], start[best] + length[best])
    period = _fundamental(overlaps, int(lag[best]), stretch, threshold)
    first = max(int(start[best] - lag[best]), 0)
    tokens = int(start[best] + length[best]) - first
    return Loop(request, first, tokens, period, tokens / size)


def _fundamental(overlaps: np.ndarray, lag: int, stretch: slice, threshold: float) -> int:
    """Give the least divisor of a lag at which the stretch repeats as well."""
    for period in range(1, lag):
        if lag % period == 0 and overlaps[period, stretch].mean() >= threshold:
            return period
    return lag


def _stretches(overlaps: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lag, first token and length of every run whose smoothed overlap reaches the threshold."""
    total = np.pad(overlaps[MIN_LAG:], ((0, 0), (1, 0))).cumsum(1, dtype=np.float64)
    smooth = (total[:, SMOOTH:] - total[:, :-SMOOTH]) / SMOOTH
    high = np.pad(smooth >= threshold, ((0, 0), (1, 1))).astype(np.int8)
    edge = np.diff(high, axis=1)
    lag, start = np.nonzero(edge > 0)
    _, end = np.nonzero(edge < 0)
    return lag + MIN_LAG, start, end - start + SMOOTH - 1


def _lagged_overlap(
    experts: Integer[np.ndarray, "T L K"], num_experts: int
) -> Float[np.ndarray, "lags T"]:
    """Share of a token's experts, all layers together, that the token `lag` before it used."""
    tokens = len(experts)
    padded = np.pad(experts, ((MAX_LAG, 0), (0, 0), (0, 0)), constant_values=PAD)
    lag = np.arange(MAX_LAG + 1)
    overlaps = np.empty((MAX_LAG + 1, tokens), np.float32)
    for begin in range(0, tokens, BLOCK):
        end = min(begin + BLOCK, tokens)
        hot = _one_hot(padded[begin : end + MAX_LAG], num_experts)
        shared = hot[MAX_LAG:] @ hot.T
        token = np.arange(end - begin)
        overlaps[:, begin:end] = shared[token, token + MAX_LAG - lag[:, None]]
    return overlaps / np.maximum((experts != PAD).sum((1, 2)), 1, dtype=np.float32)


def _one_hot(experts: np.ndarray, num_experts: int) -> np.ndarray:
    tokens, layers, _ = experts.shape
    width = layers * num_experts
    column = np.arange(layers)[:, None] * num_experts + experts
    hot = np.zeros((tokens, width + 1), np.float32)  # the last column takes padding
    hot[np.arange(tokens)[:, None, None], np.where(experts == PAD, width, column)] = 1
    return hot[:, :width]
