"""The demand of a trace as one flat list: which expert each event asks for, each expert once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from specmd_jax.traces.trace import PAD, Trace

BLOCK_FLAGS = 1 << 26  # (event, expert) pairs that are marked at a time, one byte each


class Accesses(NamedTuple):
    """Distinct (event, expert) pairs in ascending order: A of them."""

    event: Int[np.ndarray, " A"]  # step * L + layer
    item: Int[np.ndarray, " A"]  # layer * N + expert


def accesses(trace: Trace) -> Accesses:
    """List what every event demands: the union over the tokens of its pass."""
    layers, experts, _ = trace.shape
    block = max(1, BLOCK_FLAGS // (layers * experts))
    blocks = [_demanded(trace, first, block) for first in range(0, trace.num_passes, block)]
    event, expert = np.divmod(np.concatenate(blocks), experts)
    return Accesses(event, event % layers * experts + expert)


def demand_sizes(trace: Trace) -> Int[np.ndarray, "P L"]:
    """Count the distinct experts that each event demands."""
    layers = trace.shape.num_layers
    sizes = np.bincount(accesses(trace).event, minlength=trace.num_passes * layers)
    return sizes.reshape(trace.num_passes, layers)


def previous_use(item: Int[np.ndarray, " A"]) -> Int[np.ndarray, " A"]:
    """Find, for each access, the index of the last access to the same item; -1 at the first."""
    compact = item.astype(np.min_scalar_type(int(item.max(initial=0))))  # 16 bits sort fastest
    order = np.argsort(compact, kind="stable")
    again = compact[order[1:]] == compact[order[:-1]]
    previous = np.full(item.size, -1, np.int64)
    previous[order[1:][again]] = order[:-1][again]
    return previous


def _demanded(trace: Trace, first: int, passes: int) -> np.ndarray:
    """Keys event * N + expert of some passes, ascending. Marking beats sorting by far."""
    layers, experts, _ = trace.shape
    rows = slice(*np.searchsorted(trace.step, [first, first + passes]))
    event = (trace.step[rows, None].astype(np.int64) - first) * layers + np.arange(layers)
    key = event[:, :, None] * experts + trace.experts[rows]
    marked = np.zeros(passes * layers * experts, bool)
    marked[key[trace.experts[rows] != PAD]] = True
    return np.flatnonzero(marked) + first * layers * experts
