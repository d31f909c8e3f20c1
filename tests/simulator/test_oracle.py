"""The oracle itself: against outside counts, against cases worked by hand, against invariants."""

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.oracle import Case, Config, Costs, Result, simulate
from tests.oracle.cases import cases

SHARED = Path(os.environ.get("SPECMD_RECORDINGS", Path(__file__).parents[3] / "shared"))
CONFORMANCE = SHARED / "conformance"


def is_quick(row: dict) -> bool:
    """Chooses rows for every run: all policies, both scopes, with and without a prefetch."""
    if row["prefetch"] == "none":
        return (row["trace"], row["capacity"]) == ("gpt-oss-20b", 38)
    small = (row["trace"], row["capacity"]) == ("olmoe-sampled", 51)
    return small and row["policy"] in {"lru", "fld-cyclic", "least-stale"}


def replay_rows() -> list:
    path = CONFORMANCE / "replay.json"
    if not path.exists():
        return []
    rows = []
    for row in json.loads(path.read_text()):
        names = row["trace"], row["capacity"], row["prefetch"], row["policy"], row["scope"]
        marks = () if is_quick(row) else (pytest.mark.slow,)
        rows.append(pytest.param(row, id="-".join(map(str, names)), marks=marks))
    return rows


@pytest.mark.parametrize("row", replay_rows())
def test_replay_has_the_counts_of_an_outside_program(row: dict):
    case = recorded_case(row["trace"], row["tokens"], row["experts"])
    config = one_size(
        case, row["capacity"], row["scope"], eviction=row["policy"], prefetch=row["prefetch"]
    )
    counts = outside_counts(simulate(case, config, record=False))
    assert counts == {name: row[name] for name in counts}


@pytest.mark.skipif(not CONFORMANCE.exists(), reason="needs SPECMD_RECORDINGS")
def test_toy_has_the_counts_of_an_outside_program():
    toy = json.loads((CONFORMANCE / "toy.json").read_text())
    chosen = np.array(toy["passes"])[:, None].repeat(toy["layers"], axis=1)
    case = one_token_case(chosen, toy["experts"])
    config = one_size(case, toy["capacity"], toy["scope"], eviction=toy["policy"])
    assert outside_counts(simulate(case, config)) == toy["expect"]


def outside_counts(result: Result) -> dict:
    return {
        "asked": sum(result.accesses),
        "hits": sum(result.hits),
        "misses": sum(result.misses),
        "collisions": sum(result.collisions),
        "loads": sum(map(sum, result.loads)) + sum(result.prefetched),
        "evictions": sum(result.evictions),
        "prefetched": sum(result.prefetched),
        "prefetch_used": sum(result.prefetch_used),
        "collisions_by_layer": result.collisions,
    }


@cache
def recorded_case(trace: str, tokens: int, num_experts: int) -> Case:
    with np.load(SHARED / "traces" / trace / "trace.npz", allow_pickle=False) as arrays:
        return one_token_case(arrays["experts"][:tokens], num_experts)


def one_token_case(chosen: np.ndarray, num_experts: int) -> Case:
    """Returns a case of one token a pass from the ids that it chose; -1 is padding."""
    num_passes, num_layers, top_k = chosen.shape
    demanded = (chosen[..., None] == np.arange(num_experts)).any(axis=2).astype(int)
    return Case(
        num_layers=num_layers,
        num_experts=num_experts,
        top_k=top_k,
        tokens=[1] * num_passes,
        prefill=[False] * num_passes,
        fresh=[step == 0 for step in range(num_passes)],
        routed=demanded.tolist(),
        gate=demanded.tolist(),
    )


def one_size(case: Case, capacity: int, scope: str, **strategy) -> Config:
    share, more = divmod(capacity, case.num_layers)
    quotas = [share + (layer < more) for layer in range(case.num_layers)]
    return Config(
        capacity=quotas if scope == "layer" else [capacity],
        units=[[1]] * case.num_layers,
        scope=scope,
        **strategy,
    )


# Worked by hand: mostly two layers of three experts. (1, 2) is expert 2 of layer 1; s is the event.


def trace(*passes: Sequence[set[int]], num_experts: int = 3, **fields) -> Case:
    """Returns a case from the demands of each pass, layer by layer; one token a pass."""
    ids = range(num_experts)
    demanded = [[[int(i in chosen) for i in ids] for chosen in layers] for layers in passes]
    given = {
        "num_layers": len(passes[0]),
        "tokens": [1] * len(passes),
        "prefill": [False] * len(passes),
        "fresh": [step == 0 for step in range(len(passes))],
        "routed": demanded,
        "gate": demanded,
    }
    return Case(num_experts=num_experts, top_k=2, **(given | fields))


def ticks(case: Case, **given) -> Costs:
    """Returns costs of zero but for those given; one precision."""
    zeros = [0] * len(case.tokens)
    costs = {
        "attention": zeros,
        "head": zeros,
        "shared": zeros,
        "expert_memory": [0],
        "expert_per_1024": 0,
        "host_memory": 0,
        "host_per_1024": 0,
        "load": [[0], [0]],
        "overlap": True,
    }
    return Costs(**(costs | given))


def residents(result: Result) -> set[tuple[int, int]]:
    """Returns (layer, expert) of the copies there are at the end."""
    return {(layer, expert) for layer, expert, _ in result.events[-1].after_prefetch}


def test_collision_is_a_miss_on_what_left_in_the_same_pass():
    # s=0 loads (0,0), s=1 loads (1,0): full. s=2 wants (0,1) and (0,2): both copies leave.
    # s=3 wants (1,0), which left at s=2 of this very pass: a collision, and not compulsory.
    # It displaces (0,1): last used at s=2 like (0,2), but of the lower id.
    case = trace([{0}, {0}], [{1, 2}, {0}])
    result = simulate(case, one_size(case, 2, "global"))
    assert (result.hits, result.misses) == ([0, 0], [3, 2])
    assert (result.collisions, result.compulsory) == ([0, 1], [3, 1])
    assert result.evictions == [2, 1]
    assert residents(result) == {(0, 2), (1, 0)}


def test_what_does_not_fit_is_streamed_in_ascending_order():
    # Room for 2. s=2 wants all of layer 0 and has (0,0): (1,2) leaves, (0,1) takes its place,
    # (0,2) is loaded, used and gone. s=3 wants (1,2): a collision; (0,0) leaves.
    case = trace([{0}, {2}], [{0, 1, 2}, {2}])
    result = simulate(case, one_size(case, 2, "global"))
    assert (result.hits, result.streamed, result.loads) == ([1, 0], [1, 0], [[3], [2]])
    assert (result.evictions, result.collisions) == ([1, 1], [0, 1])
    assert residents(result) == {(0, 1), (1, 2)}


def test_bypass_streams_a_load_that_ranks_below_what_is_there():
    # Room for 1. s=1: (1,1) is never wanted again, (0,0) is at s=2: the load goes.
    # s=2 hits. s=3: neither is wanted again; (0,0), last used earlier, leaves for (1,0).
    case = trace([{0}, {1}], [{0}, {0}])
    result = simulate(case, one_size(case, 1, "global", eviction="belady-bypass"))
    assert (result.hits, result.streamed, result.evictions) == ([1, 0], [0, 1], [0, 1])
    assert residents(result) == {(1, 0)}


def test_late_prefetch_stalls_for_what_remains_of_it():
    # s=0: the load arrives at 10, computes till 12, and the next gate is at 12 + 3 = 15. The
    # link is free at 10: (1,1) is on it till 20, so 5 ticks remain at the gate of s=1.
    # s=1: late; arrives at 5, computes till 7. Stalls: 10 and 5. Pass: (3 + 12) + (3 + 7).
    case = trace([{0}, {1}])
    costs = ticks(case, attention=[3], expert_memory=[2], load=[[10], [10]])
    result = simulate(case, one_size(case, 4, "global", prefetch="oracle", costs=costs))
    assert (result.hits, result.misses, result.late) == ([0, 0], [1, 1], [0, 1])
    assert (result.loads, result.prefetched) == ([[1], [0]], [0, 1])
    assert (result.prefetch_used, result.stall, result.ticks) == ([0, 0], [15], [25])


def test_queue_entries_that_do_not_start_before_the_next_gate_are_dropped():
    # s=0: the load arrives at 4, computes till 6; the next gate is at 9. (1,0) is on the link
    # from 4 to 8, (1,1) from 8 to 12; (1,2) could start at 12 only: dropped.
    # s=1: (1,0) computes 0..2, (1,1) lands at 3 and computes till 5, (1,2) is loaded right
    # behind it, 3..7, and computes till 9. Stalls: 6 - 2 and 9 - 6.
    case = trace([{0}, {0, 1, 2}])
    costs = ticks(case, attention=[3], expert_memory=[2], load=[[4], [4]])
    result = simulate(case, one_size(case, 4, "global", prefetch="oracle", costs=costs))
    assert (result.queued, result.prefetched) == ([0, 3], [0, 2])
    assert (result.hits, result.late, result.loads) == ([0, 1], [0, 1], [[1], [1]])
    assert (result.prefetch_used, result.stall) == ([0, 1], [7])


def test_a_transfer_without_ticks_does_not_wait_behind_one_that_must():
    # Three layers; layer 1 takes 5 ticks to load, the others none. s=0 asks for nothing, so the
    # next gate fires at 0: (1,0) cannot start before it, (2,0) behind it takes no time and does.
    # s=1 loads (1,0) till 5, when its next gate fires. s=2 hits: it alone needed no demand load.
    case = trace([set(), {0}, {0}])
    costs = ticks(case, load=[[0], [5], [0]])
    config = one_size(case, 2, "global", prefetch="oracle", lookahead=2, costs=costs)
    result = simulate(case, config)
    assert (result.queued, result.prefetched) == ([0, 1, 1], [0, 0, 1])
    assert (result.hits, result.loads) == ([0, 0, 1], [[0], [1], [0]])
    assert (result.prefetch_used, result.stall) == ([0, 0, 1], [5])


def test_prefetch_gets_the_room_beside_the_demand():
    # Room for 2, one of it pinned by (0,0): of three named experts only (1,0) is let in.
    # s=1: a hit on the prefetch; (0,0) leaves for (1,1), and (1,2) is streamed.
    case = trace([{0}, {0, 1, 2}])
    result = simulate(case, one_size(case, 2, "global", prefetch="oracle"))
    assert (result.queued, result.prefetched, result.prefetch_used) == ([0, 3], [0, 1], [0, 1])
    assert (result.evictions, result.streamed) == ([0, 1], [0, 1])
    assert residents(result) == {(1, 0), (1, 1)}


def test_sieve_moves_its_hand_over_visited_copies():
    # Layer 0 has room for 3 and gets 0, 1, 2 in that order, then a hit on 0: visited.
    # 3 comes: the hand passes 0, clearing its mark, and takes 1; it stands at 2.
    # 4 comes and takes 2, 1 comes back and takes 3; LRU and FIFO would have taken 0 by now.
    demands = [[{expert}, set()] for expert in (0, 1, 2, 0, 3, 4, 1)]
    case = trace(*demands, num_experts=5)
    result = simulate(case, one_size(case, 6, "layer", eviction="sieve"))
    assert (result.hits, result.evictions) == ([1, 0], [3, 0])
    assert residents(result) == {(0, 0), (0, 1), (0, 4)}


def test_sieve_sends_its_hand_back_to_the_oldest_copy_past_the_newest():
    # Layer 0 has room for 2: 2 takes 1, the newest copy then, so the hand goes back to the oldest.
    # 1 comes back and takes 0, whose mark the hand has cleared; a hand waiting for newer copies
    # would have taken 2.
    case = trace(*[[{expert}, set()] for expert in (0, 1, 0, 2, 1)])
    result = simulate(case, one_size(case, 4, "layer", eviction="sieve"))
    assert (result.hits, result.evictions) == ([1, 0], [2, 0])
    assert residents(result) == {(0, 1), (0, 2)}


def test_least_stale_takes_stale_copies_behind_before_those_ahead():
    # Room for 4: (0,0) (0,1) (1,0) (1,1), all of pass 0.
    # s=2 loads (0,2): all are stale and ahead: the last place leaves, (1,1).
    # s=3 loads (1,2): (0,0) and (0,1) are stale and behind: the first place leaves, (0,0).
    # s=4 hits (0,1) and loads (0,0): (0,2) (1,0) (1,2) are stale, ahead: (1,2) leaves.
    # s=5 hits (1,0), loads (1,1) and (1,2): (0,2), stale and behind, then (0,0), the first of
    # the current ones behind.
    case = trace([{0, 1}, {0, 1}], [{2}, {2}], [{0, 1}, {0, 1, 2}])
    result = simulate(case, one_size(case, 4, "global", eviction="least-stale"))
    assert (result.hits, result.evictions) == ([1, 1], [2, 3])
    assert result.collisions == [0, 1]  # (1,2) left at s=4 and is wanted at s=5
    assert residents(result) == {(0, 1), (1, 0), (1, 1), (1, 2)}


def test_mixed_tiers_share_one_pool_of_units():
    # Tier 0 is 2 units, tier 1 is 1 unit; room for 4. s=0: three loads, the last of them of
    # low importance: 2 + 2 + 1 do not fit, so all are loaded at tier 1. s=1: (1,0) at tier 0
    # takes 2 units, 1 is free: (0,0) leaves. s=2: (0,1) is a hit at its lower tier.
    case = trace(
        [{0, 1, 2}, {0}], [{1}, set()], gate=[[[3, 2, 1], [1, 0, 0]], [[0, 1, 0], [0] * 3]]
    )
    config = Config(
        capacity=[4],
        units=[[2, 1], [2, 1]],
        miss="fetch-priority",
        miss_params={"low": 0.5},
    )
    result = simulate(case, config)
    assert (result.loads, result.hits) == ([[0, 3], [1, 0]], [1, 0])
    assert result.events[-1].after_prefetch == ((0, 1, 1), (0, 2, 1), (1, 0, 0))


def test_host_computes_beside_the_device():
    # Three tokens, one at expert 0 and two at expert 1. The first is computed on the host, till
    # 7; the second arrives at 3 and is computed till 5. Layer 1 has nothing to do.
    case = trace([{0, 1}, set()], tokens=[3], routed=[[[1, 2, 0], [0, 0, 0]]])
    costs = ticks(case, attention=[1], expert_memory=[2], host_memory=7, load=[[3], [3]])
    config = one_size(case, 4, "global", miss="cpu", miss_params={"break_even": 1}, costs=costs)
    result = simulate(case, config)
    assert (result.on_host, result.loads) == ([1, 0], [[1], [0]])
    assert (result.stall, result.ticks) == ([3], [(1 + 7) + (1 + 0)])
    assert residents(result) == {(0, 1)}


def test_substitute_stands_in_for_a_miss_and_counts_as_used():
    # s=2 wants (0,1), absent. S = 400: 500 <= 1.3 S, so it may be replaced, and (0,0) with
    # 400 > 0.7 S stands in for it. s=3 wants (1,1), absent; S = 100 and 800 > 1.3 S: loaded.
    # It needs room: (1,0), last used at s=1, leaves, as (0,0) was used at s=2.
    probs = [[[0, 0, 0], [0, 0, 0]], [[400, 500, 300], [100, 800, 100]]]
    case = trace([{0}, {0}], [{1}, {1}], probs=probs)
    result = simulate(case, one_size(case, 2, "global", miss="substitute"))
    assert (result.misses, result.substituted) == ([2, 2], [1, 0])
    assert (result.loads, result.evictions) == ([[1], [2]], [0, 1])
    assert residents(result) == {(0, 0), (1, 1)}


@settings(max_examples=100, deadline=None)
@given(cases())
def test_counters_add_up(drawn: tuple[Case, Config]):
    case, config = drawn
    result = simulate(case, config)
    for layer in range(case.num_layers):
        loaded = sum(result.loads[layer])
        elsewhere = result.dropped[layer] + result.substituted[layer] + result.on_host[layer]
        assert result.hits[layer] + result.misses[layer] == result.accesses[layer]
        assert result.late[layer] + loaded + elsewhere == result.misses[layer]
        assert result.streamed[layer] <= loaded
        assert result.prefetched[layer] <= result.queued[layer]
    arrived = sum(map(sum, result.loads)) + sum(result.prefetched) - sum(result.streamed)
    started_with = 0 if config.initial is None else int(np.sum(config.initial))
    assert len(residents(result)) == started_with + arrived - sum(result.evictions)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_no_pool_ever_overflows(drawn: tuple[Case, Config]):
    case, config = drawn
    for event in simulate(case, config).events:
        for state in (event.after_demand, event.after_prefetch):
            taken = [0] * len(config.capacity)
            for layer, _, tier in state:
                taken[layer if config.scope == "layer" else 0] += config.units[layer][tier]
            assert all(np.array(taken) <= config.capacity)
