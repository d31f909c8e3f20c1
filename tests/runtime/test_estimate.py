"""What a run tells its guard to expect, by a clock of the test's own; and runs under a guard."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specmd_jax.policies.prefetch_guard import GuardParams
from specmd_jax.runtime.decide.layer_work import LayerWork
from specmd_jax.runtime.gates.gate_events import GatePosition
from specmd_jax.runtime.options import drained
from specmd_jax.runtime.transfer.estimate import LinkEstimator
from specmd_jax.runtime.transfer.link import ThrottledLink
from specmd_jax.study.metrics import count_summary
from tests.runtime.offloaded import PROMPTS, STORE, make_setup, offloaded, run
from tests.runtime.virtual import Clock

MS = 1e-3
NUM_EXPERTS = 6


def work(loaded: int = 0, late: bool = False) -> LayerWork:
    """Returns the work of a layer of which some experts are missing."""
    nobody = np.zeros(NUM_EXPERTS, bool)
    first, last = nobody.copy(), nobody.copy()
    first[:loaded], last[-1] = True, late
    event: Any = None  # nobody asks what it was
    return LayerWork(event, np.zeros(NUM_EXPERTS, np.int8), nobody, last, first, nobody, nobody)


def position(
    layer: int, *, step: int = 1, prefill: bool = False, fresh: bool = False
) -> GatePosition:
    return GatePosition(step, layer, 2, prefill, fresh)


class Lived:
    """An experience whose link takes 1 ms a transfer."""

    def __init__(self) -> None:
        self.clock = Clock()
        link = ThrottledLink(float(STORE.copy_bytes[0, 0]) / MS)
        link.send(STORE[0, 0, 0])
        self.experience = LinkEstimator(link, 2, self.clock)

    def gate(self, layer: int, after: float, stalled: float = 0.0, **options: bool) -> None:
        self.clock.sleep(after)
        self.experience.at_gate(position(layer, **options), stalled)

    def spare_ms(self, **missing: Any) -> float:
        return float(self.experience.outlook(work(**missing)).spare) * 1e-3


def test_nothing_is_spare_before_anything_is_known():
    lived = Lived()
    lived.gate(0, after=0.0)
    assert lived.spare_ms() == 0
    assert int(lived.experience.outlook(work()).load) == 1000


def test_spare_is_what_the_demand_leaves_of_the_time_to_the_next_gate():
    lived = Lived()
    for layer, after in ((0, 0.0), (1, 5 * MS), (0, 3 * MS)):
        lived.gate(layer, after)
    assert lived.spare_ms() == pytest.approx(5.0)
    assert lived.spare_ms(loaded=2) == pytest.approx(3.0)
    assert lived.spare_ms(late=True) == pytest.approx(4.5)
    assert lived.spare_ms(loaded=6) == 0  # it is never less


def test_waiting_for_the_link_is_no_time_that_a_layer_takes():
    lived = Lived()
    for layer, after, stalled in ((0, 0.0, 0.0), (1, 5 * MS, 4 * MS), (0, 3 * MS, 4 * MS)):
        lived.gate(layer, after, stalled)
    assert lived.spare_ms() == pytest.approx(1.0)


def test_after_a_long_demand_the_last_arrival_has_still_to_be_computed():
    lived = Lived()
    lived.gate(0, after=0.0)
    lived.clock.sleep(6 * MS)
    lived.experience.served()
    lived.gate(1, after=2 * MS, stalled=6 * MS)
    lived.gate(0, after=1 * MS, stalled=6 * MS)
    assert lived.spare_ms(loaded=6) == pytest.approx(2.0)


def test_the_latest_counts_a_quarter():
    lived = Lived()
    for layer, after in ((0, 0.0), (1, 4 * MS), (0, 1 * MS), (1, 8 * MS), (0, 1 * MS)):
        lived.gate(layer, after)
    assert lived.spare_ms() == pytest.approx(5.0)


def test_prompts_are_another_matter():
    lived = Lived()
    lived.gate(0, after=0.0, prefill=True)
    lived.gate(1, after=50 * MS, prefill=True)
    lived.gate(0, after=50 * MS)
    assert lived.spare_ms() == 0


@pytest.mark.parametrize("how", ["idle", "unseen"])
def test_what_passed_unseen_or_between_requests_is_no_layer_s_time(how: str):
    lived = Lived()
    for layer in (0, 1):
        lived.gate(layer, after=MS)
    if how == "unseen":
        lived.experience.skip()
    lived.gate(0, after=100.0, fresh=how == "idle")
    lived.gate(1, after=MS)
    assert lived.spare_ms() == 0  # of layer 1 nothing is known yet


GUARDED = {"prefetch": "previous", "guard": True}


@pytest.mark.parametrize("capacity", ["6", "14"])
def test_a_guarded_run_writes_what_the_others_write(capacity: str):
    exact = run(offloaded(make_setup("24")), PROMPTS[:2], 6)
    model = offloaded(make_setup(capacity, **GUARDED), link=ThrottledLink(4e6))
    tokens, logits = run(model, PROMPTS[:2], 6)
    model.close()
    assert tokens == exact[0]
    for one, other in zip(logits, exact[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_guard_that_allows_nothing_prefetches_nothing():
    setup = make_setup("14", **GUARDED)
    never = setup.params._replace(guard=GuardParams(margin=1.0))
    model = offloaded(replace(setup, params=never))
    run(model, PROMPTS[:2], 6)
    model.close()
    loose = offloaded(make_setup("14", prefetch="previous"), options=drained(whole_passes=False))
    run(loose, PROMPTS[:2], 6)
    loose.close()
    assert count_summary(model.answer)["prefetched"] == 0
    assert count_summary(loose.answer)["prefetched"] > 0
