"""The measures of a trace against plain loops, against chance, and on recorded traces."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.traces import analysis
from specmd_jax.traces.trace import DECODE, PAD, PREFILL, Trace
from tests.helpers.recorded import FOLDER, NAMES, needs_recorded, recorded


def decode(experts: np.ndarray, num_experts: int, request: Sequence[int] | None = None) -> Trace:
    """A trace of one token a pass."""
    tokens = len(experts)
    return Trace(
        experts.astype(np.int16),
        num_experts,
        step=np.arange(tokens, dtype=np.int32),
        request=np.asarray([0] * tokens if request is None else request, np.int32),
        phase=np.full(tokens, DECODE, np.uint8),
    )


def routed(rng: np.random.Generator, tokens: int, layers: int, experts: int, k: int) -> np.ndarray:
    """Uniform i.i.d. routing."""
    return rng.permuted(np.tile(np.arange(experts), (tokens, layers, 1)), axis=2)[..., :k]


def batched(seed: int, layers: int, experts: int, top_k: int) -> Trace:
    """Passes of one to four tokens, with padding: events of uneven size."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 25)
    ids = routed(rng, int(sizes.sum()), layers, experts, top_k)
    ids[rng.random(ids.shape) < 0.2] = PAD
    ids[0] = np.arange(top_k)
    step = np.repeat(np.arange(sizes.size), sizes).astype(np.int32)
    return Trace(
        ids.astype(np.int16),
        experts,
        step=step,
        request=np.zeros(len(step), np.int32),
        phase=np.where(sizes[step] > 1, PREFILL, DECODE).astype(np.uint8),
    )


def head(trace: Trace, tokens: int) -> Trace:
    return decode(trace.experts[:tokens], trace.num_experts, trace.request[:tokens].tolist())


def demands(trace: Trace) -> list[tuple[int, list[int]]]:
    """(layer, experts) of every event, in order."""
    events = []
    for step in range(trace.num_passes):
        for layer in range(trace.shape.num_layers):
            ids = trace.experts[trace.step == step, layer]
            events.append((layer, sorted(set(ids[ids != PAD].tolist()))))
    return events


def lru_hits(events: list[tuple[int, list[int]]], capacity: int) -> int:
    """Event-atomic LRU as the semantics have it, one set at a time."""
    last: dict[tuple[int, int], int] = {}
    hits = 0
    for now, (layer, ids) in enumerate(events):
        wanted = {(layer, expert) for expert in ids}
        found = wanted & last.keys()
        hits += len(found)
        excess = len(last) + len(wanted) - len(found) - capacity
        victims = sorted((at, item) for item, at in last.items() if item not in wanted)
        for _, item in victims[: max(excess, 0)]:
            del last[item]
        last.update(dict.fromkeys(wanted, now))
    return hits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(4, 9), st.integers(1, 4))
def test_one_pass_gives_the_lru_hits_of_every_capacity(seed, layers, experts, top_k):
    trace = batched(seed, layers, experts, top_k)
    profile = analysis.reuse_profile(trace)
    curve = analysis.hit_curve(profile) * profile.accesses.sum()
    events = demands(trace)
    exact = range(analysis.exact_from(profile), layers * experts + 1)
    assert [round(curve[c]) for c in exact] == [lru_hits(events, c) for c in exact]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(4, 7))
def test_one_pass_gives_the_hits_of_a_quota_per_layer(seed, layers, experts):
    trace = batched(seed, layers, experts, 2)
    profile = analysis.reuse_profile(trace, "layer")
    curve = analysis.hit_curve(profile) * profile.accesses.sum()
    events = demands(trace)
    for capacity in range(analysis.exact_from(profile), layers * experts + 1):
        hits = 0
        for layer in range(layers):
            quota = capacity // layers + (layer < capacity % layers)
            hits += lru_hits([event for event in events if event[0] == layer], quota)
        assert round(curve[capacity]) == hits


def test_exactness_begins_where_every_event_fits():
    trace = batched(3, 2, 8, 3)
    profile = analysis.reuse_profile(trace)
    largest = max(len(ids) for _, ids in demands(trace))
    assert analysis.exact_from(profile) == largest == analysis.demand_sizes(trace).max()


def test_lru_hits_nothing_that_the_other_layers_evict_and_never_falls_with_capacity():
    trace = decode(routed(np.random.default_rng(0), 200, 6, 16, 4), 16)
    curve = analysis.hit_curve(analysis.reuse_profile(trace))
    assert curve[5 * 4] == 0 < curve[5 * 4 + 1]  # just under one pass, a few already hit
    assert (np.diff(curve) >= 0).all()
    assert analysis.miss_curve(analysis.reuse_profile(trace))[-1] == pytest.approx(1 - curve[-1])
    assert analysis.cycles(ModelShape(6, 16, 4), 12) == 0.5


def test_only_first_uses_miss_when_all_fits():
    trace = batched(5, 3, 8, 2)
    profile = analysis.reuse_profile(trace)
    first = len({(layer, e) for layer, ids in demands(trace) for e in ids})
    assert profile.accesses.sum() - profile.distances.sum() == first


def test_working_sets_are_unions_of_passes():
    trace = batched(1, 3, 8, 2)
    events = demands(trace)
    used = [{(layer, e) for layer, ids in events[p : p + 3] for e in ids}
            for p in range(0, len(events), 3)]  # fmt: skip
    for window in (1, 2, 5, 100):
        wanted = [len(set().union(*used[max(0, p + 1 - window) : p + 1])) for p in range(len(used))]
        assert analysis.working_set(trace, window).tolist() == wanted
        assert analysis.mean_working_set(trace, [window])[0] == pytest.approx(np.mean(wanted))
    with pytest.raises(InputError, match="window of 0"):
        analysis.working_set(trace, 0)


def test_entropy_of_even_use_is_log2_and_of_one_expert_zero():
    even = decode(np.arange(32).reshape(32, 1, 1) % 8, 8)
    assert analysis.popularity_entropy(analysis.expert_counts(even)) == pytest.approx([3.0])
    alone = decode(np.zeros((4, 1, 1)), 8)
    assert analysis.popularity_entropy(analysis.expert_counts(alone)) == pytest.approx([0.0])


def test_shares_follow_the_lorenz_curve():
    counts = np.array([[1, 6, 2, 1], [5, 5, 5, 5]])
    assert analysis.top_share(counts, 0.25).tolist() == [0.6, 0.25]
    assert analysis.top_share(counts, 0.375).tolist() == [0.7, 0.375]
    assert analysis.top_share(counts, 1.0).tolist() == [1, 1]


def test_overlap_counts_shared_experts_within_a_request_only():
    ids = np.array([[0, 1], [1, 2], [1, 2], [5, PAD], [5, 0]])[:, None]
    trace = decode(ids, 8, [0, 1, 0, 1, 1])
    # Request 0: {0,1} {1,2}; request 1: {1,2} {5} {5,0}.
    assert analysis.overlap(trace)[0] == pytest.approx((1 + 0 + 1) / (2 + 1 + 2))
    assert analysis.jaccard(trace)[0] == pytest.approx((1 / 3 + 0 + 1 / 2) / 3)
    assert analysis.overlap(trace, 2)[0] == 0
    assert np.isnan(analysis.overlap(trace, 3)[0])
    with pytest.raises(InputError, match="stands 0 tokens before"):
        analysis.overlap(trace, 0)


def test_overlap_without_memory_is_that_of_chance():
    rng = np.random.default_rng(7)
    popular = np.log(1 + np.arange(32)) + rng.gumbel(size=(4000, 3, 32))
    trace = decode(np.argsort(-popular, axis=2)[..., :4], 32)
    error = 4 * 0.2 / np.sqrt(4000)  # four standard errors; one overlap spreads by less than 0.2
    assert analysis.overlap(trace) == pytest.approx(analysis.chance_overlap(trace), abs=error)
    even = decode(routed(rng, 4000, 3, 32, 4), 32)
    assert analysis.overlap(even) == pytest.approx(analysis.uniform_chance_overlap(even), abs=error)
    assert (analysis.chance_overlap(trace) > analysis.uniform_chance_overlap(trace) + 0.02).all()


def test_chance_is_the_mean_over_all_pairs_of_tokens():
    ids = routed(np.random.default_rng(2), 12, 2, 6, 2)
    trace = decode(ids, 6, [0] * 5 + [1] * 7)
    pair = [[len(set(a) & set(b)) / 2 for a in ids[:, 1]] for b in ids[:, 1]]
    apart = ~np.eye(12, dtype=bool)
    assert analysis.chance_overlap(trace)[1] == pytest.approx(np.array(pair)[apart].mean())
    same = apart & (trace.request[:, None] == trace.request)
    weight = (same / np.maximum(same.sum(1, keepdims=True), 1))[same]
    wanted = (np.array(pair)[same] * weight).sum() / weight.sum()
    assert analysis.topic_chance_overlap(trace)[1] == pytest.approx(wanted)


def test_topic_chance_needs_requests_of_two_tokens():
    alone = decode(np.zeros((2, 1, 1)), 4, [0, 1])
    assert np.isnan(analysis.topic_chance_overlap(alone)).all()


@pytest.mark.parametrize("period", [1, 9, 40, 103])
def test_a_planted_loop_is_found_with_its_period(period):
    rng = np.random.default_rng(period)
    ids = routed(rng, 500, 8, 32, 4)
    start, tokens = 120, 330
    ids[start : start + tokens] = ids[start + np.arange(tokens) % period]
    blurred = rng.random((500, 8)) < 0.1  # repeated text is not routed quite alike
    ids[blurred] = routed(rng, 500, 8, 32, 4)[blurred]
    report = analysis.find_loops(decode(ids, 32))
    (loop,) = report.loops
    assert loop.period == period
    assert abs(loop.start - start) <= 20 and abs(loop.tokens - tokens) <= 20
    assert report.is_loop and report.share == loop.tokens / 500


def test_memory_is_no_loop():
    rng = np.random.default_rng(0)
    kept = routed(rng, 600, 8, 32, 4)
    assert analysis.find_loops(decode(kept, 32)).loops == ()
    for token in range(1, 600):
        same = rng.random(8) < 0.9  # nine layers in ten keep their experts
        kept[token, same] = kept[token - 1, same]
    assert analysis.find_loops(decode(kept, 32)).loops == ()
    everything = decode(np.tile(np.arange(4), (300, 2, 1)), 4)
    assert not analysis.find_loops(everything).is_loop  # a router without choice


def test_prompts_do_not_count_as_loops():
    ids = routed(np.random.default_rng(1), 300, 4, 32, 4)[np.arange(300) % 20]
    prompt = Trace(
        ids.astype(np.int16),
        32,
        step=np.zeros(300, np.int32),
        request=np.zeros(300, np.int32),
        phase=np.full(300, PREFILL, np.uint8),
    )
    assert analysis.find_loops(prompt) == analysis.LoopReport((), 0.0)


def test_recall_needs_predictions():
    with pytest.raises(InputError, match="no predicted router"):
        analysis.foreseen_recall(decode(np.zeros((2, 1, 1)), 4))


def test_summary_of_the_smallest_trace():
    summary = analysis.summarise(decode(np.zeros((1, 2, 1)), 4))
    assert (summary.tokens, summary.layers, summary.pass_experts) == (1, 2, 2.0)
    assert np.isnan(summary.overlap) and summary.entropy_bits == 0 and not summary.is_loop


@needs_recorded
@pytest.mark.parametrize("name", ["olmoe-sampled", "deepseek-v2-lite-intent", "gpt-oss-20b"])
def test_hits_are_those_of_the_conformance_replays(name):
    rows = json.loads((FOLDER.parent / "conformance" / "replay.json").read_text())
    plain = [r for r in rows if (r["trace"], r["policy"], r["prefetch"]) == (name, "lru", "none")]
    compared = 0
    for row in plain:
        profile = analysis.reuse_profile(head(recorded(name), row["tokens"]), row["scope"])
        if row["capacity"] >= analysis.exact_from(profile):
            hits = analysis.hit_curve(profile)[row["capacity"]] * row["asked"]
            assert (profile.accesses.sum(), round(hits)) == (row["asked"], row["hits"]), row
            compared += 1
    assert compared


@needs_recorded
@pytest.mark.parametrize("name", NAMES)
def test_recorded_loops_are_told_from_the_rest(name):
    assert analysis.find_loops(recorded(name)).is_loop == name.endswith("-loops")


@needs_recorded
def test_recorded_routing_has_memory_beyond_popularity_and_topic():
    summary = analysis.summarise(recorded("olmoe-sampled"))
    assert summary.overlap_uniform < summary.overlap_popularity < summary.overlap_topic
    assert summary.overlap_topic + 0.1 < summary.overlap
    assert summary.largest_demand == summary.top_k == 8
