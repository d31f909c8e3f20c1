"""An inspection says whose fault the misses are, and its figures are those of plain replays."""

import json
from io import StringIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from specmd_jax.core.errors import InputError
from specmd_jax.core.quantities import percent
from specmd_jax.core.types import ModelShape
from specmd_jax.policies.strategy import make_strategy
from specmd_jax.report.inspection import list_facts, show_inspection
from specmd_jax.study.capacity_split import SENTENCES, split_misses, verdicts
from specmd_jax.study.inspect import inspect_trace
from specmd_jax.study.metrics import count_summary
from specmd_jax.study.run import compare
from specmd_jax.study.setup import Setup
from specmd_jax.traces import DECODE, Trace
from specmd_jax.traces.analysis import hit_curve, reuse_profile
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate

SHAPE = ModelShape(num_layers=4, num_experts=16, top_k=2)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return generate(SyntheticSpec(SHAPE, requests=2, tokens=40, prompt_tokens=4), seed=3)


@pytest.fixture(scope="module")
def result(trace: Trace) -> dict[str, Any]:
    return inspect_trace(trace)


@pytest.mark.parametrize("name", ["lru", "belady"])
def test_the_curve_is_what_a_replay_gives(trace: Trace, result: dict[str, Any], name: str):
    strategy = make_strategy(name)
    curve = result["curve"]
    setups = [Setup(strategy, strategy.params, capacity=str(point["slots"])) for point in curve]
    for point, answer in zip(curve, compare(trace, setups), strict=True):
        counts = count_summary(answer)
        assert point["misses"][name] == counts["misses"]
        assert point["hit_rate"][name] == pytest.approx(counts["hit_rate"])


@pytest.mark.parametrize("policy", ["lru", "best"])
def test_the_parts_of_the_misses_add_up(result: dict[str, Any], policy: str):
    for point in result["curve"]:
        split = point["split"][policy]
        parts = split["unavoidable"] + split["admission"] + split["victim_choice"]
        assert parts == split["misses"]
        assert 0 <= split["compulsory"] <= split["unavoidable"] <= split["misses"]
        assert min(split["admission"], split["victim_choice"]) >= 0


def test_the_best_policy_is_no_optimum_and_misses_least(result: dict[str, Any]):
    for point in result["curve"]:
        practical = {name: n for name, n in point["misses"].items() if "belady" not in name}
        assert practical[point["best"]] == min(practical.values())


def test_in_one_scope_all_contend_in_it_and_in_the_other_lru_in_both():
    from specmd_jax.study.capacity_split import contenders

    def scopes(scope: str) -> dict[str, str]:
        return {name: setup.strategy.scope for name, setup in contenders(scope, 8).items()}

    assert set(scopes("layer").values()) == {"layer"} and "lru per layer" not in scopes("layer")
    assert scopes("global") == dict.fromkeys(scopes("layer"), "global") | {"lru per layer": "layer"}


def test_a_scope_that_is_none_is_refused(trace: Trace):
    with pytest.raises(InputError, match="scope"):
        inspect_trace(trace, scope="row")


def test_verdicts_cover_the_curve_without_a_gap(result: dict[str, Any]):
    stretches, shares = result["verdicts"], [point["share"] for point in result["curve"]]
    assert [stretches[0]["from_share"], stretches[-1]["to_share"]] == [shares[0], shares[-1]]
    for one, following in pairwise(stretches):
        assert shares.index(following["from_share"]) == shares.index(one["to_share"]) + 1
        assert one["verdict"] != following["verdict"]
    assert {stretch["verdict"] for stretch in stretches} <= set(SENTENCES)


# misses, those of the optimum that admits, of the one that may decline, first uses; of 1000
CASES = [
    ("fits", (40, 30, 20, 10)),
    ("working set", (600, 500, 450, 50)),
    ("cold start", (600, 500, 450, 400)),
    ("admission", (600, 500, 100, 50)),
    ("policy", (600, 150, 100, 50)),
]


@pytest.mark.parametrize(("verdict", "misses"), CASES)
def test_the_largest_part_gives_the_verdict(verdict: str, misses: tuple[int, int, int, int]):
    from specmd_jax.study.capacity_split import verdict_of

    assert verdict_of(split_misses(*misses), accesses=1000) == verdict


def test_one_sentence_for_neighbours_that_deserve_the_same():
    def point(share: float, missed: int) -> dict[str, Any]:
        split = split_misses(missed, missed - 10, missed - 20, 5)
        rates = {"lru": 1 - missed / 1000, "belady-bypass": 1 - (missed - 20) / 1000}
        return {
            "share": share, "best": "lru", "hit_rate": rates, "split": {"best": split},
            "verdict": "working set" if missed > 50 else "fits",
        }  # fmt: skip

    found = verdicts([point(0.1, 700), point(0.2, 500), point(0.5, 30)])
    assert [(one["from_share"], one["to_share"]) for one in found] == [(0.1, 0.2), (0.5, 0.5)]
    assert "48-68 %" in found[0]["text"] and "97 %" in found[1]["text"]


def test_the_result_is_json_and_says_what_it_is(result: dict[str, Any]):
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again["label"] == "SIMULATED" and again["facts"]["layers"] == SHAPE.num_layers


def test_a_long_trace_is_replayed_in_part_and_says_so(trace: Trace):
    some = trace.num_passes - 1
    notes = inspect_trace(trace, max_passes=some)["warnings"]
    assert any(f"first {some} of" in note for note in notes)


def test_it_fits_a_terminal_of_eighty_columns(result: dict[str, Any]):
    page = StringIO()
    show_inspection(result, Console(file=page, width=80, no_color=True))
    assert max(len(line) for line in page.getvalue().splitlines()) <= 80
    assert "working set" in page.getvalue() and "victim choice" in page.getvalue()


def test_a_pool_a_layer_that_beats_the_forced_optimum_has_no_victim_choice():
    split = split_misses(misses=960, belady=980, bypass=920, compulsory=10)
    assert (split["unavoidable"], split["admission"], split["victim_choice"]) == (920, 40, 0)


def test_reuse_is_the_capacity_from_which_lru_hits(trace: Trace, result: dict[str, Any]):
    facts, hits = result["facts"], hit_curve(reuse_profile(trace))
    for name, share in (("reuse_median", 0.5), ("reuse_90_percent", 0.9)):
        slots = facts[name]
        assert hits[slots - 1] < share * hits[-1] <= hits[slots]
    assert facts["first_use_share"] == pytest.approx(1 - hits[-1])


def test_foresight_is_told_where_it_was_recorded(result: dict[str, Any]):
    assert result["facts"]["foreseen_recall"] is None
    facts = inspect_trace(generate(SyntheticSpec(SHAPE, tokens=20, lookahead=4)))["facts"]
    assert [share is None for share in facts["foreseen_recall"]] == [False] * 3 + [True]
    (row,) = [row for row in list_facts(facts) if row[0] == "foresight"]
    assert row[1] == percent(facts["foreseen_recall"][0])
    worst = min(share for share in facts["foreseen_recall_by_layer"][0] if share is not None)
    assert "3 ahead" in row[2] and "4 ahead" not in row[2] and percent(worst) in row[2]


def test_loops_are_named(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    curve = result["curve"]  # it does not matter here, and another would be compiled
    monkeypatch.setattr("specmd_jax.study.inspect.capacity_curve", lambda *_: curve)
    once = generate(SyntheticSpec(SHAPE, requests=2, tokens=20), seed=1)
    rounds = decode_again(once, times=10)
    result = inspect_trace(rounds)
    assert result["facts"]["is_loop"] and result["facts"]["loop_requests"] == (0, 1)
    assert "2 of 2 requests fell into repetition (number 0, 1)" in result["warnings"][0]
    page = StringIO()
    show_inspection(result, Console(file=page, width=80, no_color=True))
    assert "REPETITION LOOP" in page.getvalue()


def decode_again(trace: Trace, times: int) -> Trace:
    """The decode tokens of each request, over and over."""
    rows = np.concatenate([
        np.tile(np.flatnonzero((trace.request == request) & (trace.phase == DECODE)), times)
        for request in np.unique(trace.request)
    ])  # fmt: skip
    return Trace(
        trace.experts[rows],
        trace.num_experts,
        step=np.arange(len(rows), dtype=np.int32),
        request=trace.request[rows],
        phase=trace.phase[rows],
    )
