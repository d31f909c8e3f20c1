"""A run that is recorded, replayed by the simulator, comes to the counts of the run."""

from typing import Any

import pytest

from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.runtime.options import drained
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.run import compare as simulate
from tests.runtime.offloaded import AHEAD, ALL, LIVE, PROMPTS, make_setup, record

pytestmark = pytest.mark.matrix

NEW = 6
COUNTS = ("accesses", "hits", "misses", "collisions", "compulsory", "loads", "streamed")
COUNTS += ("evictions", "prefetched", "prefetch_queued", "prefetch_used", "prefetch_late")


@pytest.mark.parametrize(
    ("capacity", "decisions"),
    [
        *[("9", {"eviction": name}) for name in LIVE],
        ("1", {"eviction": "lru"}),
        ("7", {"eviction": "least-stale", "scope": "layer"}),
        ("7", {"eviction": "lfu", "admission": "bypass"}),
        (ALL, {"eviction": "lru"}),
        *[("10", {"eviction": "least-stale", "prefetch": name}) for name in AHEAD],
        ("13", {"prefetch": "next-gate", "lookahead": 2}),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_replay_of_the_recorded_run_counts_the_same(
    capacity: str, decisions: dict[str, Any], batch: int
) -> None:
    setup = make_setup(capacity, **decisions)
    wanted = RecordOptions(scores=True, lookahead=2)
    ran, trace = record(setup, PROMPTS[:batch], NEW, wanted, options=drained(whole_passes=False))
    (answer,) = simulate(trace, [setup])
    replayed = count_summary(answer)
    assert {name: ran[name] for name in COUNTS} == {name: replayed[name] for name in COUNTS}
    assert ran["misses_by_layer"] == replayed["misses_by_layer"]
    assert ran["bytes_loaded"] == replayed["bytes_loaded"]


@pytest.mark.parametrize("decisions", [{}, {"eviction": "least-stale", "prefetch": "next-gate"}])
def test_hits_count_the_same_once_every_expert_is_there(decisions: dict[str, Any]) -> None:
    setup, wanted = make_setup(ALL, **decisions), RecordOptions(scores=True, lookahead=1)
    ran, trace = record(setup, PROMPTS, 4 * NEW, wanted, options=drained(whole_passes=False))
    assert ran["loads"] == int(ALL), "some of the run is after that"
    (answer,) = simulate(trace, [setup])
    replayed = count_summary(answer)
    assert {name: ran[name] for name in COUNTS} == {name: replayed[name] for name in COUNTS}
