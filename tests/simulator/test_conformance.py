"""Counts of real traces that another program made: through the public API, equal to the last one.

About a minute and a half of one core, mostly compiling.
"""

from functools import lru_cache
from itertools import groupby

import numpy as np
import pytest

import specmd_jax as sx
from specmd_jax.study.metrics import count_summary
from specmd_jax.traces import DECODE, slice_passes
from tests.helpers.recorded import FOLDER, conformance, needs_conformance

pytestmark = pytest.mark.matrix

ROWS = conformance("replay")
NUM_ROWS = 224
STRATEGY = ("trace", "prefetch", "policy", "scope")  # rows that differ in capacity alone
COUNTED = (
    "hits", "misses", "collisions", "loads", "evictions", "prefetched", "prefetch_used",
    "collisions_by_layer",
)  # fmt: skip


def by_strategy(row: dict) -> tuple[str, ...]:
    return tuple(row[name] for name in STRATEGY)


GROUPS = {names: list(rows) for names, rows in groupby(sorted(ROWS, key=by_strategy), by_strategy)}


@lru_cache(maxsize=1)
def first_passes(name: str, count: int) -> sx.Trace:
    return slice_passes(sx.import_trace(FOLDER / name / "trace.npz"), 0, count)


@needs_conformance
def test_every_row_is_here():
    assert sum(map(len, GROUPS.values())) == len(ROWS) == NUM_ROWS


@needs_conformance
@pytest.mark.parametrize("names", GROUPS, ids="-".join)
def test_replay_has_the_counts_of_another_program(names: tuple[str, ...]):
    _, prefetch, eviction, scope = names
    rows = GROUPS[names]
    setups = [
        sx.make_setup(
            sx.Choice(
                eviction=eviction, prefetch=prefetch, scope=scope, capacity=str(row["capacity"])
            )
        )
        for row in rows
    ]
    trace = first_passes(rows[0]["trace"], rows[0]["tokens"])
    for row, answer in zip(rows, sx.compare(trace, setups), strict=True):
        found = count_summary(answer)
        assert (found["accesses"], found["hits"]) == (row["asked"], row["hits"])
        assert {name: found[name] for name in COUNTED} == {name: row[name] for name in COUNTED}


@needs_conformance
def test_toy_has_the_counts_of_another_program():
    toy = conformance("toy")
    chosen = np.array(toy["passes"], np.int16)[:, None].repeat(toy["layers"], axis=1)
    steps = np.arange(len(chosen), dtype=np.int32)
    trace = sx.Trace(
        chosen,
        toy["experts"],
        step=steps,
        request=np.zeros_like(steps),
        phase=np.full(len(steps), DECODE, np.uint8),
    )
    choice = sx.Choice(eviction=toy["policy"], scope=toy["scope"], capacity=str(toy["capacity"]))
    (answer,) = sx.compare(trace, [sx.make_setup(choice)])
    found = count_summary(answer)
    expected = toy["expect"]
    assert (found["accesses"], found["hits"]) == (expected["asked"], expected["hits"])
    assert {name: found[name] for name in COUNTED} == {name: expected[name] for name in COUNTED}


@needs_conformance
def test_a_phones_own_hit_rate_comes_out_again():
    # BigMoeOnEdge's log of gemma-4-26b-a4b: an LRU of 4000 MiB over all layers, the prompt served
    # as one batch, eviction after it. The engine reported 76.8 % hits, the prompt included.
    trace = sx.import_trace(FOLDER / "gemma-4-26b-a4b-phone" / "original" / "gemma.route.csv")
    (answer,) = sx.compare(trace, [sx.make_setup(sx.Choice(eviction="lru", capacity="4000MiB"))])
    hit_rate = sx.summarise_result(trace, answer)["hit_rate"]
    assert round(100 * hit_rate, 1) == 76.8
